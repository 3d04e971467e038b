"""Evaluation batches: every example once, in its order."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data.evaluation import EvaluationBatches
from prompt_tuning.data.ragged import Ragged, from_rows


@dataclasses.dataclass(frozen=True)
class Store:
  inputs: Ragged
  targets: Ragged
  lengths: dict
  key: str = "store"


def make_store(n):
  rng = np.random.default_rng(n)
  rows = [rng.integers(2, 900, rng.integers(1, 50)) for _ in range(n)]
  return Store(
    from_rows(rows, np.uint16),
    from_rows([row[:2] for row in rows], np.uint16),
    {"inputs": 60, "targets": 3},
  )


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 50), batch_size=st.integers(1, 8))
def test_every_example_once_in_its_order(n, batch_size):
  store = make_store(n)
  batches = list(EvaluationBatches(store, batch_size))
  assert len(batches) == -(-n // batch_size)
  rows = []
  for batch in batches:
    assert batch["encoder_input_tokens"].shape == (batch_size, 60)
    assert batch["decoder_target_tokens"].shape == (batch_size, 3)
    rows += list(batch["encoder_input_tokens"])
  assert [row[row != 0].tolist() for row in rows[:n]] == [
    store.inputs[i].tolist() for i in range(n)
  ]
  left_over = batch_size - (n - 1) % batch_size - 1
  for array in batches[-1].values():
    assert not array[batch_size - left_over :].any()


def test_hosts_share_the_batches():
  store = make_store(13)
  hosts = [EvaluationBatches(store, 4, shard=(i, 2)) for i in range(2)]
  for whole, *shares in zip(EvaluationBatches(store, 4), *hosts, strict=True):
    for name, array in whole.items():
      joined = np.concatenate([share[name] for share in shares])
      np.testing.assert_array_equal(array, joined)
