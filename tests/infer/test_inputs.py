"""Texts to token rows: EOS, truncation that is counted, rows end to end."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.infer.inputs import Chained, Inputs, encode, encode_targets


class Letters:
  """One id per character."""

  def encode_batch(self, texts):
    return [[ord(letter) - 90 for letter in text] for text in texts]


@given(
  st.lists(st.text("abcdefgh", max_size=12), max_size=6), st.integers(1, 14)
)
def test_rows_end_in_eos_and_keep_the_limit(texts, limit):
  made = encode(Letters(), texts, limit=limit)
  for text, row in zip(texts, made.rows, strict=True):
    kept = text[: limit - 1]
    assert row.tolist() == [ord(letter) - 90 for letter in kept] + [1]
  assert made.truncated == sum(len(text) + 1 > limit for text in texts)


def test_truncation_is_reported(caplog):
  with caplog.at_level(logging.WARNING):
    encode(Letters(), ["abc", "abcd", "abcde"], limit=4)
  assert "2 of 3 inputs have more than 4 tokens" in caplog.text


def test_nothing_is_cut_without_a_limit(caplog):
  made = encode(Letters(), ["a" * 2_000], limit=None)
  assert (len(made.rows[0]), made.truncated, caplog.text) == (2_001, 0, "")


def test_targets_are_never_cut():
  (row,) = encode_targets(Letters(), ["a" * 999])
  assert len(row) == 1_000
  assert row[-1] == 1


def test_one_run_for_all_or_one_each():
  assert encode(Letters(), ["a", "b"], 3).run_ids.tolist() == [3, 3]
  assert encode(Letters(), ["a", "b"], [1, 0]).run_ids.tolist() == [1, 0]
  with pytest.raises(ValueError, match="2 inputs and 1 runs"):
    encode(Letters(), ["a", "b"], [1])


def test_no_room_for_eos():
  with pytest.raises(ValueError, match="TASK_FEATURE_LENGTHS"):
    encode(Letters(), ["a"], limit=0)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_chained_rows_are_the_rows(sizes):
  numbers = iter(range(100))
  parts = [[np.array([next(numbers)]) for _ in range(n)] for n in sizes]
  chained = Chained(parts)
  assert [row[0] for row in chained] == list(range(sum(sizes)))
  assert Inputs(chained, np.zeros(sum(sizes))).truncated == 0
