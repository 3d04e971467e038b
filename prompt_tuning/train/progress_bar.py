"""How far training is, and how well its runs do, in one line."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import auto as bars

from prompt_tuning.core import text

# More runs than these are shown by their mean.
_NAMED = 3
_FORMAT = (
  "{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} "
  "[{elapsed}<{remaining}, {rate_fmt}]{postfix}"
)


class ProgressBar(bars.tqdm):
  """A bar with the newest numbers of runs; what does not fit ends in "…".

  Args:
    names: of the runs; a single one needs none.
    num_steps: updates in all.
    step: those that are done.
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
      what: it is, such as `loss`.
      values: [K].
    """
    self._texts[what] = numbers(what, values)
    shown = ", ".join(self._texts.values())
    self.set_postfix_str(f"{_whose(self.names)}{shown}")

  @staticmethod
  def format_meter(
    *arguments: Any, ncols: int | None = None, **settings: Any
  ) -> str:
    """Lay a line out, see tqdm, which would cut it without a sign."""
    if ncols is None:  # a notebook, whose bar is no text
      return str(bars.tqdm.format_meter(*arguments, **settings))
    settings["bar_format"] = _FORMAT
    line = str(bars.tqdm.format_meter(*arguments, **settings))
    return text.shortened(line, ncols)


def numbers(what: str, values: Sequence[float] | np.ndarray) -> str:
  """Write a number of a few runs, or the mean of more.

  Args:
    what: it is.
    values: [K].

  Returns:
    Such as `loss 0.36 0.41`; a mean is of the runs that are not lost.
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
  """Say which runs the numbers are of."""
  if len(names) == 1:
    return ""
  if len(names) <= _NAMED:
    return f"{' '.join(names)}: "
  return f"mean of {len(names)} runs: "
