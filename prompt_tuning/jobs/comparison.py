"""The result of `compare`: scores and costs, and their file."""

import json
import os
import pathlib
import statistics
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

from prompt_tuning.checkpoints import json_files
from prompt_tuning.core import files
from prompt_tuning.core.schema import (
  ANY,
  NUMBER,
  TEXT,
  WHOLE,
  Each,
  Maybe,
  one_of,
)

FILE = "comparison.json"
# The baselines: the model as it is, with an instruction in words, and tuned as
# a whole.
PLAIN = "frozen model"
INSTRUCTION = "instruction"
MODEL = "model tuning"
MULTITASK = "multi-task model tuning"
BASELINES = (PLAIN, INSTRUCTION, MODEL, MULTITASK)
RANDOM = "random "  # how the name of a method's random control begins

_SCHEMA = {
  "scores": [
    {"method": TEXT, "task": TEXT, "seed": Maybe(WHOLE), "score": NUMBER}
  ],
  "seconds": Each(NUMBER),
  "steps": Each(WHOLE),
  "parameters": WHOLE,
  "trained": Each(WHOLE),
  "frozen": one_of(True, False),
  "made_of?": Each(ANY),
  "runs?": Each(WHOLE),
  "step_seconds?": Each(NUMBER),
  "step_bytes?": Each(WHOLE),
  "disk_bytes?": Each(WHOLE),
}
NOTHING: Mapping[str, Any] = types.MappingProxyType({})


class Score(NamedTuple):
  """The score of one method, with one seed, on one task.

  Attributes:
    method: `PLAIN`, `INSTRUCTION`, `MODEL`, `MULTITASK`, the name of a context,
      the title of a tuning method, or the name of its random control.
    task: its name.
    seed: seed of the training; None if nothing is random.
    score: the mean of the task's metrics, in percent.
  """

  method: str
  task: str
  seed: int | None
  score: float


class Comparison(NamedTuple):
  """The result of a comparison.

  Attributes:
    scores: all scores.
    seconds: method -> seconds of training all its runs, without evaluations, in
      all processes; missing if no log has them.
    steps: method -> steps of training.
    parameters: number of parameters of the model.
    trained: method -> number of trained parameters of one run.
    frozen: whether the frozen weights have not changed, bit for bit.
    made_of: everything that decides the scores: digests of the inputs of every
      task, of the model and of every method's learned parameters; how answers
      were made.
    runs: method -> number of runs that trained side by side.
    step_seconds: method -> seconds of a step of all these runs.
    step_bytes: method -> memory that such a step needs on one device.
    disk_bytes: method -> bytes of one run's export; for model tuning, which has
      none, bytes of the trained arrays.
  """

  scores: tuple[Score, ...]
  seconds: Mapping[str, float]
  steps: Mapping[str, int]
  parameters: int
  trained: Mapping[str, int]
  frozen: bool
  made_of: Mapping[str, Any] = NOTHING
  runs: Mapping[str, int] = NOTHING
  step_seconds: Mapping[str, float] = NOTHING
  step_bytes: Mapping[str, int] = NOTHING
  disk_bytes: Mapping[str, int] = NOTHING

  def of(self, method: str, task: str) -> list[float]:
    """List a method's scores on a task, one per seed."""
    return [
      s.score for s in self.scores if (s.method, s.task) == (method, task)
    ]

  @property
  def tasks(self) -> tuple[str, ...]:
    """The tasks, in order."""
    return tuple(dict.fromkeys(s.task for s in self.scores))

  @property
  def methods(self) -> tuple[str, ...]:
    """The compared methods, in the order of the scores."""
    return tuple(dict.fromkeys(s.method for s in self.scores))

  def mean(self, method: str) -> float:
    """Average a method over tasks, after the mean over seeds of each."""
    of_tasks = [self.of(method, task) for task in self.tasks]
    return statistics.fmean(
      statistics.fmean(scores) for scores in of_tasks if scores
    )

  def by_seed(self, method: str) -> list[float]:
    """Average a method over tasks, for each seed."""
    of_method = [s for s in self.scores if s.method == method]
    return [
      statistics.fmean(s.score for s in of_method if s.seed == seed)
      for seed in dict.fromkeys(s.seed for s in of_method)
    ]


def write(
  folder: str | os.PathLike[str], comparison: Comparison
) -> pathlib.Path:
  """Write a comparison as JSON.

  Args:
    folder: where to.
    comparison: what.

  Returns:
    The file.
  """
  path = files.path(folder) / FILE
  content: dict[str, Any] = comparison._asdict()
  content["scores"] = [score._asdict() for score in comparison.scores]
  for name, value in content.items():
    if isinstance(value, Mapping):
      content[name] = dict(value)
  files.write_text(path, json.dumps(content, indent=2) + "\n")
  return path


def read(folder: str | os.PathLike[str]) -> Comparison:
  """Read what `write` wrote.

  Raises:
    CheckpointError: it is not there, or damaged.
  """
  path = files.path(folder) / FILE
  content = json_files.read(path, "a comparison")
  json_files.check(path, content, _SCHEMA)
  content["scores"] = tuple(
    Score(*(score[field] for field in Score._fields))
    for score in content["scores"]
  )
  # Older versions did not write all fields.
  return Comparison(
    **{f: content[f] for f in Comparison._fields if f in content}
  )
