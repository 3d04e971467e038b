"""Metrics of relations, with one class for no relation.

An answer that names no class is a wrong guess, as in TACRED's own scorer, in
which every answer other than `no_relation` is a guess.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.data.metrics.classification import (
  Metric,
  label_statistics,
)

# DialogRE's class of pairs without a relation.
UNANSWERABLE = "unanswerable"


@dataclasses.dataclass(frozen=True)
class _Counts:
  """Counts for precision and recall.

  Attributes:
    hits: number of right answers.
    guesses: number of answers.
    gold: number of gold relations.
  """

  hits: int
  guesses: int
  gold: int

  @property
  def f1(self) -> float:
    """F1 in percent; 0 without a hit."""
    if not self.hits:
      return 0.0
    return 200 * self.hits / (self.guesses + self.gold)


def micro_f1_without(names: Sequence[str], no_relation: str) -> Metric:
  """Build the micro-averaged F1 of all classes but one.

  Args:
    names: names of the classes, in the order of their ids.
    no_relation: the class that is left out. Predictions and targets of this
      class do not count; another prediction on its rows is a wrong guess.

  Returns:
    A metric giving `micro_f1_without_<no_relation>`, in percent; 0 if no answer
    is right.

  Raises:
    ValueError: no such class.

  Source: TACRED's scorer (Zhang et al. 2017).
  """
  if no_relation not in names:
    raise ValueError(
      f"micro_f1_without names the class {no_relation!r}; expected one of "
      f"{', '.join(names)}."
    )
  none = list(names).index(no_relation)

  def metric(
    targets: Sequence[int], predictions: Sequence[int]
  ) -> dict[str, float]:
    pairs = list(zip(targets, predictions, strict=True))
    counts = _Counts(
      hits=sum(gold == guess != none for gold, guess in pairs),
      guesses=sum(guess != none for _, guess in pairs),
      gold=sum(gold != none for gold, _ in pairs),
    )
    return {f"micro_f1_without_{no_relation}": counts.f1}

  return metric


def official_macro_f1(names: Sequence[str]) -> Metric:
  """Build the official score of SemEval-2010 task 8.

  The mean F1 over relations. Both directions of a relation form one class, but
  an answer is right only with the right direction. `Other`, which has no
  direction, is left out.

  Args:
    names: names of the classes, such as `Cause-Effect(e1,e2)`.

  Returns:
    A metric giving `official_macro_f1`, in percent; a relation without a right
    answer has 0. An answer that names no class is skipped, as in the official
    scorer: it lowers only recall.

  Source: the task's scorer, version 1.2, (9+1)-way evaluation with
  directionality.
  """
  relation_of = [name.partition("(")[0] for name in names]
  directed = [
    relation
    for relation, name in zip(relation_of, names, strict=True)
    if relation != name
  ]
  ids = {
    relation: {i for i, other in enumerate(relation_of) if other == relation}
    for relation in directed
  }

  def metric(
    targets: Sequence[int], predictions: Sequence[int]
  ) -> dict[str, float]:
    pairs = list(zip(targets, predictions, strict=True))
    scores = [
      _Counts(
        hits=sum(gold == guess and gold in own for gold, guess in pairs),
        guesses=sum(guess in own for _, guess in pairs),
        gold=sum(gold in own for gold, _ in pairs),
      ).f1
      for own in ids.values()
    ]
    return {"official_macro_f1": sum(scores) / len(scores)}

  return metric


def dialogue_f1(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
  """Compute DialogRE's F1: micro, over pairs and their relations.

  Args:
    targets: all relations of a pair as `value`.
    predictions: the predicted relations as `value`.

  Returns:
    `f1`, in percent; 0 if no answer is right.

  Source: Yu et al. 2020, and their `evaluate.py`.
  """
  hits = guesses = gold = 0
  for target, prediction in zip(targets, predictions, strict=True):
    labels, answers = _relations(target), _relations(prediction)
    hits += len(labels & answers)
    guesses += len(answers)
    gold += len(labels)
  return {"f1": _Counts(hits, guesses, gold).f1}


def conversational_f1(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
  """Compute DialogRE's F1c, which asks after every turn.

  After turn i the answers are O_i, the relations of the pair L, and E_i those
  that can be judged by then: both arguments were named and, for a relation of
  the pair, its trigger too. After the last turn, all can be judged. A pair's
  precision is the sum over turns of |O_i & L & E_i| by that of |O_i & E_i|, its
  recall the same by that of |L & E_i|. Means over pairs make F1c.

  Args:
    targets: for a pair (`group`) after some turn: its relations as `value`,
      which of those can be judged (`evaluable`), and whether any other can
      (`seen`).
    predictions: the predicted relations as `value`.

  Returns:
    `f1c`, in percent.

  Source: Yu et al. 2020, section 4. If the formula divides by zero, the values
  follow their `evaluate.py`: precision 1 without an answer, recall 0 without a
  relation.
  """
  counts: dict[Any, list[int]] = {}
  for target, prediction in zip(targets, predictions, strict=True):
    labels, answers = _relations(target), _relations(prediction)
    judged = set(target["evaluable"])
    others = answers - labels if target["seen"] else set()
    hits, guesses, gold = counts.setdefault(target["group"], [0, 0, 0])
    right = len(answers & labels & judged)
    counts[target["group"]] = [
      hits + right,
      guesses + right + len(others),
      gold + len(labels & judged),
    ]
  precisions = [hits / g if g else 1.0 for hits, g, _ in counts.values()]
  recalls = [hits / g if g else 0.0 for hits, _, g in counts.values()]
  precision = sum(precisions) / len(counts)
  recall = sum(recalls) / len(counts)
  if not precision + recall:
    return {"f1c": 0.0}
  return {"f1c": 200 * precision * recall / (precision + recall)}


def statistics(names: Sequence[str]) -> Metric:
  """Build `classification.label_statistics` of a pair's first relation.

  Args:
    names: names of the classes.
  """
  ids = {name: number for number, name in enumerate(names)}

  def metric(
    targets: Sequence[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
  ) -> dict[str, float]:
    gold, answers = (
      [ids.get(row["value"][0], -1) for row in rows]
      for rows in (targets, predictions)
    )
    return label_statistics(names, gold, answers)

  return metric


def _relations(row: Mapping[str, Any]) -> set[str]:
  return set(row["value"]) - {UNANSWERABLE}
