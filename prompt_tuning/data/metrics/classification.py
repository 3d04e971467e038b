"""Metrics of class ids: accuracy, F1, Matthews, and label statistics.

A prediction that is not a legal label has id -1 (see `postprocessors.LabelId`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Metric = Callable[[Sequence[Any], Sequence[Any]], Mapping[str, float]]

# What `label_statistics` gives; the shares have a word behind them.
_LEGAL = "legal_label_rate"
_GOLD_SHARE, _PREDICTED_SHARE = "gold_share", "predicted_share"

# sklearn is imported when a score is computed: the import takes 0.7 s, which
# would otherwise slow every command that declares tasks.


def accuracy(
  targets: Sequence[Any], predictions: Sequence[Any]
) -> dict[str, float]:
  """Compute the share of predictions equal to their target.

  Args:
    targets: class ids or strings.
    predictions: the same kind; an illegal prediction is wrong.

  Returns:
    `accuracy`, in percent.
  """
  equal = [t == p for t, p in zip(targets, predictions, strict=True)]
  return {"accuracy": 100 * float(np.mean(equal))}


def reciprocal_ranks(
  targets: Sequence[int], scores: Sequence[Sequence[float]]
) -> dict[str, float]:
  """Compute the mean of 1 / the rank of the right class.

  Args:
    targets: n class ids.
    scores: [n, C] scores of all classes; among equal scores, the right class is
      last.

  Returns:
    `mean_reciprocal_rank`, in percent.
  """
  values = np.asarray(scores)
  right = values[np.arange(len(values)), np.asarray(targets)]
  places = (values >= right[:, None]).sum(axis=-1)
  return {"mean_reciprocal_rank": 100 * float(np.mean(1 / places))}


def f1(targets: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
  """Compute binary F1 of class 1; an illegal prediction is wrong.

  Args:
    targets: 0 or 1; -1 (a split without labels) is refused.
    predictions: any ids; an id other than 0 and 1 is replaced by the opposite
      of the target.

  Returns:
    `f1`, in percent; 0 when class 1 is neither predicted nor present.

  Raises:
    ValueError: a target is neither 0 nor 1.

  Source: `f1_score_with_invalid` of the T5 library (MRPC, QQP, MultiRC).
  """
  gold = np.asarray(targets)
  if not np.isin(gold, (0, 1)).all():
    raise ValueError(
      f"F1 needs targets of 0 or 1, got {sorted(set(gold.tolist()))}; this "
      "split seems to have no labels."
    )
  from sklearn.metrics import f1_score

  predicted = np.asarray(predictions)
  predicted = np.where(np.isin(predicted, (0, 1)), predicted, 1 - gold)
  score = f1_score(gold, predicted, zero_division=0)
  return {"f1": 100 * float(score)}


def mean_f1(num_classes: int) -> Metric:
  """Build the unweighted mean of the classes' F1 (CommitmentBank: 3 classes).

  Args:
    num_classes: ids 0 to num_classes - 1 are averaged. A class that is neither
      predicted nor present contributes 0, as published.

  Returns:
    A metric giving `mean_<num_classes>class_f1`, in percent.

  Source: `mean_multiclass_f1` of the T5 library.
  """

  def metric(
    targets: Sequence[int], predictions: Sequence[int]
  ) -> dict[str, float]:
    from sklearn.metrics import f1_score

    score = f1_score(
      targets,
      predictions,
      labels=range(num_classes),
      average="macro",
      zero_division=0,
    )
    return {f"mean_{num_classes}class_f1": 100 * float(score)}

  return metric


def matthews(
  targets: Sequence[int], predictions: Sequence[int]
) -> dict[str, float]:
  """Compute the Matthews correlation coefficient (CoLA).

  Args:
    targets: class ids.
    predictions: class ids; the illegal -1 is a separate class, as in the
      published code.

  Returns:
    `matthews_corrcoef`, in percent; 0 when targets or predictions are all of
    one class.
  """
  if len(set(targets)) == 1 or len(set(predictions)) == 1:
    return {"matthews_corrcoef": 0.0}
  from sklearn.metrics import matthews_corrcoef

  score = matthews_corrcoef(targets, predictions)
  return {"matthews_corrcoef": 100 * float(score)}


def label_statistics(
  label_words: Sequence[str],
  targets: Sequence[Any],
  predictions: Sequence[Any],
) -> dict[str, float]:
  """Compare the labels that a model emits with the gold ones.

  They distinguish a model that cannot solve the task from a model that emits
  illegal labels, or always the same label.

  Args:
    label_words: words by class id.
    targets: class ids, or `{"value": id}` where a metric groups them.
    predictions: the same; ids outside the label set are illegal.

  Returns:
    `legal_label_rate`, and per word `gold_share/<word>` and
    `predicted_share/<word>`, all in percent of all examples.

  Source: `label_set_stats` of google-research/prompt-tuning, as numbers rather
  than as a text.
  """
  gold, predicted = _ids(targets), _ids(predictions)
  legal = (predicted >= 0) & (predicted < len(label_words))
  stats = {_LEGAL: 100 * float(np.mean(legal))}
  for class_id, word in enumerate(label_words):
    stats[f"{_GOLD_SHARE}/{word}"] = 100 * float(np.mean(gold == class_id))
    stats[f"{_PREDICTED_SHARE}/{word}"] = 100 * float(
      np.mean(predicted == class_id)
    )
  return stats


def is_share(name: str) -> bool:
  """Say whether a number is the share of a label, see `label_statistics`.

  Args:
    name: that of the number, also behind names of a task and a way to predict.
  """
  return not {_GOLD_SHARE, _PREDICTED_SHARE}.isdisjoint(name.split("/"))


def is_statistic(name: str) -> bool:
  """Say whether a number describes labels, and does not measure quality.

  Args:
    name: that of the number, also behind names of a task and a way to predict.
  """
  return is_share(name) or _LEGAL in name.split("/")


def _ids(values: Sequence[Any]) -> np.ndarray:
  return np.asarray(
    [v["value"] if isinstance(v, Mapping) else v for v in values]
  )
