"""KnowPrompt on a corpus of twelve relations, 16 examples of each.

  python -m experiments.knowprompt.run

Frozen and tuned, with the structured loss and without it, three draws of the
examples each. Writes `results.json` and `table.md`. What is done already, is
not done again.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence

from experiments.knowprompt import corpus
from prompt_tuning.checkpoints import bundle
from prompt_tuning.data import custom, templated
from prompt_tuning.jobs import train
from prompt_tuning.launch import command, flags, gin_config
from prompt_tuning.train import logs

HERE = pathlib.Path(__file__).parent
TEMPLATE = (
  '{"field": "before", "shorten": "start"} {"meta": "first"} '
  '{"field": "between", "shorten": true} {"meta": "second"} '
  '{"field": "after", "shorten": true} '
  '{"soft": 1, "id": 0} {"meta": "subject"} {"soft": 1, "id": 0} {"mask"} '
  '{"soft": 1, "id": 1} {"meta": "object"} {"soft": 1, "id": 1}'
)
# It was trained to fill in what sentinels leave out.
MODEL = "embedded:ladder_1_span_corruption"
SHOTS, DRAWS = 16, (0, 1, 2)
TASKS = tuple(f"twelve_k{SHOTS}_seed{draw}" for draw in DRAWS)
FROZEN, TUNED = "methods/know_prompt", "methods/know_prompt_tuned"
NO_STRUCTURE = "KNOWPROMPT_STRUCTURE=0.0"
# Name -> the method's file, and settings.
TRAININGS: Mapping[str, tuple[str, ...]] = {
  "frozen": (FROZEN,),
  "frozen, without structure": (FROZEN, NO_STRUCTURE),
  "tuned": (TUNED, "LEARNING_RATE=0.001"),
  "tuned, without structure": (TUNED, "LEARNING_RATE=0.001", NO_STRUCTURE),
}


def main(argv: Sequence[str]) -> int:
  """Run what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  add("--work_dir", default="runs/knowprompt")
  add("--output_dir", default=str(HERE))
  add("--only", nargs="*", default=list(TRAININGS), choices=list(TRAININGS))
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  given = parser.parse_args(argv)
  work, out = pathlib.Path(given.work_dir), pathlib.Path(given.output_dir)
  declare(work / "corpus")
  results = {}
  for name in given.only:
    folder = work / name.replace(", ", "_").replace(" ", "_")
    fit(folder, TRAININGS[name], given.gin)
    results[name] = scores(folder)
  text = json.dumps(results, indent=1) + "\n"
  (out / "results.json").write_text(text, encoding="utf-8")
  (out / "table.md").write_text(table(results), encoding="utf-8")
  print(table(results))
  return 0


def declare(folder: pathlib.Path) -> None:
  """Write the corpus and declare the task `twelve`."""
  corpus.write(folder)
  relations = corpus.relations()
  custom.declare(
    "twelve_rows",
    {split: str(folder / f"{split}.jsonl") for split in corpus.SPLITS},
    template="{before} {first} {between} {second} {after}",
    target_column="relation",
    label_words=relations,
  )
  templated.declare(
    "twelve",
    "twelve_rows",
    template=TEMPLATE,
    label_words={relation: relation for relation in relations},
  )


def fit(
  folder: pathlib.Path, method: Sequence[str], overrides: Sequence[str] = ()
) -> None:
  """Train as a command does, unless that is done."""
  if bundle.steps(folder / bundle.BEST / "run_0"):
    return
  print(f"== {folder}", flush=True)
  file, *more = method
  argv = [
    "--gin_file=models/embedded.gin",
    f"--gin.INITIAL_CHECKPOINT_PATH={MODEL!r}",
    f"--gin_file={HERE / 'common.gin'}",
    f"--gin_file={file}.gin",
    f"--gin.MODEL_DIR={str(folder)!r}",
    f"--gin.MIXTURE_OR_TASK_NAME={TASKS!r}",
    *(f"--gin.{binding}" for binding in (*more, *overrides)),
  ]
  job = command.configure("train", flags.parse("train", argv, ""))
  train.train(job, None, configuration=gin_config.texts())


def scores(folder: pathlib.Path) -> dict[str, float]:
  """Read the last scores of a training's runs off its log."""
  found: dict[str, float] = {}
  for line in logs.read(folder):
    for task in TASKS:
      score = line.get(f"inference_eval/{task}/accuracy")
      if score is not None:
        found[task] = score
  return found


def table(results: Mapping[str, Mapping[str, float]]) -> str:
  """Write a line per training."""
  heads = ["", *(f"draw {draw}" for draw in DRAWS), "mean"]
  lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * len(heads[1:]) + "|"]
  for what, found in results.items():
    values = [found[task] for task in TASKS if task in found]
    cells = [f"{value:.1f}" for value in (*values, statistics.fmean(values))]
    lines.append(f"| {' | '.join([what, *cells])} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
