"""Names that a model was trained to say, against words that it was not.

  python -m experiments.kpt.kinds

The embedded model as it is, zero-shot, on its skill `category` (what kind of
things does a list name?). Ten wordings ask, five of them those of its training;
a kind is told by its name, or by knowledge: the name, six of its members and
two unrelated words, which five seeds draw. Writes `kinds.json` and `kinds.md`.
What is done already, is not done again.
"""

import argparse
import itertools
import json
import pathlib
import random
import statistics
import sys
from collections.abc import Iterator, Sequence

from experiments.kpt import documents
from experiments.kpt.run import HERE, ROWS
from prompt_tuning.data import custom, several_templates, skills
from prompt_tuning.infer import reports
from prompt_tuning.launch import main as commands

SKILL = skills.SKILLS["category"]
# Five that the model was trained with, and five that it never read.
WORDINGS = (
  *SKILL.instructions,
  "what are these things",
  "name the kind",
  "which group do they belong to",
  "say what most of them are",
  "the sort of thing",
)
SEEDS = (0, 1, 2, 3, 4)
MEMBERS, UNRELATED = 6, 2
NAMES, KNOWLEDGE = "names", "knowledge"
REFINED = "knowledge, calibrated and refined"
# The order that is asked for, and its two halves: name -> rows, worst first.
ORDERS = {
  "uncalibrated knowledge < names": (KNOWLEDGE, NAMES),
  "names < calibrated and refined": (NAMES, REFINED),
  "both": (KNOWLEDGE, NAMES, REFINED),
}
# Row -> wording -> accuracies in percent: one, or one for each seed.
Found = dict[str, dict[str, list[float]]]


def main(argv: Sequence[str]) -> int:
  """Score what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--work_dir", default="runs/kpt_kinds")
  parser.add_argument("--output_dir", default=str(HERE))
  given = parser.parse_args(argv)
  work = pathlib.Path(given.work_dir).absolute()
  lists = declare(work)
  found: Found = {}
  for row, (words, flags) in ROWS.items():
    of_row = found.setdefault(row, {wording: [] for wording in WORDINGS})
    for seed in SEEDS if words == "words" else (None,):
      out = work / f"{row.replace(', ', '_').replace(' ', '_')}_{seed}"
      values = evaluated(out, lists[seed], flags)
      for wording, value in zip(WORDINGS, values, strict=True):
        of_row[wording].append(value)
  out = pathlib.Path(given.output_dir)
  text = json.dumps(found, indent=1) + "\n"
  (out / "kinds.json").write_text(text, encoding="utf-8")
  (out / "kinds.md").write_text(table(found), encoding="utf-8")
  print(table(found))
  return 0


def knowledge(seed: int) -> dict[str, list[str]]:
  """Draw the words of every kind: name, members, words of no kind."""
  rng = random.Random(f"kpt kinds {seed}")
  unrelated = iter(
    rng.sample([*skills.OPPOSITES], UNRELATED * len(skills.CATEGORIES))
  )
  return {
    kind: [
      kind,
      *rng.sample(members, MEMBERS),
      *(next(unrelated) for _ in range(UNRELATED)),
    ]
    for kind, members in skills.CATEGORIES.items()
  }


def rows(split: str) -> Iterator[dict[str, str]]:
  """Yield the skill's lists of words, each with its kind."""
  for row in skills.examples(SKILL.name, split):
    yield {"text": row["inputs"], "kind": row["targets"]}


def declare(folder: pathlib.Path) -> dict[int | None, tuple[str, ...]]:
  """Declare the tasks of every wording: by names (None), by a seed's words."""
  custom.declare(
    "kpt_kinds",
    {
      split: documents.write(folder / f"{split}.jsonl", rows(split))
      for split in ("train", "test")
    },
    template="{text}",
    target_column="kind",
    label_words=documents.TOPICS,
  )
  names = {kind: [kind] for kind in skills.CATEGORIES}
  lists = {None: names} | {seed: knowledge(seed) for seed in SEEDS}
  return {
    seed: several_templates.declare(
      f"kpt_kinds_{'names' if seed is None else f'words{seed}'}",
      "kpt_kinds",
      [f'{wording}: {{"field": "text"}} {{"mask"}}' for wording in WORDINGS],
      label_words=words,
      target_format="plain",
    )
    for seed, words in lists.items()
  }


def evaluated(
  folder: pathlib.Path, tasks: Sequence[str], flags: Sequence[str]
) -> list[float]:
  """Score the model itself, unless that is done; in percent, by task."""
  files = [folder / reports.FOLDER / f"{t}-metrics.jsonl" for t in tasks]
  if not all(file.exists() for file in files):
    argv = [
      "--gin_file=models/embedded.gin",
      "--gin_file=runs/prompt_eval.gin",
      *flags,
      "--gin.PROMPT_FILE=None",
      "--gin.CHECKPOINT_PATH='embedded:ladder_1'",
      f"--gin.MIXTURE_OR_TASK_NAME={tuple(tasks)}",
      "--gin.EVAL_SPLIT='test'",
      f"--gin.EVAL_OUTPUT_DIR={str(folder)!r}",
    ]
    if commands.main(["eval", *argv]):
      raise RuntimeError(f"{folder} could not be scored.")
  lines = [file.read_text().splitlines()[-1] for file in files]
  return [json.loads(line)["accuracy"] for line in lines]


def holds(found: Found, order: str) -> list[str]:
  """List the wordings in which an order of `ORDERS` holds, of means of seeds.

  Args:
    found: see `Found`.
    order: a key of `ORDERS`.
  """
  return [
    wording
    for wording in WORDINGS
    if _ascends([statistics.fmean(found[r][wording]) for r in ORDERS[order]])
  ]


def pairs(found: Found, order: str) -> int:
  """Count the pairs of a wording and a seed in which an order holds."""
  count = 0
  for wording in WORDINGS:
    for k in range(len(SEEDS)):
      # Names have no seed.
      of_rows = [found[row][wording] for row in ORDERS[order]]
      count += _ascends([v[k] if len(v) > 1 else v[0] for v in of_rows])
  return count


def _ascends(values: Sequence[float]) -> bool:
  return all(a < b for a, b in itertools.pairwise(values))


def table(found: Found) -> str:
  """Write every wording's means over seeds, then where the orders hold."""
  lines = [f"| | {' | '.join(found)} |", "|---" + "|---:" * len(found) + "|"]
  for wording in WORDINGS:
    trained = "" if wording in SKILL.instructions else " (new)"
    means = [statistics.fmean(found[row][wording]) for row in found]
    cells = [f"{wording}{trained}", *(f"{mean:.1f}" for mean in means)]
    lines.append(f"| {' | '.join(cells)} |")
  means = [
    statistics.fmean(v for values in found[row].values() for v in values)
    for row in found
  ]
  lines += [f"| mean | {' | '.join(f'{mean:.1f}' for mean in means)} |", ""]
  total = len(WORDINGS)
  lines += [
    f"| order | of {total} wordings | of {total * len(SEEDS)} pairs |",
    "|---|---:|---:|",
  ]
  for order in ORDERS:
    counts = (len(holds(found, order)), pairs(found, order))
    lines.append(f"| {order} | {' | '.join(map(str, counts))} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
