"""Does a prompt learn faster from a related skill's prompt (SPoT)?

  python -m experiments.spot.run

Trains a prompt for every skill of the embedded model, compares them, then
trains some skills again: from the vocabulary, from the prompt of a related
skill, and from that of another, five seeds each. Writes `results.json`,
`table.md`, `curves.png`, `similarity.json` and `similarity.png`. What is done
already, is not done again; targets that are not asked for keep what those files
say of them.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.checkpoints import bundle
from prompt_tuning.data import skills
from prompt_tuning.jobs import conclusion, similarity, train
from prompt_tuning.launch import command, flags, gin_config
from prompt_tuning.train import logs

HERE = pathlib.Path(__file__).parent
# Skills that do alike things; said before any prompt was compared.
GROUPS = (
  ("first", "second", "last", "initial"),
  ("largest", "smallest"),
  ("longest", "shortest"),
  ("sort", "reverse", "repeat"),
  ("category", "odd_one_out", "membership"),
)
# Target -> a related skill, and another.
PAIRS: Mapping[str, tuple[str, str]] = {
  "second": ("first", "largest"),
  "last": ("first", "largest"),
  "first": ("last", "smallest"),
  "smallest": ("largest", "first"),
  "largest": ("smallest", "first"),
  "shortest": ("longest", "first"),
  "longest": ("shortest", "last"),
  "reverse": ("repeat", "largest"),
}
STARTS = ("vocabulary", "related", "other")
SEEDS = (0, 1, 2, 3, 4)
ENOUGH = 0.9  # of a run's last score
_SCORE = "selection/score"

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
  add("--target", nargs="+", default=list(PAIRS), choices=PAIRS)
  add("--work_dir", default="runs/spot")
  add("--output_dir", default=str(HERE))
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  given = parser.parse_args(argv)
  work, out = pathlib.Path(given.work_dir), pathlib.Path(given.output_dir)
  sources = work / "sources"
  names = tuple(f"skill_{skill}" for skill in skills.SKILLS)
  tasks = f"MIXTURE_OR_TASK_NAME={names!r}"
  fit(
    given, sources, tasks, "train.evaluation=None", "TRAIN_STEPS_RELATIVE=300"
  )
  prompts = {
    skill: path / "prompt.npy"
    for skill in skills.SKILLS
    if (path := sources / "exports" / f"skill_{skill}").is_dir()
  }
  read = {name: np.load(path) for name, path in prompts.items()}
  alike = {by: similarity.of(read, by) for by in similarity.BY}
  similarity.write(alike["mean"], out)
  for target in given.target:
    related, other = (str(prompts[name]) for name in PAIRS[target])
    folder = work / target
    fit(
      given,
      folder,
      f"MIXTURE_OR_TASK_NAME='skill_{target}'",
      "TUNER=(@tuners.Prompt, @related/tuners.Prompt, @other/tuners.Prompt)",
      f"related/tuners.FromFile.path={related!r}",
      f"other/tuners.FromFile.path={other!r}",
      f"SEEDS={SEEDS!r}",
    )
    write(alike, merged(out, {target: read_curves(folder)}), out)
  print((out / "table.md").read_text())
  return 0


def fit(given: argparse.Namespace, folder: pathlib.Path, *more: str) -> None:
  """Train as a command does, unless that is done."""
  if bundle.steps(folder / bundle.BUNDLES):
    return
  print(f"== {folder}", flush=True)
  argv = [
    f"--gin_file={HERE / 'spot.gin'}",
    f"--gin.MODEL_DIR={str(folder)!r}",
    *(f"--gin.{binding}" for binding in (*more, *given.gin)),
  ]
  job = command.configure("train", flags.parse("train", argv, ""))
  outcome = train.train(job, None, configuration=gin_config.texts())
  if job.evaluations.evaluation is None:  # the sources; the last of each counts
    conclusion.finish(outcome)


def read_curves(folder: pathlib.Path) -> dict[str, list[Curve]]:
  """Read scores off a training's log: start -> a curve for every seed."""
  lines = [line for line in logs.read(folder) if _SCORE in line]
  begin = min(line["step"] for line in lines)
  runs: list[Curve] = [[] for _ in range(len(STARTS) * len(SEEDS))]
  for line in lines:
    runs[line["run"]].append((line["step"] - begin, line[_SCORE]))
  seeds = len(SEEDS)
  return {
    start: runs[k * seeds : (k + 1) * seeds] for k, start in enumerate(STARTS)
  }


def merged(
  folder: pathlib.Path, new: Mapping[str, Mapping[str, list[Curve]]]
) -> dict[str, Mapping[str, list[Curve]]]:
  """Put curves beside those that a folder's results have.

  Args:
    folder: where `write` may have written.
    new: target -> start -> curves; these count where both have a target.

  Returns:
    The curves of both, in the order of `PAIRS`.
  """
  path, both = folder / "results.json", dict(new)
  if path.is_file():
    targets = json.loads(path.read_text(encoding="utf-8"))["targets"]
    both = {name: found["curves"] for name, found in targets.items()} | both
  return {name: both[name] for name in PAIRS if name in both}


def steps_to(curve: Curve, share: float = ENOUGH) -> int:
  """Find the first step from which a run has a share of its last score."""
  last = curve[-1][1]
  return next(step for step, score in curve if score >= share * last)


def groups(found: similarity.Similarity) -> dict[str, Any]:
  """Say whether related skills are alike.

  Args:
    found: similarities of the prompts of all skills.

  Returns:
    Mean cosine within the groups and between skills of two; how many skills
    have one of their group as the most similar, and how many that would be by
    chance.
  """
  group_of = {name: k for k, group in enumerate(GROUPS) for name in group}
  within, between, hits, chance = [], [], 0, 0.0
  for i, one in enumerate(found.names):
    if one not in group_of:
      continue
    for j, other in enumerate(found.names):
      if i < j and other in group_of:
        same = group_of[one] == group_of[other]
        (within if same else between).append(float(found.matrix[i, j]))
    own = [n for n in found.names if group_of.get(n) == group_of[one]]
    hits += found.sources(one)[0][0] in own
    chance += (len(own) - 1) / (len(found.names) - 1)
  return {
    "within": statistics.fmean(within),
    "between": statistics.fmean(between),
    "nearest_is_related": hits,
    "of": sum(name in group_of for name in found.names),
    "by_chance": chance,
  }


def write(
  alike: Mapping[str, similarity.Similarity],
  curves: Mapping[str, Mapping[str, list[Curve]]],
  folder: pathlib.Path,
) -> None:
  """Write the numbers, the table and the picture."""
  results = {
    "similarity": {by: groups(found) for by, found in alike.items()},
    "targets": {
      target: {
        "related": PAIRS[target][0],
        "other": PAIRS[target][1],
        "curves": of_target,
        "steps": {s: list(map(steps_to, c)) for s, c in of_target.items()},
      }
      for target, of_target in curves.items()
    },
  }
  text = json.dumps(results) + "\n"
  (folder / "results.json").write_text(text, encoding="utf-8")
  (folder / "table.md").write_text(table(results), encoding="utf-8")
  draw(curves, folder / "curves.png")


def table(results: Mapping[str, Any]) -> str:
  """Write steps to most of the last score, and last scores, as Markdown."""
  heads = ["target", "from related", "from other"]
  heads += [f"steps, {start}" for start in STARTS]
  heads += [f"score at the end, {start}" for start in STARTS]
  lines = [f"| {' | '.join(heads)} |", "|---" * 3 + "|---:" * 6 + "|"]
  for target, found in results["targets"].items():
    cells = [target, found["related"], found["other"]]
    for start in STARTS:
      steps = found["steps"][start]
      cells.append(
        f"{statistics.median(steps):g} ({min(steps)} to {max(steps)})"
      )
    for start in STARTS:
      ends = [curve[-1][1] for curve in found["curves"][start]]
      cells.append(f"{statistics.fmean(ends):.1f}")
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def draw(
  curves: Mapping[str, Mapping[str, list[Curve]]], path: pathlib.Path
) -> None:
  """Draw the mean score over seeds of every target, by where it started."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  styles = dict(zip(STARTS, ("-", "--", ":"), strict=True))
  rows = -(-len(curves) // 4)
  figure = Figure(figsize=(13, 3 * rows), layout="constrained")
  canvas = FigureCanvasAgg(figure)
  plots = figure.subplots(rows, 4, squeeze=False).ravel()
  for axes, (target, of_target) in zip(plots, curves.items(), strict=False):
    for start, runs in of_target.items():
      steps = [step for step, _ in runs[0]]
      means = [statistics.fmean(s) for s in zip(*_scores(runs), strict=True)]
      source = dict(zip(STARTS[1:], PAIRS[target], strict=True)).get(start)
      label = f"from {source or start}"
      axes.plot(steps, means, styles[start], color="black", label=label)
    axes.set_title(target, fontsize="medium")
    axes.set(ylim=(-3, 103), xlabel="step", ylabel="score, %")
    axes.legend(fontsize="x-small", loc="lower right")
    axes.grid(alpha=0.3)
  for axes in plots[len(curves) :]:
    axes.remove()
  canvas.print_png(str(path))


def _scores(runs: list[Curve]) -> list[list[float]]:
  return [[score for _, score in curve] for curve in runs]


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
