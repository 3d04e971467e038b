"""Does a prompt of plain text help a few examples of another relation (PPT)?

  python -m experiments.ppt.run

Pre-trains five prompts on plain text, and five on the same text with shuffled
labels; then trains on 16 examples of each class of other relations, from random
vectors and from both, five seeds each. Writes `results.json`, `table.md` and
`curves.png`. What is done already, is not done again.
"""

import argparse
import json
import math
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.ppt import text
from prompt_tuning.checkpoints import bundle
from prompt_tuning.launch import main as commands
from prompt_tuning.train import logs

HERE = pathlib.Path(__file__).parent
STARTS = ("random", "pretrained", "shuffled")
SEEDS = (0, 1, 2, 3, 4)
# Texts to pre-train on; tasks that are not relations of lists.
LISTS, NOVELS = "lists", "novels"
REAL = ("rte", "cb")
MEAN = "mean of lists"
ROWS = 32  # 16 of each class
TEST_ROWS = 256
DOCUMENTS = 3_000
_SCORE = "selection/score"
_TEST_SEED = 1_000  # beyond those of the examples to train on

# Steps and scores of one run.
Curve = list[tuple[int, float]]


def main(argv: Sequence[str]) -> int:
  """Run what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  tasks = [*text.RELATIONS, *REAL]
  add("--task", nargs="+", default=tasks, choices=tasks)
  add("--seed", nargs="+", type=int, default=list(SEEDS), help="two or more")
  add("--work_dir", default="runs/ppt")
  add("--output_dir", default=str(HERE))
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  given = parser.parse_args(argv)
  work, out = pathlib.Path(given.work_dir), pathlib.Path(given.output_dir)
  work.mkdir(parents=True, exist_ok=True)
  curves: dict[str, dict[str, list[Curve]]] = {}
  for task in given.task:
    pretrain(given, work, text_of(task))
    curves[task] = {start: [] for start in STARTS}
    for seed in given.seed:
      folder = few_shot(given, work, task, seed)
      for start, curve in zip(STARTS, read_curves(folder), strict=True):
        curves[task][start].append(curve)
    write(curves, out)
  print((out / "table.md").read_text())
  return 0


def pretrain(given: argparse.Namespace, work: pathlib.Path, kind: str) -> None:
  """Train prompts on plain text, with right and with shuffled labels."""
  more = [f"SEEDS={tuple(given.seed)!r}"]
  if kind == LISTS:
    path = work / "text.txt"
    text.write_text(path, DOCUMENTS, seed=0)
    more.append(f"TEXT={{'train': {str(path)!r}}}")
  fit(given, [f"{kind}_text.gin"], work / kind, *more)


def few_shot(
  given: argparse.Namespace, work: pathlib.Path, task: str, seed: int
) -> pathlib.Path:
  """Train on a few examples of a task, from all starts.

  Returns:
    The training's folder.
  """
  folder = work / f"{task}_{seed}"
  more = [
    f"TASK={folder.name!r}",
    f"PRETRAINED={exported(work, task, 'right', seed)!r}",
    f"SHUFFLED={exported(work, task, 'shuffled', seed)!r}",
    f"SEEDS=({seed},)",
  ]
  if text_of(task) == LISTS:
    files = {
      "train": work / f"{task}_{seed}.jsonl",
      "validation": work / f"{task}_test.jsonl",
    }
    text.write_rows(files["train"], task, ROWS, seed)
    text.write_rows(files["validation"], task, TEST_ROWS, _TEST_SEED)
    paths = {split: str(path) for split, path in files.items()}
    more += [f"TASK_FILES={paths!r}", f"ROWS='{folder.name}_rows'"]
  kind = LISTS if text_of(task) == LISTS else task
  fit(given, ["few_shot.gin", f"{kind}_task.gin"], folder, *more)
  return folder


def text_of(task: str) -> str:
  """Return the text whose prompts a task starts from."""
  return LISTS if task in text.RELATIONS else NOVELS


def exported(work: pathlib.Path, task: str, labels: str, seed: int) -> str:
  """Return the file of a prompt of plain text."""
  kind = text_of(task)
  name = f"{kind}_{labels}_seed{seed}"
  return str(work / kind / "exports" / name / "prompt.npy")


def fit(
  given: argparse.Namespace,
  gin_files: Sequence[str],
  folder: pathlib.Path,
  *more: str,
) -> None:
  """Train as a command does, unless that is done."""
  if bundle.steps(folder / bundle.BUNDLES):
    return
  print(f"== {folder}", flush=True)
  argv = [
    *(f"--gin_file={HERE / file}" for file in gin_files),
    f"--gin.MODEL_DIR={str(folder)!r}",
    *(f"--gin.{binding}" for binding in (*more, *given.gin)),
  ]
  if commands.main(["train", *argv]):
    raise RuntimeError(f"The training in {folder} failed.")


def read_curves(folder: pathlib.Path) -> list[Curve]:
  """Read scores off a training's log, a curve for every start."""
  lines = [line for line in logs.read(folder) if _SCORE in line]
  begin = min(line["step"] for line in lines)
  runs: list[Curve] = [[] for _ in STARTS]
  for line in lines:
    runs[line["run"]].append((line["step"] - begin, line[_SCORE]))
  return runs


def paired(curves: Mapping[str, Sequence[Curve]], start: str) -> dict[str, Any]:
  """Compare a start with the random one, seed by seed, by last scores.

  Args:
    curves: of one task.
    start: another than the random one.

  Returns:
    Mean and standard deviation of the differences, on how many seeds it is
    ahead, and the probability of as many or more were both the same (a sign
    test of one side, without ties).
  """
  ends = [
    (ours[-1][1], random[-1][1])
    for ours, random in zip(curves[start], curves["random"], strict=True)
  ]
  gains = [a - b for a, b in ends]
  wins, losses = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
  total = wins + losses
  chance = sum(math.comb(total, k) for k in range(wins, total + 1)) / 2**total
  return {
    "gain": statistics.fmean(gains),
    "sd": statistics.stdev(gains) if len(gains) > 1 else 0.0,
    "ahead": wins,
    "of": len(gains),
    "p": chance,
  }


def mean_of_lists(
  curves: Mapping[str, Mapping[str, list[Curve]]],
) -> dict[str, list[Curve]]:
  """Average the relations of lists, seed by seed."""
  relations = [of for task, of in curves.items() if task in text.RELATIONS]
  result: dict[str, list[Curve]] = {}
  for start in STARTS:
    runs = zip(*(of_task[start] for of_task in relations), strict=True)
    result[start] = [
      [
        (points[0][0], statistics.fmean(score for _, score in points))
        for points in zip(*same_seed, strict=True)
      ]
      for same_seed in runs
    ]
  return result


def write(
  curves: Mapping[str, Mapping[str, list[Curve]]], folder: pathlib.Path
) -> None:
  """Write the numbers, the table and the picture."""
  curves = dict(curves)
  if set(text.RELATIONS) <= set(curves):
    curves[MEAN] = mean_of_lists(curves)
  results = {
    task: {
      "curves": of_task,
      "against_random": {s: paired(of_task, s) for s in STARTS[1:]},
    }
    for task, of_task in curves.items()
  }
  content = json.dumps(results) + "\n"
  (folder / "results.json").write_text(content, encoding="utf-8")
  (folder / "table.md").write_text(table(results), encoding="utf-8")
  draw(curves, folder / "curves.png")


def table(results: Mapping[str, Any]) -> str:
  """Write scores at the start and the end, and what was gained."""
  heads = ["task", "start", "before", "after", "sd over seeds"]
  heads += ["gain over random", "sd of the gain", "ahead on seeds", "sign test"]
  lines = [f"| {' | '.join(heads)} |", "|---" * 2 + "|---:" * 7 + "|"]
  for task, found in results.items():
    for start in STARTS:
      runs = found["curves"][start]
      first, last = ([curve[k][1] for curve in runs] for k in (0, -1))
      sd = statistics.stdev(last) if len(last) > 1 else 0.0
      cells = [task, start]
      cells += [f"{statistics.fmean(values):.1f}" for values in (first, last)]
      cells.append(f"{sd:.1f}")
      against = found["against_random"].get(start)
      cells += (
        [
          f"{against['gain']:+.1f}",
          f"{against['sd']:.1f}",
          f"{against['ahead']} of {against['of']}",
          f"{against['p']:.3f}",
        ]
        if against
        else [""] * 4
      )
      lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def draw(
  curves: Mapping[str, Mapping[str, list[Curve]]], path: pathlib.Path
) -> None:
  """Draw the mean score over seeds of every task, by where it started."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  styles = dict(zip(STARTS, (":", "-", "--"), strict=True))
  rows = -(-len(curves) // 3)
  figure = Figure(figsize=(10, 3 * rows), layout="constrained")
  canvas = FigureCanvasAgg(figure)
  plots = figure.subplots(rows, 3, squeeze=False).ravel()
  for axes, (task, of_task) in zip(plots, curves.items(), strict=False):
    for start, runs in of_task.items():
      steps = [step for step, _ in runs[0]]
      scores = [[score for _, score in curve] for curve in runs]
      means = [statistics.fmean(s) for s in zip(*scores, strict=True)]
      axes.plot(steps, means, styles[start], color="black", label=start)
    axes.set_title(task, fontsize="medium")
    axes.set(ylim=(27, 103), xlabel="step", ylabel="accuracy, %")
    axes.legend(fontsize="x-small", loc="lower right")
    axes.grid(alpha=0.3)
  for axes in plots[len(curves) :]:
    axes.remove()
  canvas.print_png(str(path))


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
