"""What checks of Figure 1's limits share: its points in turn, and their rows.

A check does something again for a point of Figure 1, and makes rows of it. They
stand in a JSON file and a table, beside those of other points.
"""

import argparse
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments import scoring
from experiments.figure1_scale import run as figure1
from experiments.figure1_scale.run import Point
from prompt_tuning.core.schema import TEXT

HERE = pathlib.Path(__file__).parent
_ROW = {"group": TEXT, "rung": TEXT}

Row = Mapping[str, Any]


class Check(NamedTuple):
  """A check of Figure 1's limits.

  Attributes:
    name: of its files, and of its folder below that of a point.
    about: what its command does.
    rows: (command line, point, checkpoint, folder for the trainings) -> rows
      of the point; None where it was stopped.
    table: lays rows out in Markdown.
  """

  name: str
  about: str | None
  rows: Callable[
    [argparse.Namespace, Point, str, pathlib.Path], Sequence[Row] | None
  ]
  table: Callable[[Sequence[Row]], str]

  @property
  def results(self) -> str:
    """Name of the file with its numbers."""
    return f"{self.name}.json"

  @property
  def page(self) -> str:
    """Name of the file with its table."""
    return f"{self.name}.md"

  def read(self, folder: pathlib.Path) -> list[dict[str, Any]]:
    """Read the rows of a folder; none, where it has none."""
    path = folder / self.results
    if not path.is_file():
      return []
    remedy = "Put the right file there, or give another --output_dir."
    rows: list[dict[str, Any]] = scoring.read_json(path, "rows", [_ROW], remedy)
    return rows

  def write(self, rows: Sequence[Row], folder: pathlib.Path) -> None:
    """Write numbers and table."""
    table = self.table(rows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / self.page).write_text(table, encoding="utf-8")
    text = json.dumps(rows, indent=1) + "\n"
    (folder / self.results).write_text(text, encoding="utf-8")

  def main(self, argv: Sequence[str]) -> int:
    """Do what is missing, then write.

    Args:
      argv: the command line.

    Returns:
      The process's exit status.
    """
    parser = argparse.ArgumentParser(
      description=self.about,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    figure1.options(parser)
    given = parser.parse_args(argv)
    out = pathlib.Path(given.output_dir)
    rungs = dict(text.split("=", 1) for text in given.rung)
    points = chosen(rungs, given.group)
    for point in points:
      folder = pathlib.Path(given.work_dir, point.rung, point.group, self.name)
      new = self.rows(given, point, rungs[point.rung], folder)
      if new is None:
        print("Stopped. The same command continues it.")
        return 1
      self.write(merged(self.read(out), point, new), out)
    print(self.table(self.read(out)))
    return 0


def chosen(rungs: Iterable[str], groups: Sequence[str]) -> list[Point]:
  """Find points in the results of Figure 1.

  Args:
    rungs: their names.
    groups: of tasks.

  Returns:
    A point for each pair.

  Raises:
    SystemExit: there is no such point.
  """
  points = {(p.rung, p.group): p for p in figure1.read(HERE)}
  wanted = [(rung, group) for group in groups for rung in rungs]
  for rung, group in wanted:
    if (rung, group) not in points:
      known = ", ".join(f"{r} on {g}" for r, g in points)
      raise SystemExit(
        f"Figure 1 has no point of {rung} on {group}; expected one of {known}. "
        "Give another --rung or --group."
      )
  return [points[pair] for pair in wanted]


def merged(rows: Sequence[Row], point: Point, new: Sequence[Row]) -> list[Row]:
  """Put the rows of a point in the place of its older ones.

  Args:
    rows: of any points.
    point: whose rows are new.
    new: its rows.

  Returns:
    All rows, by groups and rungs.
  """
  own = (point.rung, point.group)
  kept = [row for row in rows if (row["rung"], row["group"]) != own]
  return sorted(
    [*kept, *new],
    key=lambda row: (figure1.GROUPS.index(row["group"]), row["rung"]),
  )
