"""The progress of training, and the newest numbers of its runs, in one line.

On a terminal and in a notebook, the line is a bar that is redrawn. A file would
keep every bar, so there it is one line per minute.
"""

import re
import sys
import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from tqdm import auto as bars

from prompt_tuning.core import text

# If there are more runs than this, the bar shows their mean.
_NAMED = 3
_EVERY_S = 60  # between the lines of a file
_SLOW = re.compile(r"([\d.]+)s/ step(s?)")  # as tqdm writes "1.5 s/step"
_FORMAT = (
  "{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} "
  "[{elapsed}<{remaining}, {rate_fmt}]{postfix}"
)


class ProgressBar(bars.tqdm):
  """A bar with the newest numbers of runs; a line too long ends in "…".

  Args:
    names: names of the runs; a single run needs none.
    num_steps: number of all updates.
    step: number of updates so far.
    is_shown: whether to draw it.

  Attributes:
    names: of the runs.
  """

  names: tuple[str, ...]

  def __init__(
    self, names: Sequence[str], num_steps: int, step: int, is_shown: bool
  ):
    self.names = tuple(names)
    self._texts: dict[str, str] = {}
    super().__init__(
      total=num_steps, initial=step, unit=" steps", disable=not is_shown
    )

  def show(self, what: str, values: Sequence[float] | np.ndarray) -> None:
    """Show a number of every run beside those shown before.

    Args:
      what: name of the number, such as `loss`.
      values: [K].
    """
    self._texts[what] = numbers(what, values)
    shown = ", ".join(self._texts.values())
    self.set_postfix_str(f"{_whose(self.names)}{shown}")

  @staticmethod
  def format_meter(
    *arguments: Any, ncols: int | None = None, **settings: Any
  ) -> str:
    """Format a line, see tqdm, which would cut a long line without a sign."""
    if ncols is None:  # a notebook, whose bar is no text
      return _spelled(bars.tqdm.format_meter(*arguments, **settings))
    settings["bar_format"] = _FORMAT
    line = _spelled(bars.tqdm.format_meter(*arguments, **settings))
    return text.shortened(line, ncols)


class ProgressLines:
  """The same for a file: one line at the start, per minute, and at the end.

  Args:
    names: see `ProgressBar`.
    num_steps: see `ProgressBar`.
    step: see `ProgressBar`.

  Attributes:
    names: of the runs.
  """

  names: tuple[str, ...]

  def __init__(self, names: Sequence[str], num_steps: int, step: int):
    self.names = tuple(names)
    self._texts: dict[str, str] = {}
    self._num_steps, self._begin = num_steps, step
    self._step = self._written = step
    self._start = time.monotonic()
    self._due = self._start

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *error: object) -> None:
    if self._step > self._written:
      self._write()

  def update(self) -> None:
    """Count a step."""
    self._step += 1

  def show(self, what: str, values: Sequence[float] | np.ndarray) -> None:
    """Note a number of every run, and write a line if one is due."""
    self._texts[what] = numbers(what, values)
    if time.monotonic() >= self._due:
      self._write()

  def _write(self) -> None:
    now = time.monotonic()
    parts = [f"{self._step:,} of {self._num_steps:,} steps"]
    if self._step > self._begin:
      parts.append(_rate((self._step - self._begin) / (now - self._start)))
    shown = ", ".join(self._texts.values())
    line = ", ".join([*parts, f"{_whose(self.names)}{shown}"])
    print(line.removesuffix(", "), file=sys.stderr, flush=True)
    self._written, self._due = self._step, now + _EVERY_S


def make(
  names: Sequence[str], num_steps: int, step: int, is_shown: bool
) -> ProgressBar | ProgressLines:
  """Make the bar or lines that suit where standard error goes.

  Args:
    names: see `ProgressBar`.
    num_steps: see `ProgressBar`.
    step: see `ProgressBar`.
    is_shown: whether to show anything.
  """
  in_notebook = bars.notebook_tqdm is not bars.std_tqdm
  if not is_shown or in_notebook or sys.stderr.isatty():
    return ProgressBar(names, num_steps, step, is_shown)
  return ProgressLines(names, num_steps, step)


def _rate(per_second: float) -> str:
  if per_second >= 1:
    return f"{per_second:.2f} steps/s"
  return f"{1 / per_second:.2f} s/step"


def _spelled(line: str) -> str:
  """Write a bar's speed below one step a second in words."""
  return _SLOW.sub(r"\1 s/step", line)


def numbers(what: str, values: Sequence[float] | np.ndarray) -> str:
  """Write a number for each of a few runs, or the mean of many runs.

  Args:
    what: name of the number.
    values: [K].

  Returns:
    A text such as `loss 0.36 0.41`. A mean leaves out diverged runs.
  """
  if len(values) <= _NAMED:
    return " ".join([what, *(f"{value:.4g}" for value in values)])
  finite = np.asarray(values)[np.isfinite(values)]
  if len(finite) == len(values):
    return f"{what} {finite.mean():.4g}"
  if not len(finite):
    return f"{what} nan"
  return f"{what} {finite.mean():.4g} ({len(values) - len(finite)} lost)"


def _whose(names: Sequence[str]) -> str:
  """Say to which runs the numbers belong."""
  if len(names) == 1:
    return ""
  if len(names) <= _NAMED:
    return f"{' '.join(names)}: "
  return f"mean of {len(names)} runs: "
