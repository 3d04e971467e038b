"""Five prompts of one bank vote, in one batch: table 3 of the paper.

  prompt-tuning sweep --gin_file=experiments/table3_ensembling/ladder.gin
  python -m experiments.table3_ensembling.run

Every cell of the sweep is a run folder of five seeds on one task. All five
answer a split that none of them saw; `results.json` has each one's score, their
mean, the best of them, and that of the majority's answers. The score of a task
is the mean of its metrics.
"""

import dataclasses
import pathlib
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from experiments import scoring
from experiments.scoring import Scoring
from prompt_tuning.core.schema import TEXT
from prompt_tuning.infer import ensemble

HERE = pathlib.Path(__file__).parent
COLUMNS = ("mean", "best", "vote")
SEEDS = 5  # of every task


def main(argv: Sequence[str]) -> int:
  """Let the prompts of every cell vote.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = scoring.parser(__doc__, HERE)
  parser.add_argument("--split", default="test", help="that no training saw")
  given = parser.parse_args(argv)
  scored = scoring.scoring(given)
  voting = voters(scored.sweep)
  insist_on_tasks(voting, scored.output_dir)
  rows = []
  for task, folder in voting.items():
    rows.append({"task": task, **vote(folder, task, scored, given.split)})
    print(rows[-1], flush=True)
  scoring.write(rows, table, draw, scored.output_dir)
  return 0


def voters(sweep: str) -> dict[str, pathlib.Path]:
  """Find the prompts that vote on every task.

  Args:
    sweep: its MODEL_DIR.

  Returns:
    Task -> the folder of the cell that has its five prompts.

  Raises:
    SystemExit: the sweep is not done, or is another: a cell has not five seeds
      of one task, or two cells have the same task.
  """
  found: dict[str, pathlib.Path] = {}
  for folder in scoring.cells(sweep):
    runs = scoring.read_cell(folder)["runs"]
    seeds = {run["seed"] for run in runs}
    tasks = list(dict.fromkeys(run["task"] for run in runs))
    if len(tasks) != 1 or not len(runs) == len(seeds) == SEEDS:
      raise SystemExit(
        f"{folder} has {len(runs)} runs of {len(seeds)} seeds on "
        f"{', '.join(tasks)}; expected {SEEDS} runs of {SEEDS} seeds on one "
        "task. Give another --sweep."
      )
    (task,) = tasks
    if task in found:
      raise SystemExit(
        f"{folder} and {found[task]} are both of {task}; expected one cell of "
        "each task. Give another --sweep."
      )
    found[task] = folder
  return found


def insist_on_tasks(tasks: Collection[str], folder: pathlib.Path) -> None:
  """Refuse to put results in the place of those of other tasks.

  Args:
    tasks: that will have results.
    folder: that may have results already.

  Raises:
    SystemExit: it has results of a task that would be lost, or others than
      those of this table.
  """
  path = folder / scoring.RESULTS
  if not path.is_file():
    return
  remedy = "Give another --sweep or --output_dir."
  what = "the results of such votes"
  there = scoring.read_json(path, what, [{"task": TEXT}], remedy)
  lost = [row["task"] for row in there if row["task"] not in tasks]
  if lost:
    raise SystemExit(
      f"{path} has {', '.join(lost)}, and the sweep {', '.join(tasks)}; "
      f"expected all tasks that are there. {remedy}"
    )


def vote(
  folder: pathlib.Path, task: str, scored: Scoring, split: str
) -> dict[str, Any]:
  """Score five prompts on a split, and their vote.

  Args:
    folder: of the run that has them.
    task: that they were trained on.
    scored: with what.
    split: to answer.

  Returns:
    The members' scores, their mean, the best, and the vote's.
  """
  answered = f"--gin.EVAL_SPLIT={split!r}"
  results = scoring.results([folder], [task], scored, answered)
  together = dataclasses.replace(
    results[0], metrics=ensemble.compare(results).vote
  )
  scores = [result.score for result in results]
  return {
    "members": scores,
    "mean": statistics.fmean(scores),
    "best": max(scores),
    "vote": together.score,
  }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Lay the results out in Markdown.

  Args:
    rows: one per task.

  Returns:
    The table, with the mean over tasks last.
  """
  lines = ["| task | mean of five | best of five | vote |", "|---|---|---|---|"]
  mean = {c: statistics.fmean(row[c] for row in rows) for c in COLUMNS}
  for row in [*rows, {"task": "**mean**", **mean}]:
    cells = [f"{row[column]:.1f}" for column in COLUMNS]
    lines.append("| " + " | ".join([row["task"], *cells]) + " |")
  return "\n".join(lines) + "\n"


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Draw the members of every task, their mean and their vote.

  Args:
    rows: one per task.
    path: of the PNG.
  """
  # Not at the top: slow to import.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4, 3.6), layout="constrained")
  canvas, plot = FigureCanvasAgg(figure), figure.subplots()
  places = range(len(rows))
  for place, row in zip(places, rows, strict=True):
    members = row["members"]
    plot.plot([place] * len(members), members, "k.", alpha=0.5)
  for column, marker in (("mean", "_"), ("vote", "D")):
    values = [row[column] for row in rows]
    plot.plot(
      places,
      values,
      marker=marker,
      linestyle="",
      markersize=9,
      markerfacecolor="none",
      markeredgewidth=1.5,
      label=column,
    )
  plot.plot([], [], "k.", alpha=0.5, label="one prompt")
  names = [row["task"].removeprefix("skill_") for row in rows]
  plot.set_xticks(places, names)
  plot.set(ylabel="answers that are right, %", ylim=(-2, 103))
  plot.grid(alpha=0.3)
  plot.legend(fontsize="small", loc="lower right")
  canvas.print_png(str(path))


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
