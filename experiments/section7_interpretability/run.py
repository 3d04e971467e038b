"""What learned prompts are near to: section 7 of the paper.

  prompt-tuning sweep --tfds_data_dir tfds \
    --gin_file=experiments/section7_interpretability/ladder.gin
  python -m experiments.section7_interpretability.run --tfds_data_dir tfds

Nearest tokens in the frozen vocabulary by cosine, the first five of every
vector, beside those of random vectors of the same norms; labels that a prompt
was started with and that are still there; tokens that are typical of the task's
texts. Writes `results.json`, `table.md` and `figure.png`.
"""

import argparse
import collections
import math
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import scoring
from prompt_tuning.checkpoints import restore
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.jobs import feed, load, setup
from prompt_tuning.jobs.settings import Dataset
from prompt_tuning.tuners import interpret
from prompt_tuning.tuners.interpret import Neighbours

HERE = pathlib.Path(__file__).parent
TYPICAL = 100  # tokens of a task's texts
_TEXTS = 2_000  # of a task
_EMBEDDING = "token_embedder/embedding"
_BLANK = "▁"
_AXIS = "@init"
# What a prompt is measured by -> what the table says; each has a control.
MEASURES = {
  "cosine": "cosine of the nearest token",
  "labels": "labels near any vector, %",
  "typical": "neighbours typical of the task, %",
}
INITS = ("uniform_paper", "from_sampled_vocab", "from_class_labels")


class Prompt(NamedTuple):
  """One learned prompt.

  Attributes:
    init: what it started from.
    task: that it was trained on.
    seed: of the training.
    vectors: [P, H].
  """

  init: str
  task: str
  seed: int
  vectors: np.ndarray


def main(argv: Sequence[str]) -> int:
  """Read the sweep's prompts, and write what they are near to.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--sweep", default=f"runs/{HERE.name}")
  parser.add_argument("--output_dir", default=str(HERE))
  parser.add_argument("--checkpoint", default="embedded:ladder_1")
  parser.add_argument("--vocabulary", default="embedded:ladder_1")
  parser.add_argument("--tfds_data_dir")
  given = parser.parse_args(argv)
  vocabularies.configure(given.vocabulary)
  words = vocabularies.load(given.vocabulary)
  prompts = read_prompts(given.sweep)
  tasks = list(dict.fromkeys(prompt.task for prompt in prompts))
  counts = {
    task: token_counts(task, given.vocabulary, given.tfds_data_dir)
    for task in tasks
  }
  checkpoint = restore.open_checkpoint(given.checkpoint)
  table_of_model = np.asarray(checkpoint.params[_EMBEDDING].read(), np.float32)
  rows = measure(prompts, table_of_model, words, typical_tokens(counts, words))
  scoring.write(rows, table, draw, pathlib.Path(given.output_dir))
  return 0


def read_prompts(sweep: str) -> list[Prompt]:
  """Read the prompts of all cells.

  Args:
    sweep: MODEL_DIR of the sweep.

  Returns:
    The prompts.

  Raises:
    SystemExit: the sweep is not done, or has no axis of initialisations.
  """
  prompts = []
  for folder in scoring.cells(sweep, [_AXIS]):
    content = scoring.read_cell(folder)
    (run,), init = content["runs"], content["values"][_AXIS]
    vectors = load.encoder_vectors(str(folder))
    prompts.append(Prompt(init, run["task"], run["seed"], vectors))
  return prompts


def token_counts(
  task: str, vocabulary: str, data_dir: str | None
) -> collections.Counter[int]:
  """Count the texts of a task's training split that have each token.

  Args:
    task: its name.
    vocabulary: of the model.
    data_dir: TFDS's data directory.

  Returns:
    Token id -> share of the first texts.
  """
  lengths = {"inputs": 64, "targets": 16}
  dataset = Dataset(task, lengths, vocabulary_file=vocabulary)
  counter: collections.Counter[int] = collections.Counter()
  for _, tokens in feed.members(dataset, task, data_dir):
    for number in range(min(_TEXTS, len(tokens))):
      counter.update(set(tokens.inputs[number].tolist()))
  return counter


def typical_tokens(
  counts: Mapping[str, collections.Counter[int]], words: Vocabulary
) -> dict[str, set[int]]:
  """Choose the tokens that a task's texts have, and others' have not.

  Args:
    counts: task -> texts with each token.
    words: of the model.

  Returns:
    Task -> `TYPICAL` tokens with the largest log-likelihood ratio, of those
    that begin a word.
  """
  pieces = words.pieces(range(words.size))
  begins = {
    number
    for number, piece in enumerate(pieces)
    if piece.startswith(_BLANK) and piece.removeprefix(_BLANK).isalpha()
  }
  chosen = {}
  for task, own in counts.items():
    others: collections.Counter[int] = collections.Counter()
    for name, counter in counts.items():
      if name != task:
        others.update(counter)
    ours, theirs = sum(own.values()), sum(others.values())

    def weight(
      token: int,
      own: Any = own,
      others: Any = others,
      ours: int = ours,
      theirs: int = theirs,
    ) -> float:
      ratio = (own[token] / ours) / ((others[token] + 1) / theirs)
      return float(own[token] * math.log(ratio))

    ranked = sorted(begins & own.keys(), key=weight, reverse=True)
    chosen[task] = set(ranked[:TYPICAL])
  return chosen


def measure(
  prompts: Sequence[Prompt],
  table_of_model: np.ndarray,
  words: Vocabulary,
  typical: Mapping[str, set[int]],
) -> list[dict[str, Any]]:
  """Measure every prompt, and random vectors of the same norms.

  Args:
    prompts: the prompts.
    table_of_model: [V, H] embeddings.
    words: of the model.
    typical: see `typical_tokens`.

  Returns:
    A row for each prompt.
  """
  named = {str(n): prompt.vectors for n, prompt in enumerate(prompts)}
  neighbours = interpret.read(named, table_of_model, words.size)
  rows = []
  for number, prompt in enumerate(prompts):
    learned, control = neighbours[str(number)]
    labels = label_tokens(prompt.task, words)
    others = [ids for task, ids in typical.items() if task != prompt.task]
    nearest = learned.ids[:, 0].tolist()
    rows.append(
      {
        "init": prompt.init,
        "task": prompt.task,
        "seed": prompt.seed,
        "norm": round(float(learned.norms.mean()), 2),
        "shared": sum(nearest.count(i) > 1 for i in nearest),
        "kept": kept(learned, labels) if prompt.init == INITS[-1] else None,
        "typical_of_others": statistics.fmean(
          share(learned, ids) for ids in others
        ),
        "neighbours": [words.pieces(ids.tolist()) for ids in learned.ids],
        **{
          f"{measured}{of}": round(value, 4)
          for of, near in (("", learned), ("_control", control))
          for measured, value in {
            "cosine": float(near.cosines[:, 0].mean()),
            "labels": _found(near, labels),
            "typical": share(near, typical[prompt.task]),
          }.items()
        },
      }
    )
  return rows


def label_tokens(task: str, words: Vocabulary) -> list[set[int]]:
  """List the tokens of every label of a task.

  Args:
    task: its name.
    words: of the model.

  Returns:
    A set for each label, in the order in which prompts start with them.
  """
  pieces = words.pieces(range(words.size))
  return [
    {i for i in words.encode(label) if pieces[i] != _BLANK}
    for label in LABELS.get(task) or setup.task_words(task)
  ]


# Of tasks whose own labels the embedded models' vocabulary cannot write, or
# which have none: as the gin files of the tasks say.
LABELS: Mapping[str, tuple[str, ...]] = {
  "skill_category": (
    *("animal", "colour", "food", "body", "clothes"),
    *("family", "furniture", "work", "nature", "building"),
  ),
  "skill_count": ("three", "four", "five"),
  "skill_membership": ("yes", "no"),
  "taskless_ag_news_v100": ("world", "sports", "business", "science"),
}


def kept(near: Neighbours, labels: Sequence[set[int]]) -> float:
  """Say how many labels are near the vector that was started with them.

  Args:
    near: neighbours of a prompt that was started with labels.
    labels: tokens of each, in the order of the vectors.

  Returns:
    Their share, in percent.
  """
  hits = [
    bool(tokens & set(near.ids[place].tolist()))
    for place, tokens in enumerate(labels[: len(near.ids)])
  ]
  return 100 * statistics.fmean(hits)


def _found(near: Neighbours, labels: Sequence[set[int]]) -> float:
  """Say how many labels are near any vector, in percent."""
  ids = set(near.ids.ravel().tolist())
  return 100 * statistics.fmean(bool(tokens & ids) for tokens in labels)


def share(near: Neighbours, tokens: set[int]) -> float:
  """Say how many neighbours are among some tokens, in percent.

  Args:
    near: neighbours of all vectors.
    tokens: ids.
  """
  return 100 * float(np.isin(near.ids, list(tokens)).mean())


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
  return statistics.fmean(row[key] for row in rows)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Lay the measures out in Markdown, those of random vectors in brackets.

  Args:
    rows: see `measure`.

  Returns:
    The table: means over seeds.
  """
  heads = ["task", "started from", *MEASURES.values()]
  heads += ["typical of another task, %", "labels kept in their place, %"]
  heads += ["vectors that share their nearest token", "norm"]
  lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
  for task in dict.fromkeys(row["task"] for row in rows):
    for init in INITS:
      own = [r for r in rows if (r["task"], r["init"]) == (task, init)]
      cells = [task, init]
      for key in MEASURES:
        digits = 2 if key == "cosine" else 0
        values = (_mean(own, key), _mean(own, f"{key}_control"))
        cells.append("{:.{d}f} ({:.{d}f})".format(*values, d=digits))
      cells.append(f"{_mean(own, 'typical_of_others'):.0f}")
      is_kept = own[0]["kept"] is not None
      cells.append(f"{_mean(own, 'kept'):.0f}" if is_kept else "")
      size = len(own[0]["neighbours"])
      cells.append(f"{_mean(own, 'shared'):.1f} of {size}")
      cells.append(f"{_mean(own, 'norm'):.1f}")
      lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Draw every measure beside its control, by what prompts started from.

  Args:
    rows: see `measure`.
    path: of the PNG.
  """
  # Not at the top: slow to import.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  tasks = list(dict.fromkeys(row["task"] for row in rows))
  figure = Figure(figsize=(10, 3.6), layout="constrained")
  canvas = FigureCanvasAgg(figure)
  plots = figure.subplots(1, len(MEASURES))
  for plot, (key, title) in zip(plots, MEASURES.items(), strict=True):
    for number, init in enumerate(INITS):
      for place, task in enumerate(tasks):
        own = [r for r in rows if (r["task"], r["init"]) == (task, init)]
        at = place + (number - 1) * 0.22
        plot.plot(
          [at] * len(own),
          [row[key] for row in own],
          "osD"[number],
          color="k",
          markerfacecolor="none",
          label=None if place else init.replace("_", " "),
        )
        plot.plot(
          at,
          _mean(own, f"{key}_control"),
          "kx",
          label="random vectors" if place + number == 0 else None,
        )
    names = [task.removeprefix("taskless_").split("_v1")[0] for task in tasks]
    plot.set_xticks(range(len(tasks)), names, rotation=20, ha="right")
    plot.set_ylim(bottom=-0.03 * plot.get_ylim()[1])
    plot.set_title(title, fontsize="medium")
    plot.grid(alpha=0.3)
  figure.legend(
    *plots[0].get_legend_handles_labels(),
    fontsize="small",
    loc="outside upper center",
    ncols=4,
  )
  canvas.print_png(str(path))


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
