"""What comes out of `compare`: scores, costs, and their table."""

import json
import os
import pathlib
import statistics
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

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
from prompt_tuning.jobs import summary

FILE = "comparison.json"
# What stands beside the methods: the model as it is, told in words what to do,
# and tuned as a whole.
PLAIN = "frozen model"
INSTRUCTION = "instruction"
MODEL = "model tuning"
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
}
_COLUMNS = 6  # methods that a table has room for


class Score(NamedTuple):
  """What one method, with one seed, scores on one task.

  Attributes:
    method: `PLAIN`, `INSTRUCTION`, `MODEL`, the title of a tuning method, or
      the name of its random control.
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
    seconds: method -> seconds of training.
    steps: method -> steps of training.
    parameters: of the model.
    trained: parameters of one run, by method.
    frozen: whether the frozen weights are what they were, bit for bit.
    made_of: what decides the scores: digests of the inputs of every task, of
      the model, of what every method learned; how answers were made.
  """

  scores: tuple[Score, ...]
  seconds: Mapping[str, float]
  steps: Mapping[str, int]
  parameters: int
  trained: Mapping[str, int]
  frozen: bool
  made_of: Mapping[str, Any] = types.MappingProxyType({})

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
  path = pathlib.Path(folder) / FILE
  content: dict[str, Any] = comparison._asdict()
  content["scores"] = [score._asdict() for score in comparison.scores]
  content["made_of"] = dict(comparison.made_of)
  files.write_text(path, json.dumps(content, indent=2) + "\n")
  return path


def read(folder: str | os.PathLike[str]) -> Comparison:
  """Read what `write` wrote.

  Raises:
    CheckpointError: it is not there, or damaged.
  """
  path = pathlib.Path(folder) / FILE
  content = json_files.read(path, "a comparison")
  json_files.check(path, content, _SCHEMA)
  content["scores"] = tuple(
    Score(*(score[field] for field in Score._fields))
    for score in content["scores"]
  )
  content.setdefault("made_of", {})  # older versions did not write it
  return Comparison(*(content[field] for field in Comparison._fields))


def table(comparison: Comparison) -> str:
  """Lay a comparison out for people: a row per task, a column per method.

  Args:
    comparison: what.

  Returns:
    The table, with the costs below it. Where it has no room for them, random
    controls stand below it too.
  """
  shown = list(comparison.methods)
  if len(shown) > _COLUMNS:
    shown = [method for method in shown if not method.startswith(RANDOM)]
  grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
  grid.add_column("task", no_wrap=True)
  for method in shown:  # names of methods wrap, numbers do not
    grid.add_column(method, justify="right", min_width=len("instruction"))
  for task in comparison.tasks:
    cells = [_cell(comparison.of(method, task)) for method in shown]
    grid.add_row(task, *cells)
  means = [f"{comparison.mean(method):.1f}" for method in shown]
  grid.add_row("mean", *means)
  lines = [summary.render(grid), ""]
  for method in comparison.methods:
    if method not in shown:
      lines.append(f"{method}: mean {comparison.mean(method):.1f}")
  for method, seconds in comparison.seconds.items():
    lines.append(
      f"{method}: {comparison.trained[method]:,} of "
      f"{comparison.parameters:,} parameters per run, "
      f"{comparison.steps[method]:,} steps, {seconds:.0f} s for all runs"
    )
  lines.append(
    "frozen weights: " + ("unchanged" if comparison.frozen else "CHANGED")
  )
  return "\n".join(lines)


def _cell(scores: Sequence[float]) -> str:
  if not scores:
    return ""
  if len(scores) == 1:
    return f"{scores[0]:.1f}"
  return f"{statistics.fmean(scores):.1f} ± {statistics.stdev(scores):.1f}"
