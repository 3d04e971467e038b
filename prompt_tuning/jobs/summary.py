"""Tables of scores for the end of a run."""

import collections
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from prompt_tuning.data.metrics.classification import is_share

_WIDTH = 106  # columns of a table


class Row(NamedTuple):
  """One line of the score table.

  Attributes:
    what: the run, or the control.
    step: step at which it was saved, as T5X counts; None if it was not saved.
    metrics: name -> number.
    group: runs of one group differ only in their seeds.
    is_control: whether nothing was trained.
  """

  what: str
  step: int | None
  metrics: Mapping[str, float]
  group: str | None = None
  is_control: bool = False


def scores_by_task(rows: Sequence[Row]) -> str:
  """Format one table per task.

  Args:
    rows: runs, and controls; their metrics are called `<task>/<metric>`.

  Returns:
    The tables, each under its task's name.
  """
  tasks = dict.fromkeys(
    name.partition("/")[0] for row in rows for name in row.metrics
  )
  tables = []
  for task in tasks:
    of_task = [
      row._replace(metrics=_of_task(row.metrics, task))
      for row in rows
      if _of_task(row.metrics, task)
    ]
    tables.append(f"{task}\n{scores(of_task)}")
  return "\n\n".join(tables)


def _of_task(metrics: Mapping[str, float], task: str) -> dict[str, float]:
  """Take one task's metrics, without its name."""
  start = f"{task}/"
  return {
    name.removeprefix(start): value
    for name, value in metrics.items()
    if name.startswith(start)
  }


def scores(rows: Sequence[Row]) -> str:
  """Format scores as a table, with mean and deviation over seeds.

  Args:
    rows: runs, and controls, which stand last.

  Returns:
    The table; shares of predicted labels are left out.
  """
  names = dict.fromkeys(
    name for row in rows for name in row.metrics if not is_share(name)
  )
  table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
  table.add_column("run")
  has_steps = any(row.step is not None for row in rows)
  if has_steps:
    table.add_column("step", justify="right")
  for name in names:
    table.add_column(name, justify="right", overflow="fold")

  def add(what: str, step: int | None, cells: Sequence[str]) -> None:
    table.add_row(what, *([_count(step)] if has_steps else []), *cells)

  def add_row(row: Row) -> None:
    numbers = [_number(row.metrics.get(name)) for name in names]
    add(row.what, row.step, numbers)

  for row in rows:
    if not row.is_control:
      add_row(row)
  for group, members in _groups(rows).items():
    cells = [_spread([m.metrics.get(name) for m in members]) for name in names]
    add(f"{group} mean ± sd".strip(), None, cells)
  for row in rows:
    if row.is_control:
      add_row(row)
  return render(table)


def render(table: Table) -> str:
  """Write a table as text, independent of the terminal."""
  out = io.StringIO()
  Console(file=out, width=_WIDTH, color_system=None).print(table)
  lines = (line.rstrip() for line in out.getvalue().splitlines())
  return "\n".join(line for line in lines if line)


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
  """Collect the runs that differ only in their seeds."""
  groups = collections.defaultdict(list)
  for row in rows:
    if row.group is not None:
      groups[row.group].append(row)
  return {name: members for name, members in groups.items() if members[1:]}


def _spread(values: Sequence[float | None]) -> str:
  known = [value for value in values if value is not None]
  if len(known) < 2:
    return ""
  return f"{statistics.fmean(known):.2f} ± {statistics.stdev(known):.2f}"


def _number(value: float | None) -> str:
  return "" if value is None else f"{value:.2f}"


def _count(step: int | None) -> str:
  return "" if step is None else f"{step:,}"
