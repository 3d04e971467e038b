"""SQuAD's exact match and F1, by hand."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.data.metrics import qa


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("The  Cat's  hat!", "cats hat"),
    ("an apple, a day", "apple day"),
    ("another theatre", "another theatre"),  # articles are whole words
    ("A", ""),
    ("...", ""),
    ("U.S.A.", "usa"),
    ("naïve café", "naïve café"),
    ("tab\tand\nnewline", "tab and newline"),
  ],
)
def test_normalize(text, expected):
  assert qa.normalize(text) == expected


@given(st.text(alphabet=string.ascii_letters + " .,'\"-athen", max_size=60))
def test_normalize_equals_the_rule_written_out(text):
  kept = "".join(c for c in text.lower() if c not in string.punctuation)
  words = [w for w in kept.split() if w not in ("a", "an", "the")]
  assert qa.normalize(text) == " ".join(words)


@pytest.mark.parametrize(
  ("target", "prediction", "expected"),
  [
    ("big red dog", "red dog", 0.8),  # precision 1, recall 2/3
    ("dog dog", "dog", 2 / 3),  # a word counts as often as it stands there
    ("dog", "cat", 0.0),
    ("", "", 0.0),  # the official script's way
    ("dog", "", 0.0),
  ],
)
def test_token_f1(target, prediction, expected):
  assert qa.token_f1(target, prediction) == pytest.approx(expected)


def test_squad_takes_the_best_answer_of_each_row():
  got = qa.squad(
    [["the Eiffel Tower", "Tour Eiffel"], ["42", "forty two"], ["blue"]],
    ["Eiffel tower.", "two", ""],
  )
  # Row 1 is exact; row 2 has F1 2/3 (precision 1, recall 1/2); row 3 has 0.
  assert got["em"] == pytest.approx(100 / 3)
  assert got["f1"] == pytest.approx(100 * (1 + 2 / 3) / 3)


def test_squad_refuses_a_row_without_answers():
  with pytest.raises(ValueError, match="Row 1 has no acceptable answer"):
    qa.squad([["yes"], []], ["yes", "no"])
