"""ROUGE of summaries: common words, word pairs and subsequences."""

import collections
import itertools
import re
from collections.abc import Iterable, Sequence

import numpy as np

_NO_WORD = re.compile("[^a-z0-9]+")


def rouge(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """Compute the F1 of words, of pairs of words, and of common subsequences.

  Words are runs of a to z and 0 to 9 of the lower-case text, unstemmed.

  Args:
    targets: summaries; sentences end at a line break or " . ".
    predictions: the same.

  Returns:
    `rouge1`, `rouge2` and `rougeLsum`, in percent: means over rows.

  Source: Lin 2004; `rouge` of the T5 library, whose numbers are the middle of a
    bootstrap, equal to this mean up to chance.
  """
  rows = [
    _row(_sentences(target), _sentences(prediction))
    for target, prediction in zip(targets, predictions, strict=True)
  ]
  means = 100 * np.mean(rows, axis=0)
  names = ("rouge1", "rouge2", "rougeLsum")
  return dict(zip(names, means.tolist(), strict=True))


def _sentences(text: str) -> list[list[str]]:
  lines = text.replace(" . ", " .\n").lower().split("\n")
  return [_NO_WORD.sub(" ", line).split() for line in lines if line]


def _row(
  target: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]]
) -> tuple[float, float, float]:
  """Score one summary: by words, pairs of words, and subsequences."""
  gold, predicted = (
    [word for sentence in text for word in sentence]
    for text in (target, prediction)
  )
  return (
    _overlap(gold, predicted),
    _overlap(_pairs(gold), _pairs(predicted)),
    _subsequences(target, prediction),
  )


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
  return list(itertools.pairwise(words))


def _overlap(gold: Sequence[object], predicted: Sequence[object]) -> float:
  shared = collections.Counter(gold) & collections.Counter(predicted)
  return _f1(shared.total(), len(gold), len(predicted))


def _f1(hits: int, gold: int, predicted: int) -> float:
  return 2 * hits / (gold + predicted) if hits else 0.0


def _subsequences(
  target: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]]
) -> float:
  """Compute ROUGE-L of whole summaries.

  For each sentence of the target, counts its words in common subsequences with
  any sentence of the prediction. No word counts more often than it occurs.
  """
  gold, predicted = _counts(target), _counts(prediction)
  sizes = gold.total(), predicted.total()
  hits = 0
  for sentence in target:
    places = {p for other in prediction for p in _common(sentence, other)}
    for place in sorted(places):
      word = sentence[place]
      if gold[word] > 0 and predicted[word] > 0:
        hits += 1
        gold[word] -= 1
        predicted[word] -= 1
  return _f1(hits, *sizes)


def _counts(sentences: Iterable[Sequence[str]]) -> "collections.Counter[str]":
  return collections.Counter(w for sentence in sentences for w in sentence)


def _common(first: Sequence[str], second: Sequence[str]) -> list[int]:
  """Find the positions, in the first text, of a longest common subsequence."""
  lengths = np.zeros((len(first) + 1, len(second) + 1), np.int64)
  for i, a in enumerate(first):
    for j, b in enumerate(second):
      lengths[i + 1, j + 1] = (
        lengths[i, j] + 1
        if a == b
        else max(lengths[i, j + 1], lengths[i + 1, j])
      )
  places = []
  i, j = len(first), len(second)
  while i and j:
    if first[i - 1] == second[j - 1]:
      places.append(i - 1)
      i, j = i - 1, j - 1
    elif lengths[i, j - 1] > lengths[i - 1, j]:
      j -= 1
    else:
      i -= 1
  return places[::-1]
