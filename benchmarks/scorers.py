"""Scoring classes: all at once beside one at a time.

  python -m benchmarks.scorers > benchmarks/recorded/scorers.json

T5 1.1 small shapes with random weights, 8 rows of 128 tokens, 14 classes (as
DBpedia's). `ranked`: whole candidates of 1 to 4 pieces, the encoder's states
kept. `one by one`: each candidate in a batch of its own, as if it were the only
one. `words`: all words in one decoder row. `first pieces`: what the decoder
says at one position, for 14 words and for 30 of every class. Sides take turns
in one process; scores are compared first. Prints JSON.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

import jax
import numpy as np

from benchmarks.turns import spread
from prompt_tuning.infer import rank
from prompt_tuning.infer.batching import Batching
from prompt_tuning.infer.inputs import Inputs
from prompt_tuning.infer.predict import Predictor
from prompt_tuning.models import scorers
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network
from prompt_tuning.prompting.label_words import WordPieces

ROWS, TOKENS, CLASSES, WORDS = 8, 128, 14, 30
LENGTHS = (1, 2, 1, 3, 1, 4, 2)  # pieces of the candidates, again and again
RANKED, ONE_BY_ONE, WHOLE = "ranked", "one by one", "words"
FIRST, MANY = "first pieces", f"first pieces, {WORDS} words each"


def candidates() -> list[np.ndarray]:
  """Draw the pieces of a word for every class, EOS included."""
  rng = np.random.default_rng(0)
  firsts = rng.permutation(np.arange(3, 30_000))
  rows = []
  for number in range(CLASSES):
    rest = rng.integers(3, 30_000, LENGTHS[number % len(LENGTHS)] - 1)
    rows.append(np.array([firsts[number], *rest, 1], np.int32))
  return rows


def pieces(rows: list[np.ndarray]) -> WordPieces:
  """Let every class have one of the words."""
  table = np.zeros((len(rows), 1, max(map(len, rows)) - 1), np.int32)
  for number, row in enumerate(rows):
    table[number, 0, : len(row) - 1] = row[:-1]
  return WordPieces(table, np.ones(table.shape[:2], np.float32))


def many_words() -> WordPieces:
  """Draw single pieces: as many words for every class."""
  ids = np.random.default_rng(1).permutation(np.arange(3, 30_000))
  table = ids[: CLASSES * WORDS].reshape(CLASSES, WORDS, 1).astype(np.int32)
  return WordPieces(table, np.ones(table.shape[:2], np.float32))


def sides(predictor: Predictor, asked: Inputs) -> dict[str, Callable]:
  """Return what each side does; all give scores [rows, classes]."""
  rows, many = candidates(), many_words()

  def likelihoods(given: list[np.ndarray]) -> np.ndarray:
    found = rank.log_likelihoods(predictor, asked, [given] * len(asked))
    return np.stack(found)

  def classes(words: WordPieces, scorer: scorers.Scorer) -> np.ndarray:
    found = rank.classify(predictor, asked, words, scorer)
    return np.array([ranking.scores for ranking in found])

  return {
    RANKED: lambda: likelihoods(rows),
    ONE_BY_ONE: lambda: np.concatenate(
      [likelihoods([row]) for row in rows], axis=1
    ),
    WHOLE: lambda: classes(pieces(rows), scorers.WholeWords()),
    FIRST: lambda: classes(pieces(rows), scorers.FirstPiece()),
    MANY: lambda: classes(many, scorers.FirstPiece()),
  }


def measure(rounds: int) -> dict:
  """Time all sides in turns, and divide."""
  config = t5_config.get("t5_1_1_small", dtype="float32", dropout_rate=0.0)
  params = network.init_params(config, jax.random.key(0))
  ids = np.random.default_rng(2).integers(3, 30_000, (ROWS, TOKENS))
  ids[:, -1] = 1
  asked = Inputs(list(ids.astype(np.int32)), np.zeros(ROWS, np.int32))
  predictor = Predictor(
    config, params, None, batching=Batching(batch_size=ROWS)
  )
  made = sides(predictor, asked)
  scores = {name: side() for name, side in made.items()}
  differences = [
    float(np.abs(scores[name] - scores[ONE_BY_ONE]).max())
    for name in (RANKED, WHOLE)
  ]
  if max(differences) > 1e-3:
    raise RuntimeError(f"The sides do not agree: {differences}.")
  clocks = {"seconds": time.perf_counter, "cpu_seconds": time.process_time}
  times: dict[str, dict[str, list[float]]] = {
    clock: {name: [] for name in made} for clock in clocks
  }
  for _ in range(rounds):
    for name, side in made.items():
      starts = [now() for now in clocks.values()]
      side()
      for (clock, now), start in zip(clocks.items(), starts, strict=True):
        times[clock][name].append(now() - start)
  return {
    "machine": {"cores": os.cpu_count(), "jax": jax.__version__},
    "rounds": rounds,
    "classes": CLASSES,
    "largest_difference": max(differences),
    **{
      clock: {name: spread(values) for name, values in by_name.items()}
      for clock, by_name in times.items()
    },
    "times_as_fast_as_one_by_one": {
      clock: _ratios(by_name) for clock, by_name in times.items()
    },
  }


def _ratios(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
  """Divide the times of one by one by those of every other side."""
  return {
    name: spread(
      slow / quick
      for slow, quick in zip(times[ONE_BY_ONE], values, strict=True)
    )
    for name, values in times.items()
    if name != ONE_BY_ONE
  }


def markdown(found: dict) -> str:
  """Make the table of docs/performance.md."""
  lines = [
    "| how | CPU s | times as fast as one by one: CPU s | s |",
    "| --- | ---: | ---: | ---: |",
  ]
  ratios = found["times_as_fast_as_one_by_one"]
  for name, seconds in found["cpu_seconds"].items():
    cells = [f"{seconds['median']:.2f}"]
    for clock in ("cpu_seconds", "seconds"):
      ratio = ratios[clock].get(name, {"median": 1.0})["median"]
      cells.append(f"{ratio:.1f}")
    lines.append(f"| {name} | {' | '.join(cells)} |")
  return "\n".join(lines)


def main() -> None:
  """Measure, and print."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rounds", type=int, default=5)
  print(json.dumps(measure(parser.parse_args().rounds), indent=2))


if __name__ == "__main__":
  main()
