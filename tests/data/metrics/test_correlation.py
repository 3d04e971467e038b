"""Correlations, against numpy, with the degenerate cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.data.metrics import correlation

scores = st.lists(
  st.tuples(st.integers(0, 25), st.integers(-5, 25)), min_size=1, max_size=30
)


def ranks(values):
  """Average ranks, written out."""
  values = np.asarray(values)
  return [(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values]


@given(pairs=scores)
def test_pearson_equals_numpy(pairs, tolerance):
  targets, predictions = (
    [x / 5 for x in side] for side in zip(*pairs, strict=True)
  )
  got = correlation.pearson(targets, predictions)["pearson_corrcoef"]
  if len(set(targets)) == 1 or len(set(predictions)) == 1:
    assert got == 0.0
  else:
    expected = 100 * np.corrcoef(targets, predictions)[0, 1]
    assert got == pytest.approx(expected, abs=tolerance["metric"]["atol"])


@given(pairs=scores)
def test_spearman_is_pearson_of_the_ranks(pairs, tolerance):
  targets, predictions = (
    [x / 5 for x in side] for side in zip(*pairs, strict=True)
  )
  got = correlation.spearman(targets, predictions)["spearman_corrcoef"]
  if len(set(targets)) == 1 or len(set(predictions)) == 1:
    assert got == 0.0
  else:
    expected = np.corrcoef(ranks(targets), ranks(predictions))[0, 1]
    assert got == pytest.approx(100 * expected, abs=tolerance["metric"]["atol"])


@pytest.mark.parametrize("metric", [correlation.pearson, correlation.spearman])
@pytest.mark.parametrize(
  ("targets", "predictions"),
  [
    ([1.0, 2.0, 3.0], [-1.0, -1.0, -1.0]),  # nothing parsed
    ([2.0, 2.0], [1.0, 3.0]),
    ([1.0], [1.0]),
  ],
)
def test_a_constant_side_gives_zero_not_nan(metric, targets, predictions):
  assert list(metric(targets, predictions).values()) == [0.0]


def test_perfect_and_reversed_orders():
  assert correlation.pearson([0, 1, 2], [1, 3, 5])[
    "pearson_corrcoef"
  ] == pytest.approx(100)
  assert correlation.spearman([0, 1, 2], [9, 5, -1])[
    "spearman_corrcoef"
  ] == pytest.approx(-100)
