"""Bucket boundaries against brute force; windows cut without loss."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.data import buckets

lengths_lists = st.lists(st.integers(1, 60), min_size=1, max_size=40)
# As many as there are multiples of 8 below 64; of all lengths few, or brute
# force takes minutes.
boundary_rules = st.one_of(
  st.tuples(st.integers(1, 4), st.just(1)),
  st.tuples(st.integers(1, 8), st.just(8)),
)


def padded(lengths, boundaries):
  return sum(min(b for b in boundaries if b >= n) for n in lengths)


@given(lengths_lists, boundary_rules)
def test_no_other_boundaries_pad_less(lengths, rules):
  max_buckets, multiple = rules
  found = buckets.choose_boundaries(np.array(lengths), max_buckets, multiple)
  assert list(found) == sorted(set(found))
  assert len(found) <= max_buckets
  assert all(b % multiple == 0 for b in found)
  edges = {-(-n // multiple) * multiple for n in lengths}
  others = [
    choice
    for size in range(1, max_buckets + 1)
    for choice in itertools.combinations(sorted(edges), size)
    if choice[-1] >= max(lengths)
  ]
  # All subsets of 8 edges, a few of many: brute force must stay quick.
  best = min(padded(lengths, choice) for choice in others[:2000])
  assert padded(lengths, found) <= best


@given(st.data(), st.integers(1, 5), st.integers(1, 6))
def test_cut_keeps_every_example_once(data, batch_size, batches):
  size = batch_size * batches
  lengths = np.array(
    data.draw(st.lists(st.integers(1, 50), min_size=size, max_size=size))
  )
  boundaries = (10, 20, 50)
  found = buckets.cut(lengths, boundaries, batch_size)
  positions = np.concatenate([rows for _, rows in found])
  assert sorted(positions) == list(range(size))
  for boundary, rows in found:
    assert len(rows) == batch_size
    assert lengths[rows].max() <= boundary
    assert (np.diff(rows) > 0).all(), "the window's order within a bucket"


def test_leftovers_move_to_the_next_bucket():
  lengths = np.array([3, 30, 4, 5, 31, 32])
  found = buckets.cut(lengths, (8, 32), 2)
  assert [(b, rows.tolist()) for b, rows in found] == [
    (8, [0, 2]),  # lengths 3 and 4; the 5 does not fill a batch
    (32, [1, 3]),
    (32, [4, 5]),
  ]


def test_nothing_to_choose_from():
  with pytest.raises(ValueError, match="0 lengths"):
    buckets.choose_boundaries(np.array([], np.int64), 4)
