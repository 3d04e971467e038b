"""MultiRC by question and ReCoRD by query, by hand."""

import pytest

from prompt_tuning.data.metrics import grouped


def multirc(rows):
  targets = [{"value": t, "group": g} for g, t, _ in rows]
  return targets, [{"value": p} for _, _, p in rows]


def test_exact_match_needs_every_answer_of_a_question():
  rows = [
    ((0, 0), 1, 1),
    ((0, 1), 1, 1),
    ((0, 0), 0, 0),  # rows of a question need not be adjacent
    ((0, 1), 0, 1),
    ((1, 0), 1, -1),  # illegal is wrong
  ]
  assert grouped.multirc_exact_match(*multirc(rows)) == {
    "exact_match": pytest.approx(100 / 3)
  }


def test_equal_question_numbers_of_two_paragraphs_are_two_groups():
  rows = [((0, 0), 1, 1), ((1, 0), 1, 0)]
  assert grouped.multirc_exact_match(*multirc(rows)) == {"exact_match": 50.0}


def test_f1_over_all_answers():
  rows = [((0, 0), 1, 1), ((0, 0), 1, -1), ((1, 0), 0, 0), ((1, 0), 0, 1)]
  # One true positive, one false negative (illegal), one false positive.
  assert grouped.multirc_f1(*multirc(rows)) == {"f1": pytest.approx(50.0)}


def test_a_constant_answer_scores_as_expected():
  rows = [((0, 0), 1, 1), ((0, 0), 0, 1), ((1, 0), 1, 1)]
  targets, predictions = multirc(rows)
  assert grouped.multirc_exact_match(targets, predictions) == {
    "exact_match": 50.0
  }
  assert grouped.multirc_f1(targets, predictions) == {"f1": pytest.approx(80.0)}


def test_record_counts_a_query_once_by_its_first_row():
  answers = ["Ana Ruiz", "Ruiz"]
  targets = [
    {"value": answers, "group": (0, 0)},
    {"value": answers, "group": (0, 0)},
    {"value": ["Oslo"], "group": (0, 1)},
  ]
  predictions = [{"value": "Ruiz"}, {"value": "nobody"}, {"value": "in Oslo"}]
  got = grouped.record(targets, predictions)
  assert got["em"] == 50.0
  assert got["f1"] == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_record_with_empty_predictions():
  targets = [{"value": ["Oslo"], "group": (0, 1)}]
  assert grouped.record(targets, [{"value": ""}]) == {"em": 0.0, "f1": 0.0}
