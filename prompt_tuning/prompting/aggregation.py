"""From scores of words to scores of classes, for numpy's and JAX's arrays.

Scorers call it on the model's scores. Code that calibrates or refines scores of
words calls it afterwards.
"""

from typing import Any

import numpy as np

# `sum` adds the words' probabilities, each times its weight; `mean` divides
# that by the sum of weights; `log_mean` is the weighted mean of
# log-probabilities, KPT's; `learned` is the same with the softmax of the
# weights, KPT's learned refinement, where a weight of 0 counts like any other.
SUM, MEAN, LOG_MEAN, LEARNED = "sum", "mean", "log_mean", "learned"
AGGREGATIONS = (SUM, MEAN, LOG_MEAN, LEARNED)
# NumPy computes in float64, JAX in float32: the array decides which functions
# to use.
_Array = Any


def aggregate(
  scores: _Array, weights: _Array, there: np.ndarray, how: str
) -> _Array:
  """Compute scores of classes.

  Args:
    scores: [..., C, W] log-probabilities of words. Entries without a word may
      have any value; no gradient depends on them.
    weights: [C, W] or [..., C, W]; not negative, unless `learned`.
    there: [C, W] bool, True where there is a word; every class has one.
    how: one of `AGGREGATIONS`.

  Returns:
    [..., C] log-probabilities, up to a number that all classes share. For
    numpy's arrays float64, for JAX's the dtype of the scores.

  Raises:
    ValueError: `how` is unknown, or a class has no words.
  """
  if how not in AGGREGATIONS:
    raise ValueError(
      f"Aggregation {how!r}: expected one of {', '.join(AGGREGATIONS)}."
    )
  scores, xp = _with_functions(scores)
  if how != LEARNED:
    weights = np.where(there, np.asarray(weights, np.float64), 0)
  counted = there if how == LEARNED else weights > 0
  if not counted.any(axis=-1).all():
    empty = int(np.argmin(counted.any(axis=-1)))
    raise ValueError(
      f"Class {empty} has no word with a weight above 0; expected at least one."
    )
  # JAX is strict: it needs equal numbers of dimensions and one dtype.
  counted = counted.reshape((1,) * (scores.ndim - 2) + counted.shape)
  weights = weights.reshape(
    counted.shape[: scores.ndim - weights.ndim] + weights.shape
  )
  if how == LEARNED:
    shares = _softmax(xp, xp.where(counted, weights, -np.inf))
  else:
    total = 1.0 if how == SUM else weights.sum(-1, keepdims=True)
    shares = (weights / total).astype(scores.dtype)
  if how in (LOG_MEAN, LEARNED):
    return (xp.where(counted, scores, 0) * shares).sum(-1)
  log_shares = np.log(np.where(counted, shares, 1)).astype(scores.dtype)
  return _log_sum(xp, xp.where(counted, scores + log_shares, -np.inf))


def _with_functions(scores: _Array) -> tuple[_Array, Any]:
  """Return scores as floats, and the module with functions for them."""
  if isinstance(scores, np.ndarray | list | tuple):
    return np.asarray(scores, np.float64), np
  return scores, scores.__array_namespace__()


def _softmax(xp: Any, values: _Array) -> _Array:
  raised = xp.exp(values - values.max(-1, keepdims=True))
  return raised / raised.sum(-1, keepdims=True)


def _log_sum(xp: Any, values: _Array) -> _Array:
  top = values.max(-1, keepdims=True)
  return xp.log(xp.exp(values - top).sum(-1)) + top[..., 0]
