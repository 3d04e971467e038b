"""Exact match and F1 of free-text answers, with SQuAD's official rules."""

import collections
import re
import string
from collections.abc import Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(answer: str) -> str:
  """Apply the normalisation of SQuAD's evaluation script.

  Args:
    answer: any text.

  Returns:
    Lower case, without ASCII punctuation, without the articles a, an and the,
    single spaces.
  """
  text = answer.lower().translate(_NO_PUNCTUATION)
  return " ".join(_ARTICLES.sub(" ", text).split())


def token_f1(target: str, prediction: str) -> float:
  """Compute the F1 of two normalised answers as bags of words.

  Returns:
    0 to 1; 0 when no word is shared, also if both are empty, as in the official
    script.
  """
  gold, predicted = target.split(), prediction.split()
  shared = collections.Counter(gold) & collections.Counter(predicted)
  same = sum(shared.values())
  if not same:
    return 0.0
  precision, recall = same / len(predicted), same / len(gold)
  return 2 * precision * recall / (precision + recall)


def squad(
  targets: Sequence[Sequence[str]], predictions: Sequence[str]
) -> dict[str, float]:
  """Compute SQuAD's exact match and F1, the best over each row's answers.

  Args:
    targets: the acceptable answers of each row, at least one.
    predictions: one answer per row.

  Returns:
    `em` and `f1`, in percent.

  Raises:
    ValueError: a row without an acceptable answer.
  """
  exact, overlap = [], []
  for row, (answers, prediction) in enumerate(
    zip(targets, predictions, strict=True)
  ):
    if not answers:
      raise ValueError(f"Row {row} has no acceptable answer to compare with.")
    predicted = normalize(prediction)
    gold = [normalize(answer) for answer in answers]
    exact.append(predicted in gold)
    overlap.append(max(token_f1(answer, predicted) for answer in gold))
  return {
    "em": 100 * float(np.mean(exact)),
    "f1": 100 * float(np.mean(overlap)),
  }
