"""The costs of a training, from its log and its files.

The clock of a training knows only one process; the log has the steps of all
processes.
"""

import itertools
import statistics
from typing import NamedTuple

import jax

from prompt_tuning.checkpoints import delta
from prompt_tuning.core import files
from prompt_tuning.core.types import Params
from prompt_tuning.jobs import model_dir
from prompt_tuning.jobs.conclusion import Outcome
from prompt_tuning.train import logs, loop

_SPEED = f"train/{loop.STEPS_PER_SECOND}"
_MEMORY = f"train/{loop.STEP_BYTES}"


class Cost(NamedTuple):
  """The costs of a training.

  Attributes:
    seconds: seconds of all steps, with compilation, without evaluations.
    step_seconds: seconds of one step: the median over the lines of the log
      without the first, which includes compilation.
    step_bytes: memory of a step, see `compiled_step.Jitted`.
  """

  seconds: float | None = None
  step_seconds: float | None = None
  step_bytes: int | None = None


def of_training(folder: str, steps: int, start_step: int) -> Cost:
  """Read the costs of a training.

  Args:
    folder: its MODEL_DIR.
    steps: number of its updates.
    start_step: the step from which its log counts.

  Returns:
    The costs, with None for values that the log lacks. If two processes did the
    steps of a line, all steps count as long as those of the second.
  """
  entries = [line for line in logs.read(folder) if line["run"] == 0]
  lines = [
    (line["step"] - start_step, line[_SPEED])
    for line in entries
    if line.get(_SPEED)
  ]
  memory = [line[_MEMORY] for line in entries if line.get(_MEMORY)]
  peak = int(max(memory)) if memory else None
  if not lines:
    return Cost(step_bytes=peak)
  ends, speeds = zip(*lines, strict=True)
  counts = [b - a for a, b in itertools.pairwise((0, *ends))]
  seconds = [c / speed for c, speed in zip(counts, speeds, strict=True)]
  # A training that stops early ends between two lines of the log.
  rest = (steps - ends[-1]) / speeds[-1]
  each = [1 / speed for speed in speeds]
  return Cost(sum(seconds) + rest, statistics.median(each[1:] or each), peak)


def disk_bytes(outcome: Outcome, trainable: Params) -> int:
  """Count the bytes on disk of the first run's export.

  Args:
    outcome: a training that has exported its runs.
    trainable: the trained parameters, with a leading run axis.

  Returns:
    Bytes of its exported deltas, or of its arrays if it has no deltas, as in
    model tuning.
  """
  root = files.path(outcome.output.model_dir) / model_dir.EXPORTS
  total, (run, *_) = 0, outcome.runs
  for slot in outcome.setup.slots:
    if slot.run == 0:
      name = slot.name(run.name) or run.task
      folder = files.below(root, name, "A run's name") / delta.FOLDER
      total += sum(files.size(path) for path in folder.glob("*"))
  leaves = jax.tree.leaves(trainable)
  return total or sum(leaf.nbytes // leaf.shape[0] for leaf in leaves)
