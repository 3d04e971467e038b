"""From scores of words to scores of classes.

The same as the scorers of `models.scorers` compute where a model runs; here, of
numpy arrays, for scores that were calibrated or refined in between.
"""

import numpy as np

# `sum` adds the words' probabilities, each times its weight; `mean` divides
# that by the sum of weights; `log_mean` is the weighted mean of
# log-probabilities, KPT's; `learned` the same with the softmax of weights,
# KPT's learned refinement, in which a weight of 0 is as good as any other.
SUM, MEAN, LOG_MEAN, LEARNED = "sum", "mean", "log_mean", "learned"
AGGREGATIONS = (SUM, MEAN, LOG_MEAN, LEARNED)


def aggregate(
  scores: np.ndarray, weights: np.ndarray, there: np.ndarray, how: str
) -> np.ndarray:
  """Make scores of classes.

  Args:
    scores: [..., C, W] log-probabilities of words.
    weights: [C, W]; not negative, unless `learned`.
    there: [C, W] bool, where there are words; every class has one.
    how: see `AGGREGATIONS`.

  Returns:
    [..., C] float64 log-probabilities, up to a number that all classes share.

  Raises:
    ValueError: another `how`, or a class without words.
  """
  if how not in AGGREGATIONS:
    raise ValueError(
      f"Aggregation {how!r}: expected one of {', '.join(AGGREGATIONS)}."
    )
  weights = np.where(there, np.asarray(weights, np.float64), 0)
  if how == LEARNED:
    weights = _softmax(weights, there)
  counted = there & (weights > 0)
  if not counted.any(axis=-1).all():
    empty = int(np.argmin(counted.any(axis=-1)))
    raise ValueError(f"Class {empty} has no words with a weight.")
  values = np.asarray(scores, np.float64)
  if how in (LOG_MEAN, LEARNED):
    terms = np.where(counted, weights, 0) * np.where(counted, values, 0)
    return np.asarray(terms.sum(-1) / weights.sum(-1))
  if how == MEAN:
    weights = weights / weights.sum(-1, keepdims=True)
  with np.errstate(divide="ignore"):
    terms = np.where(counted, values + np.log(weights), -np.inf)
  top = terms.max(-1, keepdims=True)
  return np.asarray(np.log(np.exp(terms - top).sum(-1)) + top[..., 0])


def _softmax(weights: np.ndarray, there: np.ndarray) -> np.ndarray:
  values = np.where(there, weights, -np.inf)
  raised = np.exp(values - values.max(-1, keepdims=True))
  return np.asarray(raised / raised.sum(-1, keepdims=True))
