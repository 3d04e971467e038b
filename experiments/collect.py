"""Take a sweep's results into the folder of its experiment.

  python -m experiments.collect figure3a_length --over PROMPT_LENGTH

Copies MODEL_DIR/report/results.json, and makes `table.md` and `figure.png` of
it; without `--sweep` and a sweep in its usual place, of the results that are in
the folder. An axis of tasks is averaged over in the figure, and in the last
lines of the table.
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from prompt_tuning.checkpoints import json_files
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core.schema import ANY, NUMBER, TEXT, WHOLE, Each, Maybe
from prompt_tuning.jobs import sweep_job, sweep_report
from prompt_tuning.jobs.sweep_report import Point

HERE = pathlib.Path(__file__).parent
RESULTS, TABLE, FIGURE = "results.json", "table.md", "figure.png"
# How JSON has a `Point`.
POINT = {
  "cell": TEXT,
  "values": Each(TEXT),
  "run": TEXT,
  "task": TEXT,
  "seed": WHOLE,
  "parameters": WHOLE,
  "step": Maybe(WHOLE),
  "score": Maybe(NUMBER),
  "metrics": Each(ANY),
}
_REPORT = {"axes": Each([TEXT]), "mean_over": [TEXT], "points": [POINT]}


def main(
  argv: Sequence[str], named: Callable[[Point], Point] = lambda point: point
) -> int:
  """Collect, and make table and figure.

  Args:
    argv: the command line.
    named: gives a point the axes of table and figure.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("experiment", help="a folder of experiments/")
  parser.add_argument("--over", required=True, help="axis from left to right")
  parser.add_argument("--tasks", help="an axis of tasks")
  parser.add_argument("--sweep", help="MODEL_DIR; by default runs/EXPERIMENT")
  parser.add_argument("--output_dir", help="by default the experiment's folder")
  given = parser.parse_args(argv)
  folder = HERE / given.experiment
  if not folder.is_dir():
    parser.error(
      f"{given.experiment}: {folder} is no folder; expected one of "
      "experiments/, such as figure3a_length."
    )
  output = pathlib.Path(given.output_dir or folder)
  source = pathlib.Path(given.sweep or f"runs/{given.experiment}", "report")
  if not (source / RESULTS).is_file():
    if given.sweep or not (folder / RESULTS).is_file():
      parser.error(
        f"{source} has no {RESULTS}; expected the report of a sweep. Give "
        "another --sweep, or make the report: `prompt-tuning sweep --report`."
      )
    source = folder
  try:
    raw, mean_over = read(source)
    insist_on_all_cells(raw, source)
    points = list(map(named, raw))
    insist_on_axes(points, (given.over, given.tasks))
    if (output / RESULTS).is_file():
      insist_on_same_sweep(raw, output)
  except CheckpointError as error:
    parser.error(
      f"{' '.join(str(error).split())} Put the right file there, or give "
      "another --sweep or --output_dir."
    )
  except ValueError as error:
    parser.error(f"{source / RESULTS}: {error}")
  # All that can fail comes before the first file is written.
  text = table(points, mean_over, given.tasks)
  content = (source / RESULTS).read_text(encoding="utf-8")
  output.mkdir(parents=True, exist_ok=True)
  draw(points, mean_over, given.over, given.tasks, output / FIGURE)
  (output / TABLE).write_text(text, encoding="utf-8")
  (output / RESULTS).write_text(content, encoding="utf-8")
  return 0


def insist_on_axes(
  points: Sequence[Point], wanted: Sequence[str | None]
) -> None:
  """Refuse results without an axis that table or figure need.

  Args:
    points: the results.
    wanted: axes, or None.

  Raises:
    ValueError: an axis is not there.
  """
  axes = list(points[0].values)
  missing = [axis for axis in wanted if axis and axis not in axes]
  if missing:
    raise ValueError(
      f"these results are over {', '.join(axes)}; expected {missing[0]}, too. "
      "Give another --sweep, --over or --tasks."
    )


def insist_on_all_cells(points: Sequence[Point], folder: pathlib.Path) -> None:
  """Refuse the report of a sweep that is not finished.

  Args:
    points: the results.
    folder: that they are from.

  Raises:
    ValueError: a combination of the axes' values has no result.
  """
  axes = _content(folder)["axes"]
  done = {tuple(point.values.get(axis) for axis in axes) for point in points}
  cells = list(itertools.product(*axes.values()))
  missing = [labels for labels in cells if labels not in done]
  if missing:
    name = sweep_job.cell_name(dict(zip(axes, missing[0], strict=True)))
    raise ValueError(
      f"{len(missing)} of {len(cells)} cells are missing, such as {name}. "
      "Finish the sweep, then run it with --report again."
    )


def insist_on_same_sweep(points: Sequence[Point], folder: pathlib.Path) -> None:
  """Refuse to put the results of one sweep in the place of another's.

  Args:
    points: the results.
    folder: that has results already.

  Raises:
    ValueError: they are over other axes, or without some of the results there.
  """
  there = read(folder)[0]
  axes, theirs = list(points[0].values), list(there[0].values)
  if theirs != axes:
    raise ValueError(
      f"these results are over {', '.join(axes)}, and those in {folder} over "
      f"{', '.join(theirs)}. Give another --sweep or --output_dir."
    )
  new = set(map(_identity, points))
  lost = [point for point in there if _identity(point) not in new]
  if lost:
    cell, run, task, seed, parameters = _identity(lost[0])
    raise ValueError(
      f"{folder} has results that these lack, {len(lost)} in all: cell {cell}, "
      f"run {run!r} of {task} with seed {seed} and {parameters:,} parameters. "
      "Give another --sweep or --output_dir."
    )


def _identity(point: Point) -> tuple[str, str, str, int, int]:
  """Say which run a point is of, whatever it scored."""
  return point.cell, point.run, point.task, point.seed, point.parameters


def read(folder: pathlib.Path) -> tuple[list[Point], list[str]]:
  """Read the results of an experiment.

  Args:
    folder: of the experiment.

  Returns:
    Its points, and the axes of repetitions.

  Raises:
    CheckpointError: they are damaged.
    ValueError: there are none.
  """
  content = _content(folder)
  points = [
    Point(*(row[name] for name in Point._fields)) for row in content["points"]
  ]
  if not points:
    raise ValueError("no cell is done; expected at least one")
  return points, content["mean_over"]


def _content(folder: pathlib.Path) -> dict[str, Any]:
  """Read the report of a sweep, as JSON has it."""
  path = folder / RESULTS
  content: dict[str, Any] = json_files.read(path, "the report of a sweep")
  json_files.check(path, content, _REPORT)
  return content


def table(
  points: Sequence[Point], mean_over: Sequence[str], tasks: str | None
) -> str:
  """Lay results out in Markdown.

  Args:
    points: the results.
    mean_over: axes of repetitions.
    tasks: an axis of tasks; None where there is none.

  Returns:
    The table; with an axis of tasks, below it that of the means over them.
  """
  text = sweep_report.markdown(sweep_report.groups(points, mean_over))
  if tasks is None:
    return text
  averaged = sweep_report.groups(without(points, tasks), mean_over)
  return f"{text}\n{sweep_report.markdown(averaged)}"


def draw(
  points: Sequence[Point],
  mean_over: Sequence[str],
  over: str,
  tasks: str | None,
  path: pathlib.Path,
) -> None:
  """Draw results.

  Args:
    points: the results.
    mean_over: axes of repetitions.
    over: axis from left to right.
    tasks: an axis of tasks, which is averaged over; None for none.
    path: of the PNG.
  """
  shown = points if tasks is None else without(points, tasks)
  groups = sweep_report.groups(shown, mean_over)
  sweep_report.picture(groups, over, path)


def without(points: Sequence[Point], tasks: str) -> list[Point]:
  """See the cells that differ in their tasks only as one.

  Args:
    points: the results.
    tasks: the axis.

  Returns:
    The points, without that axis.
  """
  merged = []
  for point in points:
    values = {axis: v for axis, v in point.values.items() if axis != tasks}
    merged.append(point._replace(cell=",".join(values.values()), values=values))
  return merged


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
