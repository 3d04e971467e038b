"""Four skills in one run by a hypernetwork, and a fifth added to it.

  python -m experiments.hyperformer.run

HyperFormer++ beside one adapter that all skills share, and prompts of several
tasks beside one prompt that all share, no text naming a task; then a fifth
skill, of which only HyperFormer++'s vector trains. Writes `results.json` and
`table.md`. What is done already, is not done again; methods that are not asked
for keep what those files say of them.
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
WORDS = "tuners.SampledVocabulary.population=3996"
# Name -> its gin file, and settings.
METHODS: Mapping[str, tuple[str, ...]] = {
  "hyperformer": ("methods/hyperformer", "HYPER_REDUCTION=8"),
  # A width at which it trains as many numbers as an adapter that is generated.
  "one shared adapter": (
    "methods/adapters",
    "ADAPTER_WIDTH=12",
    "ADAPTER_NORMED=True",
    "ADAPTER_NORMS=True",
  ),
  "mpt": ("methods/multitask_prompt", "PROMPT_LENGTH=8", WORDS),
  "multitask_sum": ("methods/multitask_sum", "PROMPT_LENGTH=8"),
  "multitask_concat": (
    "methods/multitask_concat",
    "PROMPT_LENGTH=4",
    "TASK_LENGTH=4",
    WORDS,
  ),
  "multitask_features": (
    "methods/multitask_features",
    "PROMPT_LENGTH=8",
    WORDS,
  ),
  "multitask_project": ("methods/multitask_project", "PROMPT_LENGTH=8", WORDS),
  "one shared prompt": (
    "prompts/from_sampled_vocab",
    "PROMPT_LENGTH=8",
    WORDS,
  ),
}
ADDED = "with a fifth skill"
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
  names = [*METHODS, ADDED]
  add("--method", nargs="+", default=names, choices=names, metavar="NAME")
  add("--work_dir", default="runs/hyperformer")
  add("--output_dir", default=str(HERE))
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  given = parser.parse_args(argv)
  out = pathlib.Path(given.output_dir)
  for name in given.method:
    new = added(given) if name == ADDED else {name: alone(given, name)}
    write(merged(read(out), new), out)
  print(table(read(out)))
  return 0


def alone(given: argparse.Namespace, name: str) -> dict[str, float]:
  """Train one method on the four skills.

  Args:
    given: the command line's settings.
    name: of `METHODS`.

  Returns:
    Skill -> accuracy, percent.
  """
  folder = pathlib.Path(given.work_dir, name.replace(" ", "_"))
  fit(given, folder, *METHODS[name])
  return scores(folder, SKILLS)


def added(given: argparse.Namespace) -> dict[str, Any]:
  """Train the vector of a fifth skill, and nothing else.

  Args:
    given: the command line's settings.

  Returns:
    What belongs to the results: all five scores, and whether the first four
    skills' adapters stayed.
  """
  four = pathlib.Path(given.work_dir, "hyperformer")
  five = pathlib.Path(given.work_dir, "five")
  fit(given, four, *METHODS["hyperformer"])
  fit(
    given,
    five,
    *METHODS["hyperformer"],
    f"START_FROM={str(four)!r}",
    "data.mixture.name='five_skills'",
    f"data.mixture.tasks={(*SKILLS, FIFTH)!r}",
    "PARTITION_RULES=(('tuner/tasks/4', 'train'), ('.*', 'freeze'))",
    "TRAIN_STEPS_RELATIVE=150",
  )
  return {
    ADDED: scores(five, (*SKILLS, FIFTH)),
    "others_unchanged": unchanged(four, five),
  }


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


def read(folder: pathlib.Path) -> dict[str, Any]:
  """Read what `write` wrote; nothing, where it never did."""
  path = folder / "results.json"
  if not path.is_file():
    return {}
  found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
  return found


def merged(before: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
  """Put new results beside older ones, in the order of `METHODS`."""
  both = {**before, **new}
  names = [*METHODS, ADDED, "others_unchanged"]
  return {name: both[name] for name in names if name in both}


def write(results: Mapping[str, Any], folder: pathlib.Path) -> None:
  """Write the numbers and the table."""
  text = json.dumps(results, indent=1) + "\n"
  (folder / "results.json").write_text(text, encoding="utf-8")
  (folder / "table.md").write_text(table(results), encoding="utf-8")


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
  if "others_unchanged" in results:
    same = "the same bits" if results["others_unchanged"] else "NOT the same"
    lines += ["", f"The four skills' adapters beside the fifth: {same}."]
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
