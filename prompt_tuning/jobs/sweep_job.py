"""The job of `sweep`, as plain values: cells and their axes."""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.core import files
from prompt_tuning.jobs.settings import listed
from prompt_tuning.jobs.train_job import TrainJob, build_tuner

CELLS, BANKS, FAILURES = "cells", "banks", "failures"  # folders of a sweep
_NOT_IN_NAMES = re.compile(r"[^\w.:+-]+")


class Cell(NamedTuple):
  """One training of a sweep, with one value of every axis.

  Attributes:
    name: of its folder.
    values: axis -> label of its value.
    job: what `train` would do; its MODEL_DIR is the cell's folder.
    configuration: see `train.train`.
  """

  name: str
  values: Mapping[str, str]
  job: TrainJob
  configuration: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Settings:
  """A user's settings of a sweep.

  Attributes:
    axes: axis -> its values: a macro or parameter in gin, or `@` and any name
      for gin files.
    mean_over: axes whose values are repetitions, such as seeds: reports give
      means and deviations over them.
    most_runs: that share a bank; None for as many as can.
  """

  axes: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
  mean_over: Sequence[str] = ("SEEDS", "RANDOM_SEED")
  most_runs: int | None = None

  def __post_init__(self) -> None:
    object.__setattr__(self, "mean_over", listed(self.mean_over))
    if self.most_runs is not None and self.most_runs < 1:
      raise ValueError(
        f"sweep.most_runs must be positive; got {self.most_runs}. With None, "
        "as many cells as possible share a bank."
      )


class SweepJob(NamedTuple):
  """A sweep over axes.

  Attributes:
    model_dir: folder of everything.
    axes: axis -> labels of its values.
    cells: one for every combination of values.
    mean_over: see `Settings`.
    most_runs: see `Settings`.
  """

  model_dir: str
  axes: Mapping[str, Sequence[str]]
  cells: Sequence[Cell]
  mean_over: Sequence[str] = Settings.mean_over
  most_runs: int | None = None


def settled(job: TrainJob) -> TrainJob:
  """Build the tuning methods of a job now.

  A class that gin configures takes its settings when it is called, and the next
  cell replaces the configuration.

  Args:
    job: the job of a cell.

  Returns:
    The same job; later configurations do not change it.
  """
  experiment = job.experiment
  if experiment.tuner is None:
    return job
  methods = tuple(
    build_tuner(factory, experiment.model, experiment.dataset.names[0])
    for factory in listed(experiment.tuner)
  )
  settled_experiment = dataclasses.replace(experiment, tuner=methods)
  return dataclasses.replace(job, experiment=settled_experiment)


def label(value: object) -> str:
  """Make the label of a value of an axis, for a folder's name.

  Args:
    value: gin's text of it, or the name of a gin file.
  """
  text = str(value).strip()
  if text.endswith(".gin"):
    text = text.removesuffix(".gin").rpartition("/")[2]
  return _NOT_IN_NAMES.sub("_", text).strip("_") or "empty"


def check_axes(axes: Mapping[str, Sequence[str]]) -> None:
  """Insist on axes that give every cell its own folder.

  Args:
    axes: axis -> labels of its values.

  Raises:
    ValueError: no axes, an axis without values, two values with one label, or a
      name that no folder can have.
  """
  if not axes:
    raise ValueError(
      "A sweep needs axes: --axis NAME=VALUES, or sweep.axes in a gin file, "
      'such as {"PROMPT_LENGTH": (1, 5, 20)}.'
    )
  for axis, labels in axes.items():
    if not labels:
      raise ValueError(
        f"The axis {axis} has no values, so there would be no cells. Give "
        "some, or remove it from sweep.axes."
      )
    twice = [name for name, n in collections.Counter(labels).items() if n > 1]
    if twice:
      raise ValueError(
        f"Several values of the axis {axis} are called {', '.join(twice)}, so "
        "their cells would share a folder. Give each value once, and give gin "
        "files different names."
      )
  name = cell_name(
    {axis: max(labels, key=len) for axis, labels in axes.items()}
  )
  files.check_name(name, "The name of a cell")


def cell_name(values: Mapping[str, str]) -> str:
  """Name a cell by its values.

  Args:
    values: axis -> label.
  """
  return ",".join(
    f"{label(axis.lstrip('@'))}={value}" for axis, value in values.items()
  )


def shard_of(text: str) -> tuple[int, int]:
  """Read `i/n`.

  Args:
    text: number of a shard, from 0, and of how many.

  Returns:
    Both.

  Raises:
    ValueError: it says something else.
  """
  match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
  numbers = (int(match[1]), int(match[2])) if match else (0, 0)
  if not numbers[0] < numbers[1]:
    raise ValueError(
      f"--shard {text!r}: expected i/n, with i from 0 to n - 1, such as 0/4."
    )
  return numbers
