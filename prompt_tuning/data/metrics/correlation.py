"""Correlations of predicted and gold scores (STS-B)."""

from collections.abc import Sequence

import numpy as np

# scipy.stats is imported when a score is computed: the import takes a second,
# which would otherwise slow every command that declares tasks.


def pearson(
  targets: Sequence[float], predictions: Sequence[float]
) -> dict[str, float]:
  """Compute Pearson's correlation.

  Args:
    targets: gold scores.
    predictions: predicted scores; text that is not a number has become -1.

  Returns:
    `pearson_corrcoef`, in percent; 0 when either side is constant or has fewer
    than two values (the published code gives NaN there).
  """
  if _degenerate(targets) or _degenerate(predictions):
    return {"pearson_corrcoef": 0.0}
  from scipy import stats

  score = stats.pearsonr(targets, predictions)[0]
  return {"pearson_corrcoef": 100 * float(score)}


def spearman(
  targets: Sequence[float], predictions: Sequence[float]
) -> dict[str, float]:
  """Compute Spearman's rank correlation.

  Args:
    targets: gold scores.
    predictions: predicted scores; text that is not a number has become -1.

  Returns:
    `spearman_corrcoef`, in percent; 0 in the cases of `pearson`.
  """
  if _degenerate(targets) or _degenerate(predictions):
    return {"spearman_corrcoef": 0.0}
  from scipy import stats

  score = stats.spearmanr(targets, predictions)[0]
  return {"spearman_corrcoef": 100 * float(score)}


def _degenerate(values: Sequence[float]) -> bool:
  return len(values) < 2 or bool(np.all(np.asarray(values) == values[0]))
