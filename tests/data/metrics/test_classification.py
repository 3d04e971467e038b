"""Accuracy, F1, Matthews and label statistics, against scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from prompt_tuning.data.metrics import classification

binary = st.lists(
  st.tuples(st.integers(0, 1), st.integers(-1, 1)), min_size=1, max_size=40
)
ternary = st.lists(
  st.tuples(st.integers(0, 2), st.integers(-1, 2)), min_size=1, max_size=40
)


@given(ternary)
def test_accuracy_equals_sklearn(pairs):
  targets, predictions = zip(*pairs, strict=True)
  expected = 100 * oracle.accuracy_score(targets, predictions)
  assert classification.accuracy(targets, predictions) == {
    "accuracy": pytest.approx(expected)
  }


def test_accuracy_of_text_needs_the_very_same_text():
  got = classification.accuracy(["Anna", "the dog"], ["Anna", "The dog"])
  assert got == {"accuracy": 50.0}


@given(binary)
def test_f1_equals_sklearn_with_invalid_turned_wrong(pairs):
  targets, predictions = map(list, zip(*pairs, strict=True))
  repaired = [
    1 - t if p == -1 else p for t, p in zip(targets, predictions, strict=True)
  ]
  expected = 100 * oracle.f1_score(targets, repaired, zero_division=0)
  assert classification.f1(targets, predictions)["f1"] == pytest.approx(
    expected
  )


def test_f1_by_hand_with_an_illegal_prediction():
  # True positive, false negative (illegal), true negative, false positive
  # (illegal): precision 1/2, recall 1/2.
  assert classification.f1([1, 1, 0, 0], [1, -1, 0, -1]) == {"f1": 50.0}


@pytest.mark.parametrize(
  ("targets", "predictions", "expected"),
  [
    ([0, 0], [0, 0], 0.0),  # class 1 neither present nor predicted
    ([1, 1], [1, 1], 100.0),
    ([1, 0], [0, 0], 0.0),  # all of one class
    ([1, 0, 1], [1, 1, 1], 80.0),  # precision 2/3, recall 1
    ([1, 0], [-1, -1], 0.0),  # all illegal
  ],
)
def test_f1_of_degenerate_predictions(targets, predictions, expected):
  assert classification.f1(targets, predictions)["f1"] == pytest.approx(
    expected
  )


def test_f1_leaves_its_arguments_alone():
  predictions = np.array([-1, 1])
  classification.f1([1, 1], predictions)
  assert predictions.tolist() == [-1, 1]


def test_f1_refuses_unlabelled_targets():
  with pytest.raises(ValueError, match=r"targets of 0 or 1, got \[-1\]"):
    classification.f1([-1, -1], [0, 1])


@given(ternary)
def test_mean_f1_equals_the_mean_of_sklearn_per_class(pairs):
  targets, predictions = map(list, zip(*pairs, strict=True))
  per_class = oracle.f1_score(
    targets, predictions, labels=[0, 1, 2], average=None, zero_division=0
  )
  got = classification.mean_f1(3)(targets, predictions)
  assert got == {"mean_3class_f1": pytest.approx(100 * np.mean(per_class))}


def test_mean_f1_by_hand_counts_an_absent_class_as_zero():
  # Class 0: F1 1; class 1: precision 1/2, recall 1, F1 2/3; class 2: absent,
  # but one illegal prediction costs nobody's precision.
  got = classification.mean_f1(3)([0, 1, 0, 0], [0, 1, 1, -1])
  class_0 = 2 * 1 * (1 / 3) / (1 + 1 / 3)
  assert got["mean_3class_f1"] == pytest.approx(100 * (class_0 + 2 / 3) / 3)


@given(pairs=binary)
def test_matthews_equals_the_correlation_of_the_indicators(pairs, tolerance):
  """For two legal classes it is Pearson's correlation of the 0/1 labels."""
  targets, predictions = map(list, zip(*pairs, strict=True))
  got = classification.matthews(targets, predictions)["matthews_corrcoef"]
  assert np.isfinite(got)
  if -1 in predictions:
    return
  if len(set(targets)) == 1 or len(set(predictions)) == 1:
    assert got == 0.0
    return
  expected = 100 * np.corrcoef(targets, predictions)[0, 1]
  assert got == pytest.approx(expected, abs=tolerance["double"]["atol"])


def test_label_statistics_by_hand():
  got = classification.label_statistics(
    ("no", "yes"), [0, 1, 1, 1], [1, 1, -1, 0]
  )
  assert got == {
    "legal_label_rate": 75.0,
    "gold_share/no": 25.0,
    "gold_share/yes": 75.0,
    "predicted_share/no": 25.0,
    "predicted_share/yes": 50.0,
  }


def test_label_statistics_read_grouped_values():
  got = classification.label_statistics(
    ("False", "True"),
    [{"value": 1, "group": (0, 0)}, {"value": 0, "group": (0, 0)}],
    [{"value": -1}, {"value": -1}],
  )
  assert got["legal_label_rate"] == 0.0
  assert got["gold_share/True"] == 50.0
  assert got["predicted_share/True"] == 0.0


@given(ternary)
def test_label_statistics_add_up(pairs):
  targets, predictions = zip(*pairs, strict=True)
  got = classification.label_statistics("abc", targets, predictions)
  shares = sum(v for k, v in got.items() if k.startswith("predicted_share"))
  assert shares == pytest.approx(got["legal_label_rate"])
  gold = sum(v for k, v in got.items() if k.startswith("gold_share"))
  assert gold == pytest.approx(100)


@pytest.mark.parametrize(
  "metric",
  [
    classification.accuracy,
    classification.f1,
    classification.mean_f1(3),
    classification.matthews,
  ],
)
def test_no_metric_warns_or_gives_nan_on_one_class(metric):
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    values = metric([0, 0, 0], [0, 0, 0]).values()
  assert np.isfinite(list(values)).all()
