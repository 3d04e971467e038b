"""From decoded text to values: labels, scores, answers, the WSC rule."""

import math

import pytest

from prompt_tuning.data import postprocessors


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("neutral", 2),
    (b"entailment", 0),
    ("Neutral", -1),  # no mercy for case
    ("neutral ", -1),
    ("", -1),
    ("<unk>", -1),
  ],
)
def test_label_id(text, expected):
  label_id = postprocessors.LabelId(("entailment", "contradiction", "neutral"))
  assert label_id(text, example={}, is_target=False) == expected


def test_label_id_renames_predictions_only():
  label_id = postprocessors.LabelId(
    ("not_equivalent", "equivalent"), rename=("duplicate", "equivalent")
  )
  assert label_id("not_duplicate") == 0
  assert label_id("duplicate") == 1
  assert label_id("equivalent", is_target=True) == 1
  assert label_id("duplicate", is_target=True) == -1


@pytest.mark.parametrize(
  ("text", "expected"),
  [("3.4", 3.4), (b"0.0", 0.0), ("5", 5.0), ("", -1.0), ("3,4", -1.0)],
)
def test_to_float(text, expected):
  assert postprocessors.to_float(text) == expected


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_to_float_lets_no_infinity_through(text):
  assert postprocessors.to_float(text) == -1.0


def test_to_float_of_an_unlabelled_target_is_nan():
  assert math.isnan(postprocessors.to_float("<unk>", is_target=True))


def test_multirc_groups_by_paragraph_and_question():
  example = {"idx/paragraph": 3, "idx/question": 7, "idx/answer": 1}
  assert postprocessors.multirc("True", example, is_target=True) == {
    "value": 1,
    "group": (3, 7),
  }
  assert postprocessors.multirc("perhaps", example) == {"value": -1}


def test_record_and_qa_return_every_answer_of_a_target():
  example = {"answers": [b"Oslo", "Bergen"], "idx/passage": 1, "idx/query": 2}
  assert postprocessors.record("Oslo", example, is_target=True) == {
    "value": ["Oslo", "Bergen"],
    "group": (1, 2),
  }
  assert postprocessors.record("Rome", example) == {"value": "Rome"}
  assert postprocessors.qa("Oslo", example, is_target=True) == [
    "Oslo",
    "Bergen",
  ]
  assert postprocessors.qa("Rome", example) == "Rome"


@pytest.mark.parametrize(
  ("prediction", "referent", "expected"),
  [
    ("the old man", "The old man", 1),  # case and determiners do not count
    ("man", "the old man", 1),  # part of the referent
    ("his very old man", "old man", 1),  # the referent and more
    ("old woman", "old man", 0),  # neither contains the other
    ("Bob", "Bob's hat", 0),  # only one has an apostrophe
    ("Bob's hat", "Bob's", 1),
    ("woman", "man", 0),
    ("", "man", -1),
    ("the", "man", -1),  # nothing left
    (b" Mark ", "Mark", 1),
  ],
)
@pytest.mark.parametrize("label", [0, 1])
def test_wsc(prediction, referent, expected, label):
  example = {"targets_pretokenized": referent, "label": label}
  assert postprocessors.wsc(prediction, example=example) == expected
  assert postprocessors.wsc(referent, example=example, is_target=True) == label
