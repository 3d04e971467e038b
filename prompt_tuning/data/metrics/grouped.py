"""Metrics of rows that belong together: MultiRC questions, ReCoRD queries.

Targets are `{"value": ..., "group": key}`, predictions `{"value": ...}`: the
form in which `postprocessors.multirc` and `postprocessors.record` give them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.metrics import classification, qa


def multirc_f1(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
  """Compute F1 over all answers of all questions (F1a).

  Returns:
    `f1`, in percent, see `classification.f1`.
  """
  return classification.f1(
    [t["value"] for t in targets], [p["value"] for p in predictions]
  )


def multirc_exact_match(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
  """Compute the share of questions with every answer judged correctly.

  Args:
    targets: with the question as group.
    predictions: in the same order. The rows of a question need not be adjacent,
      but all must be present for a comparable result.

  Returns:
    `exact_match`, in percent.
  """
  correct: dict[Any, bool] = {}
  for target, prediction in zip(targets, predictions, strict=True):
    hit = target["value"] == prediction["value"]
    correct[target["group"]] = correct.get(target["group"], True) and hit
  return {"exact_match": 100 * float(np.mean(list(correct.values())))}


def any_answer(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
  """Compute the share of rows whose answer is one of the acceptable ones.

  Args:
    targets: with the list of acceptable answers as value.
    predictions: with the answer as value, such as the best of candidates.

  Returns:
    `accuracy`, in percent.
  """
  hits = [
    prediction["value"] in target["value"]
    for target, prediction in zip(targets, predictions, strict=True)
  ]
  return {"accuracy": 100 * float(np.mean(hits))}


def record(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
  """Compute ReCoRD's exact match and F1, once per query.

  The text form repeats a query for each of its answers; the first row counts.

  Args:
    targets: with the list of acceptable answers as value.
    predictions: with the answer as value.

  Returns:
    `em` and `f1`, in percent.
  """
  groups: set[Any] = set()
  answers, outputs = [], []
  for target, prediction in zip(targets, predictions, strict=True):
    if target["group"] in groups:
      continue
    groups.add(target["group"])
    answers.append(target["value"])
    outputs.append(prediction["value"])
  return qa.squad(answers, outputs)
