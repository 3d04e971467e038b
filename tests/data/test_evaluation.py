"""Evaluation batches: every example once, and back in order."""

import dataclasses

import numpy as np
import pytest
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
@given(
  n=st.integers(1, 50),
  batch_size=st.integers(1, 8),
  batching=st.sampled_from(["fixed", "longest", "buckets"]),
)
def test_every_example_once(n, batch_size, batching):
  store = make_store(n)
  batches = EvaluationBatches(store, batch_size, batching=batching)
  read = list(batches)
  assert len(read) == len(batches) == -(-n // batch_size)
  found = {}
  for batch in read:
    ids = batch["encoder_input_tokens"]
    assert len(ids) == batch_size
    if batches.shapes is not None:
      S = batch["decoder_target_tokens"].shape[1]
      assert (*ids.shape, S) in batches.shapes
    np.testing.assert_array_equal(
      batch["example_mask"], batch["example_index"] >= 0
    )
    for row, index in enumerate(batch["example_index"]):
      if index < 0:
        assert not any(
          batch[name][row].any()
          for name in batch
          if name not in ("example_index", "example_mask")
        )
        continue
      assert index not in found
      found[index] = ids[row][ids[row] != 0].tolist()
  assert [found[i] for i in range(n)] == [
    store.inputs[i].tolist() for i in range(n)
  ]


def test_fixed_keeps_the_order():
  batches = EvaluationBatches(make_store(7), 3, batching="fixed")
  index = np.concatenate([batch["example_index"] for batch in batches])
  assert index.tolist() == [0, 1, 2, 3, 4, 5, 6, -1, -1]


def test_hosts_share_the_batches():
  store = make_store(13)
  parts = [EvaluationBatches(store, 4, shard=(i, 2)) for i in range(2)]
  for whole, *shares in zip(EvaluationBatches(store, 4), *parts, strict=True):
    for name, array in whole.items():
      joined = np.concatenate([share[name] for share in shares])
      np.testing.assert_array_equal(array, joined)


def test_packing_is_refused():
  with pytest.raises(ValueError, match="one example per row"):
    EvaluationBatches(make_store(7), 3, batching="packed")
