"""Metrics of tasks that are always scored by ranking, for any settings."""

import functools
from collections.abc import Sequence

from prompt_tuning.data import spec
from prompt_tuning.data.metrics import classification


def metrics(label_words: Sequence[str]) -> tuple[spec.Metric, ...]:
  """Return accuracy and F1, of two classes or the mean of several.

  Args:
    label_words: the label words that are ranked.

  Source: `rank_classification` of the T5 library, without its areas under
    curves, which need scores.
  """
  f1 = (
    classification.f1
    if len(label_words) == 2
    else classification.mean_f1(len(label_words))
  )
  return f1, classification.accuracy


def with_statistics(
  label_words: Sequence[str], of_task: Sequence[spec.Metric]
) -> tuple[spec.Metric, ...]:
  """Add label statistics; a task without labels has none."""
  if not label_words:
    return tuple(of_task)
  statistics = functools.partial(classification.label_statistics, label_words)
  return (*of_task, statistics)
