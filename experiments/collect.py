"""Take a sweep's results into the folder of its experiment.

  python -m experiments.collect figure3a_length --over PROMPT_LENGTH

Copies MODEL_DIR/report/results.json, and makes `table.md` and `figure.png` of
it; without a sweep there, of the results that are in the folder. An axis of
tasks is averaged over in the figure, and in the last lines of the table.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from prompt_tuning.jobs import sweep_report
from prompt_tuning.jobs.sweep_report import Point

HERE = pathlib.Path(__file__).parent
RESULTS, TABLE, FIGURE = "results.json", "table.md", "figure.png"


def main(argv: Sequence[str]) -> int:
  """Collect, and make table and figure.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("experiment", help="a folder of experiments/")
  parser.add_argument("--over", required=True, help="axis from left to right")
  parser.add_argument("--tasks", help="an axis of tasks")
  parser.add_argument("--sweep", help="MODEL_DIR; by default runs/EXPERIMENT")
  given = parser.parse_args(argv)
  folder = HERE / given.experiment
  source = pathlib.Path(given.sweep or f"runs/{given.experiment}", "report")
  if (source / RESULTS).is_file():
    text = (source / RESULTS).read_text(encoding="utf-8")
    (folder / RESULTS).write_text(text, encoding="utf-8")
  points, mean_over = read(folder)
  text = table(points, mean_over, given.tasks)
  (folder / TABLE).write_text(text, encoding="utf-8")
  draw(points, mean_over, given.over, given.tasks, folder / FIGURE)
  return 0


def read(folder: pathlib.Path) -> tuple[list[Point], list[str]]:
  """Read the results of an experiment.

  Args:
    folder: of the experiment.

  Returns:
    Its points, and the axes of repetitions.
  """
  content = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
  return sweep_report.from_json(content)


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
