"""SuperGLUE from prompts to the leaderboard: all eight tasks by one command.

  python -m experiments.superglue.run --tfds_data_dir tfds
  python -m experiments.superglue.run --scale paper --tfds_data_dir tfds

Trains a prompt for every task, all on one frozen model; the best seed of each
answers its test split, RTE's the two diagnostics too. Writes the aggregate of
the development sets, and the leaderboard's files to `MODEL_DIR/submission`.
What is done already, is not done again.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import scoring
from prompt_tuning.data import score, spec, submission
from prompt_tuning.jobs import best, infer, submit
from prompt_tuning.launch import command, flags
from prompt_tuning.launch import main as program

HERE = pathlib.Path(__file__).parent
# Trained -> what its prompt answers, where that is not the same.
ANSWERED = {
  "taskless_super_glue_rte_v102": (
    "taskless_super_glue_rte_v102",
    "taskless_super_glue_axb_v102",
    "taskless_super_glue_axg_v102",
  ),
  "taskless_super_glue_wsc_and_dev_v102_simple": (
    "taskless_super_glue_wsc_v102_simple_eval",
  ),
}
# XXL's development scores, means of five prompts: the paper, table 3.
PAPER = {
  "BoolQ": 91.1,
  "CB": (99.3 + 99.0) / 2,
  "COPA": 98.8,
  "MultiRC": (65.7 + 88.7) / 2,
  "ReCoRD": (92.7 + 93.4) / 2,
  "RTE": 92.6,
  "WiC": 76.2,
  "WSC": 95.8,
}
PAPER_SCORE = 90.5
_ILLEGAL = 0  # the class that is written for an answer that is none


def main(argv: Sequence[str]) -> int:
  """Train, score, answer, and write the results.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--scale", choices=("ladder", "paper"), default="ladder")
  parser.add_argument("--tfds_data_dir")
  parser.add_argument("--output_dir", help="by default here, or in the sweep")
  given = parser.parse_args(argv)
  words = [f"--gin_file=experiments/{HERE.name}/{given.scale}.gin"]
  if given.tfds_data_dir:
    words.append(f"--tfds_data_dir={given.tfds_data_dir}")
  status = program.main(["sweep", *words])
  if status:
    return status
  folder = (
    "runs/superglue" if given.scale == "ladder" else "runs/paper/superglue"
  )
  results = collect(pathlib.Path(folder), given.scale, given.tfds_data_dir)
  # Never the results of one scale over those of the other.
  beside = pathlib.Path(folder, "results")
  usual = HERE if given.scale == "ladder" else beside
  target = pathlib.Path(given.output_dir or usual)
  scoring.write(results, table, draw, target)
  print(table(results))
  return 0


def collect(
  sweep: pathlib.Path, scale: str, data_dir: str | None
) -> dict[str, Any]:
  """Take the best prompt of every task, and let it answer the test split.

  Args:
    sweep: MODEL_DIR of the sweep.
    scale: `ladder` or `paper`.
    data_dir: TFDS's data directory.

  Returns:
    Metrics of the development sets, their aggregate, and what was written.
  """
  metrics: dict[str, dict[str, float]] = {}
  files: list[dict[str, Any]] = []
  for folder in sorted((sweep / "cells").iterdir()):
    runs = scoring.read_cell(folder)["runs"]
    number = max(range(len(runs)), key=lambda k: runs[k]["score"])
    metrics |= by_task(runs[number]["metrics"])
    task = runs[number]["task"]
    prompt = best.read(folder)[number].path
    for answered in ANSWERED.get(task, (task,)):
      answers = sweep / "answers" / answered
      answer(answered, str(prompt), str(answers), scale, data_dir)
      files.append(official(answered, answers, sweep / "submission"))
  return {
    "scale": scale,
    "score": score.aggregate(metrics),
    "metrics": metrics,
    "files": sorted(files, key=lambda file: file["file"]),
  }


def by_task(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
  """Group metrics that are called `<task>/<metric>`.

  Args:
    metrics: of a run.

  Returns:
    Task -> metric -> percent.
  """
  grouped: dict[str, dict[str, float]] = {}
  for name, value in metrics.items():
    task, _, metric = name.partition("/")
    grouped.setdefault(task, {})[metric] = round(value, 4)
  return grouped


def answer(
  task: str, prompt: str, folder: str, scale: str, data_dir: str | None
) -> None:
  """Answer a task's test split as `infer` does.

  Args:
    task: its name.
    prompt: the bundle that answers.
    folder: for the answers.
    scale: `ladder` or `paper`.
    data_dir: TFDS's data directory.
  """
  argv = [
    f"--gin_file=experiments/{HERE.name}/infer_{scale}.gin",
    f"--gin.PROMPT_FILE={prompt!r}",
    f"--gin.INFER_OUTPUT_DIR={folder!r}",
    f"--gin.MIXTURE_OR_TASK_NAME={task!r}",
  ]
  job = command.configure("infer", flags.parse("infer", argv, ""))
  infer.infer(job, data_dir)


def official(
  task: str, answers: pathlib.Path, folder: pathlib.Path
) -> dict[str, Any]:
  """Write a task's file for the leaderboard.

  Args:
    task: its name.
    answers: folder of its answers.
    folder: for the file.

  Returns:
    The file's name, its answers, how many of them are legal labels, and
    whether the leaderboard would take it: not, where the test split is not all
    there. Such a file is written to `incomplete` instead.
  """
  rows = [
    json.loads(line)
    for path in sorted(answers.glob("*.jsonl-*-of-?????"))
    for line in path.read_text(encoding="utf-8").splitlines()
  ]
  texts = [row["prediction"] for row in rows]
  complete = True
  try:
    submit.submit(str(answers), str(folder), _ILLEGAL)
  except ValueError as error:
    print(error, file=sys.stderr)
    complete = False
    submission.write(
      task,
      texts,
      [row["inputs"] for row in rows],
      str(folder.parent / "incomplete"),
      _ILLEGAL,
    )
  words = spec.task(task).label_words
  legal = sum(text in words for text in texts) / len(texts) if words else None
  return {
    "file": submission.file_name(task),
    "answers": len(texts),
    "legal": None if legal is None else round(100 * legal, 1),
    "complete": complete,
  }


def groups(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
  """List the metrics that count, by SuperGLUE's groups.

  Args:
    results: see `collect`.

  Returns:
    Group -> metric -> percent.
  """
  metrics = {
    spec.task(task).dataset: values
    for task, values in results["metrics"].items()
  }
  return {
    group: {metric: metrics[dataset][metric] for dataset, metric in parts}
    for group, parts in score.GROUPS["super_glue"].items()
  }


def table(results: Mapping[str, Any]) -> str:
  """Lay the results out in Markdown.

  Args:
    results: see `collect`.

  Returns:
    The development scores and their aggregate; then the files.
  """
  lines = [
    "| | development set | mean | the paper, XXL |",
    "|---|---|---:|---:|",
  ]
  for group, metrics in groups(results).items():
    spelled = ", ".join(
      f"{name} {value:.1f}" for name, value in metrics.items()
    )
    mean = sum(metrics.values()) / len(metrics)
    lines.append(f"| {group} | {spelled} | {mean:.1f} | {PAPER[group]:.1f} |")
  lines.append(
    f"| **SuperGLUE** | | **{results['score']:.1f}** | {PAPER_SCORE:.1f} |"
  )
  lines += ["", "| file | answers | legal labels | whole test split |"]
  lines.append("|---|---:|---:|---|")
  for file in results["files"]:
    legal = "free text" if file["legal"] is None else f"{file['legal']:.1f} %"
    whole = "yes" if file["complete"] else "no"
    lines.append(
      f"| {file['file']} | {file['answers']:,} | {legal} | {whole} |"
    )
  return "\n".join(lines) + "\n"


def draw(results: Mapping[str, Any], path: pathlib.Path) -> None:
  """Draw the development scores beside the paper's.

  Args:
    results: see `collect`.
    path: of the PNG.
  """
  # Not at the top: slow to import.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  bars = {
    group: sum(metrics.values()) / len(metrics)
    for group, metrics in groups(results).items()
  }
  bars["all"] = results["score"]
  figure = Figure(figsize=(7.2, 3.4), layout="constrained")
  canvas, plot = FigureCanvasAgg(figure), figure.subplots()
  drawn = plot.bar(
    range(len(bars)),
    list(bars.values()),
    color="0.85",
    edgecolor="k",
    label=f"here, {results['scale']}",
  )
  plot.bar_label(drawn, fmt="%.0f", fontsize="small")
  plot.plot(
    range(len(bars)),
    [*PAPER.values(), PAPER_SCORE],
    "kD",
    markerfacecolor="none",
    label="the paper, T5 XXL",
  )
  plot.set_xticks(range(len(bars)), bars)
  plot.set(ylabel="development set, %", ylim=(0, 105))
  plot.grid(alpha=0.3, axis="y")
  # Above: in the plot it covers bars, or the paper's scores.
  figure.legend(fontsize="small", loc="outside upper center", ncols=2)
  canvas.print_png(str(path))


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
