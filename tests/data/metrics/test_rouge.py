"""ROUGE against numbers of the package `rouge-score` 0.1.2, run once."""

import numpy as np
import pytest

from prompt_tuning.data.metrics import rouge

# Target, prediction, F1 of words, of pairs, of common subsequences.
CASES = [
  (
    "The boat sank near Norvik.\nNobody drowned in 1931.",
    "A boat sank . Nobody had drowned near Norvik",
    (0.7058823529411765, 0.26666666666666666, 0.7058823529411765),
  ),
  (
    "a b c d\ne f g",
    "e a b x d\nc g f",
    (0.9333333333333333, 0.15384615384615383, 0.7999999999999999),
  ),
  ("one two", "three", (0.0, 0.0, 0.0)),
  ("the the cat", "the cat the cat", (6 / 7, 0.4, 6 / 7)),
  ("x y z . z y x", "z y x . x y z", (1.0, 0.8, 1.0)),
  ("", "", (0.0, 0.0, 0.0)),
]


@pytest.mark.parametrize(("target", "prediction", "expected"), CASES)
def test_one_row(target, prediction, expected, tolerance):
  result = rouge.rouge([target], [prediction])
  assert list(result) == ["rouge1", "rouge2", "rougeLsum"]
  expected = 100 * np.array(expected)
  np.testing.assert_allclose(
    list(result.values()), expected, **tolerance["double"]
  )


def test_rows_are_averaged(tolerance):
  targets, predictions, rows = zip(*CASES, strict=True)
  result = rouge.rouge(targets, predictions)
  expected = 100 * np.mean(rows, axis=0)
  np.testing.assert_allclose(
    list(result.values()), expected, **tolerance["double"]
  )
