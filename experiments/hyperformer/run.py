"""Four skills in one run by a hypernetwork, and a fifth added to it.

  python -m experiments.hyperformer.run

HyperFormer++ beside one adapter that all skills share, no text naming a task;
then a fifth skill, of which only the vector trains. Writes `results.json` and
`table.md`. What is done already, is not done again.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_tuning.checkpoints import bundle
from prompt_tuning.jobs import load, train
from prompt_tuning.launch import command, flags, gin_config
from prompt_tuning.train import logs

HERE = pathlib.Path(__file__).parent
SKILLS = ("skill_first", "skill_last", "skill_largest", "skill_smallest")
FIFTH = "skill_count"
HYPER = ("methods/hyperformer", "HYPER_REDUCTION=8")
# A width at which it trains as many numbers as an adapter that is generated.
SHARED = (
  "methods/adapters",
  "ADAPTER_WIDTH=12",
  "ADAPTER_NORMED=True",
  "ADAPTER_NORMS=True",
)
_SCORE = "inference_eval/{}/accuracy"


def main(argv: Sequence[str]) -> int:
  """Run what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  add("--work_dir", default="runs/hyperformer")
  add("--output_dir", default=str(HERE))
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  given = parser.parse_args(argv)
  work, out = pathlib.Path(given.work_dir), pathlib.Path(given.output_dir)
  four, five = work / "four", work / "five"
  fit(given, four, *HYPER)
  fit(given, work / "shared", *SHARED)
  fit(
    given,
    five,
    *HYPER,
    f"START_FROM={str(four)!r}",
    "data.mixture.name='five_skills'",
    f"data.mixture.tasks={(*SKILLS, FIFTH)!r}",
    "PARTITION_RULES=(('tuner/tasks/4', 'train'), ('.*', 'freeze'))",
    "TRAIN_STEPS_RELATIVE=150",
  )
  results = {
    "hyperformer": scores(four, SKILLS),
    "one shared adapter": scores(work / "shared", SKILLS),
    "with a fifth skill": scores(five, (*SKILLS, FIFTH)),
    "others_unchanged": unchanged(four, five),
  }
  text = json.dumps(results, indent=1) + "\n"
  (out / "results.json").write_text(text, encoding="utf-8")
  (out / "table.md").write_text(table(results), encoding="utf-8")
  print(table(results))
  return 0


def fit(
  given: argparse.Namespace, folder: pathlib.Path, method: str, *more: str
) -> None:
  """Train as a command does, unless that is done."""
  if bundle.steps(folder / bundle.BEST / "run_0"):
    return
  print(f"== {folder}", flush=True)
  argv = [
    f"--gin_file={HERE / 'common.gin'}",
    f"--gin_file={method}.gin",
    f"--gin.MODEL_DIR={str(folder)!r}",
    *(f"--gin.{binding}" for binding in (*more, *given.gin)),
  ]
  job = command.configure("train", flags.parse("train", argv, ""))
  train.train(job, None, configuration=gin_config.texts())


def scores(folder: pathlib.Path, tasks: Sequence[str]) -> dict[str, float]:
  """Read the last scores of a training off its log."""
  found: dict[str, float] = {}
  for line in logs.read(folder):
    found |= {
      task: line[_SCORE.format(task)]
      for task in tasks
      if _SCORE.format(task) in line
    }
  return found


def unchanged(four: pathlib.Path, five: pathlib.Path) -> bool:
  """Say whether the first tasks' deltas are the same in both, bit for bit."""
  before, after = load.load(four), load.load(five)
  return all(
    jax.tree.all(
      jax.tree.map(
        np.array_equal,
        before.runs.one(k).delta,
        after.runs.one(k).delta,
      )
    )
    for k in range(len(SKILLS))
  )


def table(results: Mapping[str, Any]) -> str:
  """Write a line per training."""
  names = [*SKILLS, FIFTH]
  heads = ["", *(name.removeprefix("skill_") for name in names)]
  heads.append("mean of the four")
  lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * len(heads[1:]) + "|"]
  for what, found in results.items():
    if isinstance(found, bool):
      continue
    cells = [f"{found[n]:.1f}" if n in found else "" for n in names]
    mean = sum(found[name] for name in SKILLS) / len(SKILLS)
    lines.append(f"| {' | '.join([what, *cells, f'{mean:.1f}'])} |")
  same = "the same bits" if results["others_unchanged"] else "NOT the same"
  lines += ["", f"The four skills' adapters beside the fifth: {same}."]
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
