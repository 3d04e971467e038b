"""Does a scorer of several masks know classes that it never saw (PTR)?

  python -m experiments.ptr.run

A class of these invented sentences is the kind of one thing and the kind of
another. Some pairs of kinds never occur in training. Several ways to say a
class are trained on the others, and scored on new sentences of both. Writes
`results.json` and `table.md`. What is done already, is not done again.
"""

import argparse
import itertools
import json
import pathlib
import random
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prompt_tuning.checkpoints import bundle
from prompt_tuning.data import custom, mixtures, skills, templated
from prompt_tuning.jobs import train
from prompt_tuning.launch import command, flags, gin_config
from prompt_tuning.train import logs

HERE = pathlib.Path(__file__).parent
KINDS = ("animal", "food", "clothes", "furniture")
PAIRS = tuple(itertools.product(KINDS, KINDS))
# Every kind is the first of one of these, and the second of one.
UNSEEN = tuple(zip(KINDS, KINDS[1:] + KINDS[:1], strict=True))
SENTENCES = (
  "the {head} is by the {tail}",
  "a {head} and a {tail} were there",
  "he saw the {head} and then the {tail}",
  "she took a {head} from the {tail}",
)
ROWS = {"train": 64, "validation": 8}  # of every pair
SEEDS = (0, 1, 2)
SOFT = '{"soft": 8}'
TEXT = '{"field": "text"} .'
HEAD, TAIL = '{"mask"} : {"field": "head"}', ', {"mask"} : {"field": "tail"}'
BOTH = '{"mask"} : {"field": "head"} , {"field": "tail"}'
# One word for every class, which says nothing of its parts.
SINGLE = tuple(skills.NUMBERS[: len(PAIRS)])

MODEL = ("models/of_checkpoint.gin", "meshes/single.gin")
MASKS = ("objectives/rules.gin",)
WORDS = ("objectives/classes.gin",)
# Way -> (template, words of classes, gin files, settings).
WAYS: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
  "two masks, both losses": ("rules", MASKS, ()),
  "two masks, the class alone": ("rules", MASKS, ("MASKS_WEIGHT=0.0",)),
  "two masks, word by word": ("rules", WORDS, ()),
  "one mask, a word per class": ("word", WORDS, ()),
}
# Of these the model itself trains, too.
MODEL_WAYS = ("two masks, both losses", "one mask, a word per class")
# What trains -> gin files, settings.
TRAINED = {
  "prompt": (
    ("prompts/from_template.gin", "runs/prompt_finetune.gin"),
    (
      "PROMPT_LENGTH=8",
      "tuners.SampledVocabulary.population=3996",
      "TRAIN_STEPS_RELATIVE=600",
      "EVAL_PERIOD=600",
    ),
  ),
  "model": (("runs/model_tuning.gin",), ()),
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
  add("--way", nargs="+", default=list(WAYS), choices=WAYS)
  add("--trained", nargs="+", default=list(TRAINED), choices=TRAINED)
  add("--work_dir", default="runs/ptr")
  add("--output_dir", default=str(HERE))
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  given = parser.parse_args(argv)
  work, out = pathlib.Path(given.work_dir), pathlib.Path(given.output_dir)
  sources = declare_rows(work / "rows")
  results: dict[str, dict[str, Any]] = {}
  for trained, way in itertools.product(given.trained, given.way):
    if trained == "model" and way not in MODEL_WAYS:
      continue
    template, files, settings = WAYS[way]
    task = declare_task(template, sources, soft=trained == "prompt")
    files = (*TRAINED[trained][0], *files)
    settings = (*TRAINED[trained][1], *settings, *given.gin)
    folder = work / trained / way.replace(" ", "_").replace(",", "")
    fit(folder, task, files, settings)
    results.setdefault(trained, {})[way] = scores(folder, task)
    write(results, out)
  print((out / "table.md").read_text())
  return 0


def rows(split: str, unseen: bool) -> Iterator[dict[str, str]]:
  """Write sentences; no two things stand together in two splits.

  Args:
    split: `train` or `validation`.
    unseen: of the pairs of kinds that training lacks, or of the others.
  """
  for pair in PAIRS:
    if (pair in UNSEEN) != unseen:
      continue
    rng = random.Random(f"ptr {pair}")
    things = list(itertools.product(*(skills.CATEGORIES[k] for k in pair)))
    rng.shuffle(things)
    first = 0 if split == "train" else ROWS["train"]
    for head, tail in things[first : first + ROWS[split]]:
      text = rng.choice(SENTENCES).format(head=head, tail=tail)
      yield {"text": text, "head": head, "tail": tail, "pair": " ".join(pair)}


def declare_rows(folder: pathlib.Path) -> tuple[str, str]:
  """Write the files, and declare tasks of seen and of unseen pairs."""
  folder.mkdir(parents=True, exist_ok=True)
  names = []
  for name, splits in {
    "seen": ("train", "validation"),
    "unseen": ("validation",),
  }.items():
    paths = {}
    for split in splits:
      path = folder / f"{name}_{split}.jsonl"
      lines = [json.dumps(row) for row in rows(split, name == "unseen")]
      path.write_text("\n".join(lines) + "\n", encoding="utf-8")
      paths[split] = str(path)
    made = custom.declare(
      f"ptr_rows_{name}",
      paths,
      template="{text}",
      target_column="pair",
      label_words=[" ".join(pair) for pair in PAIRS],
    )
    names.append(made.name)
  return names[0], names[1]


def declare_task(kind: str, sources: tuple[str, str], soft: bool) -> str:
  """Declare a way to say classes, of seen and unseen pairs together.

  Args:
    kind: `rules` or `word`.
    sources: tasks of seen and unseen pairs.
    soft: whether soft tokens stand in front.

  Returns:
    The name of a mixture, which trains on the seen pairs alone.
  """
  prompts = [TEXT, HEAD, TAIL] if kind == "rules" else [TEXT, BOTH]
  names = [" ".join(pair) for pair in PAIRS]
  answered: dict[str, Any] = {
    "label_words": dict(zip(names, SINGLE, strict=True))
  }
  if kind == "rules":
    answered = {"rules": dict(zip(names, map(list, PAIRS), strict=True))}
  tasks = [
    templated.declare(
      f"{source}_{kind}_{soft}",
      source,
      sub_prompts=[SOFT, *prompts] if soft else prompts,
      **answered,
    ).name
    for source in sources
  ]
  return mixtures.declare(f"ptr_{kind}_{soft}", tasks).name


def fit(
  folder: pathlib.Path,
  task: str,
  files: Sequence[str],
  settings: Sequence[str],
) -> None:
  """Train as a command does, unless that is done."""
  if bundle.steps(folder / bundle.BUNDLES):
    return
  print(f"== {folder}", flush=True)
  bindings = (
    f"MODEL_DIR={str(folder)!r}",
    f"MIXTURE_OR_TASK_NAME={task!r}",
    f"SEEDS={SEEDS!r}",
    *settings,
  )
  argv = [
    *(f"--gin_file={file}" for file in (*MODEL, *files, HERE / "ptr.gin")),
    *(f"--gin.{binding}" for binding in bindings),
  ]
  job = command.configure("train", flags.parse("train", argv, ""))
  train.train(job, None, configuration=gin_config.texts())


def scores(folder: pathlib.Path, task: str) -> dict[str, list[float]]:
  """Read the last accuracies off a training's log: pairs -> of every seed."""
  kind = task.removeprefix("ptr_")
  found: dict[str, list[float]] = {}
  for name in ("seen", "unseen"):
    key = f"inference_eval/ptr_rows_{name}_{kind}/accuracy"
    last = {x["run"]: x[key] for x in logs.read(folder) if key in x}
    found[name] = [last[run] for run in sorted(last)]
  return found


def write(
  results: Mapping[str, Mapping[str, Any]], folder: pathlib.Path
) -> None:
  """Write the numbers and the table."""
  text = json.dumps(results, indent=1) + "\n"
  (folder / "results.json").write_text(text, encoding="utf-8")
  (folder / "table.md").write_text(table(results), encoding="utf-8")


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
  """Write mean accuracies, and the least and most of seeds, as Markdown."""
  lines = [
    "| what trains | a class is said by | pairs of training | unseen pairs |",
    "|---|---|---:|---:|",
  ]
  for trained, ways in results.items():
    for way, found in ways.items():
      cells = [
        f"{statistics.fmean(of):.1f} ({min(of):.1f} to {max(of):.1f})"
        for of in (found["seen"], found["unseen"])
      ]
      lines.append(f"| {trained} | {way} | {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
