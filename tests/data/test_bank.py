"""A bank gives each run what the run alone would see."""

import dataclasses
import json

import numpy as np
import pytest

from prompt_tuning.core.placement import Placement
from prompt_tuning.data.bank import BankBatches
from prompt_tuning.data.pipeline import Layout, TrainBatches
from prompt_tuning.data.ragged import Ragged, from_rows


@dataclasses.dataclass(frozen=True)
class Store:
  inputs: Ragged
  targets: Ragged
  lengths: dict
  key: str = "store"


def make_store(n, longest, seed):
  rng = np.random.default_rng(seed)
  rows = [rng.integers(2, 900, rng.integers(1, longest)) for _ in range(n)]
  targets = [rng.integers(2, 900, 1 + i % 2) for i in range(n)]
  return Store(
    from_rows(rows, np.uint16),
    from_rows(targets, np.uint16),
    {"inputs": longest, "targets": 2},
  )


def make_runs(batching):
  layout = Layout(Placement((0, 1)))
  tasks = [make_store(30, 10, 0), make_store(30, 10, 0), make_store(20, 40, 1)]
  return [
    TrainBatches(task, 4, seed, layout=layout, batching=batching)
    for seed, task in enumerate(tasks)
  ]


@pytest.mark.parametrize("batching", ["fixed", "longest", "buckets", "packed"])
def test_each_run_sees_its_solo_batches(batching):
  bank = iter(BankBatches(make_runs(batching)))
  solos = [iter(run) for run in make_runs(batching)]
  for _ in range(25):
    batch = next(bank)
    assert batch["run_ids"].dtype == np.int32
    assert batch["run_ids"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for run, solo in enumerate(solos):
      alone = next(solo)
      for name, array in alone.items():
        together = batch[name][batch["run_ids"] == run]
        np.testing.assert_array_equal(together[:, : array.shape[1]], array)
        assert not together[:, array.shape[1] :].any()


def test_a_bank_resumes_exactly():
  whole = iter(BankBatches(make_runs("buckets")))
  expected = [next(whole) for _ in range(20)]
  bank = iter(BankBatches(make_runs("buckets")).prefetch())
  for _ in range(9):
    next(bank)
  state = json.loads(json.dumps(bank.get_state()))
  bank.close()
  resumed = iter(BankBatches(make_runs("buckets")))
  resumed.set_state(state)
  for batch in expected[9:]:
    found = next(resumed)
    for name in batch:
      np.testing.assert_array_equal(found[name], batch[name])


def test_runs_over_one_task_pad_together():
  """The lengths of a bank's batches come in the same order in every run."""
  store = make_store(2000, 60, 0)
  runs = [iter(TrainBatches(store, 8, seed)) for seed in range(8)]
  alone, together = 0, 0
  for _ in range(60):
    lengths = [next(run)["encoder_input_tokens"].shape[1] for run in runs]
    alone += sum(lengths)
    together += max(lengths) * len(lengths)
  assert together < 1.06 * alone


def test_bad_banks():
  with pytest.raises(ValueError, match="0 runs"):
    BankBatches([])
  with pytest.raises(ValueError, match="either all or none packed"):
    BankBatches(make_runs("packed")[:1] + make_runs("fixed")[:1])
  bank = iter(BankBatches(make_runs("fixed")))
  with pytest.raises(ValueError, match="has 1 runs, this bank 3"):
    bank.set_state({"runs": [{}]})
