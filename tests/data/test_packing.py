"""Packing as an assignment: complete, within capacity, and dense."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.data import packing

pairs = st.lists(
  st.tuples(st.integers(1, 20), st.integers(1, 5)), min_size=1, max_size=60
)


@given(pairs, st.integers(20, 45), st.integers(5, 12))
def test_every_example_in_one_row_that_holds_it(examples, T, S):
  encoder, decoder = np.array(examples).T
  rows = packing.best_fit(encoder, decoder, T, S)
  assert sorted(i for row in rows.members for i in row) == list(
    range(len(examples))
  )
  for row, used_T, used_S in zip(
    rows.members, rows.encoder_used, rows.decoder_used, strict=True
  ):
    assert row
    assert encoder[row].sum() == used_T <= T
    assert decoder[row].sum() == used_S <= S


@given(pairs, st.integers(0, 2**32 - 1))
def test_groups_never_share_a_row(examples, seed):
  encoder, decoder = np.array(examples).T
  groups = np.random.default_rng(seed).integers(0, 3, len(encoder))
  rows = packing.best_fit(encoder, decoder, 24, 12, groups)
  assert sorted(i for row in rows.members for i in row) == list(
    range(len(examples))
  )
  assert all(len(set(groups[row])) == 1 for row in rows.members)
  for group in set(groups.tolist()):
    own = groups == group
    alone = packing.best_fit(encoder[own], decoder[own], 24, 12)
    count = sum(groups[row[0]] == group for row in rows.members)
    assert count == len(alone.members)


@given(pairs)
def test_best_fit_bound(examples):
  """No two rows could have been one, so more than half of each pair is used."""
  encoder, _ = np.array(examples).T
  rows = packing.best_fit(encoder, np.ones_like(encoder), 24, 10**6)
  used = rows.encoder_used
  for i in range(len(used)):
    for j in range(i):
      assert used[i] + used[j] > 24


def test_an_example_longer_than_a_row():
  with pytest.raises(ValueError, match="cannot hold examples of 9"):
    packing.best_fit(np.array([9, 3]), np.array([1, 1]), 8, 4)


def test_chosen_size_is_dense_and_holds_the_longest():
  rng = np.random.default_rng(0)
  encoder = 100 + np.clip(rng.normal(158, 90, 3000), 20, 512).astype(int)
  decoder = rng.integers(2, 6, 3000)
  T, S = packing.choose_size(encoder, decoder)
  assert encoder.max() <= T <= packing.MAX_STRETCH * encoder.max() + 32
  rows = packing.best_fit(encoder, decoder, T, S)
  assert encoder.sum() / (len(rows.members) * T) > 0.91
