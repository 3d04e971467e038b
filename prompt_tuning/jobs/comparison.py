"""What comes out of `compare`: scores and costs, and the file of both."""

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
# What stands beside the methods: the model as it is, told in words what to do,
# and tuned as a whole.
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
  """What one method, with one seed, scores on one task.

  Attributes:
    method: `PLAIN`, `INSTRUCTION`, `MODEL`, `MULTITASK`, what a context is
      called, the title of a tuning method, or the name of its random control.
    task: its name.
    seed: of the training; None where nothing is drawn.
    score: the mean of the task's metrics, in percent.
  """

  method: str
  task: str
  seed: int | None
  score: float


class Comparison(NamedTuple):
  """What came out.

  Attributes:
    scores: all of them.
    seconds: method -> seconds of training all its runs, evaluations left out,
      in however many processes; missing where no log says so.
    steps: method -> steps of training.
    parameters: of the model.
    trained: parameters of one run, by method.
    frozen: whether the frozen weights are what they were, bit for bit.
    made_of: what decides the scores: digests of the inputs of every task, of
      the model, of what every method learned; how answers were made.
    runs: method -> how many trained side by side.
    step_seconds: method -> seconds of a step of all these runs.
    step_bytes: method -> memory that such a step needs on one device.
    disk_bytes: method -> what one trained run takes to be used elsewhere.
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
    """What was compared, in the order of the scores."""
    return tuple(dict.fromkeys(s.method for s in self.scores))

  def mean(self, method: str) -> float:
    """Average a method over tasks, of each the mean over seeds."""
    of_tasks = [self.of(method, task) for task in self.tasks]
    return statistics.fmean(
      statistics.fmean(scores) for scores in of_tasks if scores
    )

  def by_seed(self, method: str) -> list[float]:
    """Average a method over tasks, of each seed by itself."""
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
  # Older versions did not write all.
  return Comparison(
    **{f: content[f] for f in Comparison._fields if f in content}
  )
