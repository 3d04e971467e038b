"""Ragged arrays against lists of lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.data import ragged

lists = st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=6)


def make(rows):
  return ragged.from_rows([np.array(row, np.uint16) for row in rows], np.uint16)


@given(lists, st.data())
def test_gather(rows, data):
  chosen = data.draw(
    st.lists(st.integers(0, len(rows) - 1), max_size=8) if rows else st.just([])
  )
  values, within = make(rows).gather(np.array(chosen, np.int64))
  assert values.tolist() == [v for i in chosen for v in rows[i]]
  assert within.tolist() == [j for i in chosen for j in range(len(rows[i]))]


@given(st.lists(lists, min_size=1, max_size=4))
def test_concatenate(parts):
  joined = ragged.concatenate([make(rows) for rows in parts])
  expected = [row for rows in parts for row in rows]
  assert [joined[i].tolist() for i in range(len(joined))] == expected
  assert joined.lengths.tolist() == [len(row) for row in expected]
