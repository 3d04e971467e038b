"""Five prompts of one bank vote, in one batch: table 3 of the paper.

  prompt-tuning sweep --gin_file=experiments/table3_ensembling/ladder.gin
  python -m experiments.table3_ensembling.run

Every cell of the sweep is a run folder of five seeds on one task. All five
answer a split that none of them saw; `results.json` has each one's score, their
mean, the best of them, and that of the majority's answers.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.infer import ensemble
from prompt_tuning.infer.evaluate import Evaluator, Job
from prompt_tuning.jobs import feed, inference, sweep_cell
from prompt_tuning.launch import command, flags

HERE = pathlib.Path(__file__).parent
COLUMNS = ("mean", "best", "vote")
_ACCURACY = "accuracy"


def main(argv: Sequence[str]) -> int:
  """Let the prompts of every cell vote.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--sweep", default="runs/table3_ensembling")
  parser.add_argument("--checkpoint", default="embedded:ladder_1")
  parser.add_argument("--examples", type=int, default=256)
  given = parser.parse_args(argv)
  rows = []
  for folder in sorted(pathlib.Path(given.sweep, "cells").iterdir()):
    task = sweep_cell.read(folder)["runs"][0]["task"]
    rows.append(
      {"task": task, **vote(folder, task, given.checkpoint, given.examples)}
    )
    print(rows[-1], flush=True)
  text = json.dumps(rows, indent=1) + "\n"
  (HERE / "results.json").write_text(text, encoding="utf-8")
  (HERE / "table.md").write_text(table(rows), encoding="utf-8")
  draw(rows, HERE / "figure.png")
  return 0


def vote(
  folder: pathlib.Path, task: str, checkpoint: str, examples: int
) -> dict[str, Any]:
  """Score five prompts on the test split, and their vote.

  Args:
    folder: of the run that has them.
    task: that they were trained on.
    checkpoint: of the frozen model.
    examples: to answer.

  Returns:
    The members' scores, their mean, the best, and the vote's.
  """
  argv = [
    "--gin_file=models/of_checkpoint.gin",
    "--gin_file=runs/prompt_eval.gin",
    "--gin_file=meshes/single.gin",
    "--gin.ACTIVATION_DTYPE='float32'",
    f"--gin.INITIAL_CHECKPOINT_PATH={checkpoint!r}",
    "--gin.CHECKPOINT_PATH=%INITIAL_CHECKPOINT_PATH",
    "--gin.VOCABULARY_FILE='embedded:ladder_1'",
    f"--gin.PROMPT_FILE={str(folder)!r}",
    f"--gin.MIXTURE_OR_TASK_NAME={task!r}",
    "--gin.EVAL_OUTPUT_DIR=''",
    "--gin.EVAL_SPLIT='test'",
    f"--gin.EVALUATOR_NUM_EXAMPLES={examples}",
  ]
  job = command.configure("eval", flags.parse("eval", argv, ""))
  settings = job.evaluation
  ready = inference.prepare(job, settings.dataset)
  (dataset,) = feed.eval_sets(settings.dataset, task, None, examples)
  members = range(len(ready.prompts.names))
  results = Evaluator(
    ready.predictor,
    [Job(dataset, run) for run in members],
    by=settings.ways,
    length=settings.max_decode_length,
    method=settings.decoder,
  )()
  compared = ensemble.compare(results)
  scores = [one[_ACCURACY] for one in compared.members]
  return {
    "members": scores,
    "mean": statistics.fmean(scores),
    "best": max(scores),
    "vote": compared.vote[_ACCURACY],
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
