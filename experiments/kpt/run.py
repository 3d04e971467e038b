"""Label words with planted noise: names alone, knowledge, calibration, weights.

  python -m experiments.kpt.run

The embedded model learns to go on with documents (`documents`), in three worlds
with other frequencies. Then topics are told by label words: a name, or a list
of words with planted ones, scored as KPT scores them. Writes `results.json` and
`table.md`. What is done already, is not done again.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.kpt import documents
from prompt_tuning.checkpoints import bundle
from prompt_tuning.data import custom, templated
from prompt_tuning.infer import reports
from prompt_tuning.jobs import load
from prompt_tuning.launch import main as commands

HERE = pathlib.Path(__file__).parent
WORLDS = (0, 1, 2)
SHARES = (0.0, 0.5)
SHOTS = (5, 20)
SHOT_SEEDS = (144, 145, 146, 147, 148)  # KPT's
# How zero-shot classes are scored -> flags of `eval`. All words are single
# pieces of the embedded vocabulary, which one decoder position scores.
FIRST = "--gin.SCORER=@scorers.FirstPiece()"
HOW = "--gin.scorers.FirstPiece.aggregate="
PLAIN = ("--gin_file=objectives/classes.gin", FIRST, f"{HOW}'log_mean'")
CALIBRATED = (
  "--gin_file=objectives/calibrated.gin",
  "--gin.evaluation.Calibration.drop_rare=0.0",
  *PLAIN[1:],
)
ALL = (*CALIBRATED, "--gin.evaluation.Calibration.least_relevance=None")
LEARNED = f"{HOW}'learned'"
ROWS = {
  "names": ("names", PLAIN),
  "names, calibrated": ("names", ALL),
  "knowledge": ("words", PLAIN),
  "knowledge, calibrated": ("words", ALL),
  "knowledge, calibrated and refined": ("words", CALIBRATED),
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
  add("--worlds", nargs="+", type=int, default=list(WORLDS))
  add("--work_dir", default="runs/kpt")
  add("--output_dir", default=str(HERE))
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="of training")
  given = parser.parse_args(argv)
  results = {}
  for seed in given.worlds:
    folder = pathlib.Path(given.work_dir, f"world{seed}").absolute()
    results[str(seed)] = of_world(seed, folder, given.gin)
    out = pathlib.Path(given.output_dir)
    text = json.dumps(results, indent=1) + "\n"
    (out / "results.json").write_text(text, encoding="utf-8")
    (out / "table.md").write_text(table(results), encoding="utf-8")
  print(table(results))
  return 0


def of_world(
  seed: int, folder: pathlib.Path, gin: Sequence[str]
) -> dict[str, Any]:
  """Train the model of a world, and score everything with it."""
  declare(seed, folder)
  checkpoint = model(seed, folder, gin)
  found: dict[str, Any] = {}
  for share in SHARES:
    of_share = found.setdefault(str(share), {})
    for row, (words, flags) in ROWS.items():
      task = task_name(seed, words, share)
      name = row if words == "names" else f"{row} {share}"
      of_share[row] = [score(folder, name, checkpoint, task, flags)]
    for shots in SHOTS if share else ():
      of_share |= few_shot(seed, folder, checkpoint, share, shots)
  return found


def task_name(seed: int, words: str, share: float = 0.0) -> str:
  """Name a world's task; its tasks are no other world's."""
  planted = f"_{round(100 * share)}" if words == "words" else ""
  return f"kpt_world{seed}_{words}{planted}"


def declare(seed: int, folder: pathlib.Path) -> None:
  """Declare a world's tasks: the next word, and topics by words."""
  world, topics = documents.world(seed), task_name(seed, "topics")
  data, sizes = folder / "data", {"train": 16_000, "validation": 200}
  custom.declare(
    task_name(seed, "next"),
    {
      split: documents.write(
        data / f"next_{split}.jsonl",
        documents.examples(world, f"next {split}", count, balanced=False),
      )
      for split, count in sizes.items()
    },
    template="{text}",
    target_column="next",
  )
  custom.declare(
    topics,
    {
      split: documents.write(
        data / f"topics_{split}.jsonl",
        documents.examples(world, split, count, balanced=True),
      )
      for split, count in {"train": 400, "test": 300}.items()
    },
    template="{text}",
    target_column="topic",
    label_words=documents.TOPICS,
  )
  lists = {task_name(seed, "names"): documents.names(world)}
  for share in SHARES:
    name = task_name(seed, "words", share)
    lists[name] = documents.knowledge(world, share)
  for name, words in lists.items():
    templated.declare(
      name,
      topics,
      template='{"field": "text"} {"mask"}',
      label_words=words,
      target_format="plain",
    )


def model(seed: int, folder: pathlib.Path, gin: Sequence[str]) -> str:
  """Train the model to go on with documents; returns its checkpoint."""
  run, out = folder / "next_word", folder / "model"
  if not out.exists():
    if not bundle.steps(run / bundle.BEST / "run_0"):
      _command(
        "train",
        f"--gin_file={HERE / 'common.gin'}",
        f"--gin.MODEL_DIR={str(run)!r}",
        f"--gin.MIXTURE_OR_TASK_NAME={task_name(seed, 'next')!r}",
        *(f"--gin.{binding}" for binding in gin),
      )
    _command("convert", str(run), str(out), "--to", "hf")
  return str(out)


def score(
  folder: pathlib.Path,
  row: str,
  checkpoint: str,
  task: str,
  flags: Sequence[str],
  prompt: str | None = None,
) -> float:
  """Evaluate on the test split, unless that is done; in percent."""
  out = folder / "evaluations" / row.replace(" ", "_").replace(",", "")
  path = out / reports.FOLDER
  if not list(path.glob("**/*-metrics.jsonl")):
    _command(
      "eval",
      "--gin_file=models/embedded.gin",
      "--gin_file=runs/prompt_eval.gin",
      *flags,
      f"--gin.PROMPT_FILE={prompt!r}",
      f"--gin.CHECKPOINT_PATH={checkpoint!r}",
      f"--gin.INITIAL_CHECKPOINT_PATH={checkpoint!r}",
      f"--gin.MIXTURE_OR_TASK_NAME={task!r}",
      "--gin.EVAL_SPLIT='test'",
      f"--gin.EVAL_OUTPUT_DIR={str(out)!r}",
    )
  values = []
  for file in sorted(path.glob("**/*-metrics.jsonl")):
    values.append(json.loads(file.read_text().splitlines()[-1])["accuracy"])
  return statistics.fmean(values)


def few_shot(
  seed: int,
  folder: pathlib.Path,
  checkpoint: str,
  share: float,
  shots: int,
) -> dict[str, Any]:
  """Train weights of words on a few examples of a topic, five times."""
  task = task_name(seed, "words", share)
  run = folder / "weights" / f"{share}_{shots}"
  tasks = tuple(f"{task}_k{shots}_seed{k}" for k in SHOT_SEEDS)
  if not bundle.steps(run / bundle.BEST / "run_0"):
    _command(
      "train",
      f"--gin_file={HERE / 'weights.gin'}",
      f"--gin.MODEL_DIR={str(run)!r}",
      f"--gin.INITIAL_CHECKPOINT_PATH={checkpoint!r}",
      f"--gin.MIXTURE_OR_TASK_NAME={tasks!r}",
    )
  row = f"{shots}-shot weights"
  found: dict[str, Any] = {
    row: [
      json.loads(file.read_text().splitlines()[-1])["accuracy"]
      for file in sorted((run / reports.FOLDER).glob("**/*-metrics.jsonl"))
    ]
  }
  flags = (*ALL, LEARNED)
  name = f"{row}, calibrated"
  found[name] = [
    score(folder, f"{name} {share}", checkpoint, task, flags, str(run))
  ]
  weights = np.asarray(load.load(str(run)).runs.delta.word_weights)
  found[f"{shots}-shot, planted"] = planted(
    documents.world(seed), share, weights
  )
  return found


def planted(
  world: documents.World, share: float, weights: np.ndarray
) -> dict[str, float]:
  """Say where planted words ended.

  Args:
    world: says which are a topic's own.
    share: of planted words.
    weights: [K, C, W] of the runs.

  Returns:
    `smallest`: the share of topics whose smallest weight is a planted word's;
    `below`: how often a planted word is below one of the topic's own, of all
    such pairs (0.5 for weights by chance).
  """
  smallest, below = [], []
  for run in weights:
    for row, (topic, words) in zip(
      run, documents.knowledge(world, share).items(), strict=True
    ):
      values = row[: len(words)]
      own = np.array([word in world.words[topic] for word in words])
      smallest.append(not own[values.argmin()])
      below.append((values[~own][:, None] < values[own][None]).mean())
  return {
    "smallest": round(float(np.mean(smallest)), 3),
    "below": round(float(np.mean(below)), 3),
  }


def table(results: Mapping[str, Any]) -> str:
  """Write the mean over worlds, and every world's, of each row."""
  lines = []
  worlds = list(results)
  for share in map(str, SHARES):
    lines += [
      f"{share} planted words for each of a topic's own:",
      "",
      f"| | {' | '.join(f'world {w}' for w in worlds)} | mean |",
      "|---" + "|---:" * (len(worlds) + 1) + "|",
    ]
    for row in results[worlds[0]][share]:
      values = [results[w][share][row] for w in worlds]
      if isinstance(values[0], Mapping):
        for key in values[0]:
          cells = [float(v[key]) for v in values]
          lines.append(_line(f"{row}: {key}", cells, 2))
      else:
        lines.append(_line(row, [statistics.fmean(v) for v in values], 1))
    lines.append("")
  return "\n".join(lines)


def _line(name: str, cells: Sequence[float], digits: int) -> str:
  shown = [*cells, statistics.fmean(cells)]
  return f"| {name} | {' | '.join(f'{v:.{digits}f}' for v in shown)} |"


def _command(*argv: str) -> None:
  print("==", *argv, flush=True)
  if commands.main(list(argv)):
    raise RuntimeError(f"prompt-tuning {' '.join(argv)} failed.")


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
