"""Runs of a bank that do not use all rows of their parameters.

To share a bank, a shorter run gets surplus rows that nothing refers to. Code
that needs whole parameters, such as an optimizer, works on groups of runs with
equal numbers of rows, without the surplus rows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_tuning.core import tree
from prompt_tuning.core.types import Params

# Path of a parameter -> number of its rows that belong to the run; all rows of
# other parameters do.
Rows = Mapping[str, int]


class Group(NamedTuple):
  """Runs with equal numbers of rows.

  Attributes:
    runs: numbers of the runs.
    rows: see `Rows`.
  """

  runs: tuple[int, ...]
  rows: Rows

  def take(self, bank: Params) -> Params:
    """Take the group's runs and rows out of a bank.

    Args:
      bank: leaves [K, ...], of parameters with rows [K, R, ...].

    Returns:
      The same paths, with the group's runs and rows only.
    """
    flat = tree.flatten(bank).items()
    return tree.unflatten({path: leaf[self._of(path)] for path, leaf in flat})

  def put(self, bank: Params, part: Params) -> Params:
    """Put the group's runs and rows into a bank, see `take`."""
    parts = tree.flatten(part)
    return tree.unflatten(
      {
        path: leaf.at[self._of(path)].set(parts[path])
        for path, leaf in tree.flatten(bank).items()
      }
    )

  def _of(self, path: str) -> tuple[Any, ...]:
    runs = np.asarray(self.runs)
    rows = self.rows.get(path)
    return (runs,) if rows is None else (runs, slice(rows))


def groups(rows: Sequence[Rows]) -> tuple[Group, ...]:
  """Group the runs of a bank.

  Args:
    rows: one for every run.

  Returns:
    The groups; only one if no run has surplus rows.
  """
  runs: dict[tuple[tuple[str, int], ...], list[int]] = {}
  for number, of_run in enumerate(rows):
    runs.setdefault(tuple(sorted(of_run.items())), []).append(number)
  return tuple(
    Group(tuple(numbers), dict(key)) for key, numbers in runs.items()
  )


def sizes(run: Params, rows: Sequence[Rows]) -> tuple[float, ...]:
  """Count the parameters of every run.

  Args:
    run: shapes of a run's parameters in the bank, [R, ...].
    rows: one for every run.

  Returns:
    K counts, as floats, because the count of a whole model may exceed int32.
  """
  shapes = {path: leaf.shape for path, leaf in tree.flatten(run).items()}
  return tuple(
    float(
      sum(
        math.prod((of_run.get(path, shape[0]), *shape[1:]) if shape else ())
        for path, shape in shapes.items()
      )
    )
    for of_run in rows
  )
