"""Joint batches of K runs, for a bank of prompts."""

from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from prompt_tuning.data import pipeline
from prompt_tuning.data.assembly import NumpyBatch
from prompt_tuning.data.pipeline import TrainBatches


class BankBatches(grain.IterDataset[NumpyBatch]):
  """Batches of K runs: one joint batch per step.

  Each run gets exactly the batches of its own `TrainBatches`. They are stacked
  run by run and padded to the largest shape; `run_ids` [B] int32 is the run of
  each row.
  """

  def __init__(self, runs: Sequence[TrainBatches]):
    """Join runs.

    Args:
      runs: one per run, in the order of the run axis; all packed or none.

    Raises:
      ValueError: no runs, or packed and unpacked ones together.
    """
    if not runs or len({run.packed for run in runs}) > 1:
      raise ValueError(
        f"Got {len(runs)} runs, packed: {[run.packed for run in runs]}; "
        "expected at least one, and either all or none packed."
      )
    super().__init__(list(runs))

  def __iter__(self) -> "BankIterator":
    return BankIterator([iter(run) for run in self.parents])

  def prefetch(self) -> grain.IterDataset[NumpyBatch]:
    """Make batches ahead in a thread; saved states stay exact."""
    return pipeline.prefetch(self)


class BankIterator(grain.DatasetIterator[NumpyBatch]):
  """The iterator of `BankBatches`; its state holds the state of every run."""

  def __next__(self) -> NumpyBatch:
    return stack_runs([next(run) for run in self._parents])

  def get_state(self) -> dict[str, Any]:
    """Return the position of every run."""
    return {"runs": [run.get_state() for run in self._parents]}

  def set_state(self, state: dict[str, Any]) -> None:
    """Continue every run at the position that `get_state` returned.

    Raises:
      ValueError: the state belongs to another number of runs, or to other data.
    """
    states = state.get("runs")
    if not isinstance(states, list):
      raise ValueError(f"This iterator state has no list of runs: {state!r}.")
    if len(states) != len(self._parents):
      raise ValueError(
        f"This iterator state has {len(states)} runs, this bank "
        f"{len(self._parents)}; restore it with the bank of the saved run."
      )
    for run, run_state in zip(self._parents, states, strict=True):
      run.set_state(run_state)


def stack_runs(batches: Sequence[NumpyBatch]) -> NumpyBatch:
  """Stack one batch per run, padded to the largest shape, with `run_ids`.

  Args:
    batches: arrays [B_k] or [B_k, length] under the same names.

  Returns:
    Arrays [sum of B_k, ...], and `run_ids` of that length.
  """
  stacked = {}
  for name in batches[0]:
    arrays = [batch[name] for batch in batches]
    if arrays[0].ndim == 1:
      stacked[name] = np.concatenate(arrays)
      continue
    longest = max(array.shape[1] for array in arrays)
    widths = [(0, 0), (0, 0)]
    padded = []
    for array in arrays:
      widths[1] = (0, longest - array.shape[1])
      padded.append(np.pad(array, widths))
    stacked[name] = np.concatenate(padded)
  rows = [len(batch["encoder_input_tokens"]) for batch in batches]
  stacked["run_ids"] = np.repeat(np.arange(len(rows), dtype=np.int32), rows)
  return stacked
