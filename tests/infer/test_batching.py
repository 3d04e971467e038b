"""Batch shapes by property; contents against the training pipeline's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.core.placement import FIRST_SOFT, Placement
from prompt_tuning.data.assembly import Assembler, one_per_row
from prompt_tuning.data.ragged import from_rows
from prompt_tuning.infer import batching
from prompt_tuning.infer.batching import Batching, BatchPlan
from prompt_tuning.infer.inputs import Inputs

V = 50
lengths = st.lists(st.integers(1, 700), max_size=60)


@given(st.integers(1, 5_000))
def test_lengths_are_rounded_up_by_at_most_half(length):
  rounded = batching.round_up(length)
  assert length <= rounded <= 1.5 * length
  assert batching.round_up(rounded) == rounded


def test_the_ladder():
  ladder = sorted({batching.round_up(n) for n in range(1, 65)})
  assert ladder == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]


@given(lengths, st.integers(1, 9), st.integers(1, 4), st.integers(1, 3))
def test_every_input_once_in_few_shapes(lengths, ways, per_way, max_lengths):
  size = ways * per_way
  plan = Batching(size, max_lengths).plan(np.array(lengths, int), ways)
  seen = [example for batch in plan for example in batch.examples.tolist()]
  assert sorted(seen) == list(range(len(lengths)))
  for batch in plan:
    assert batch.length >= max(lengths[i] for i in batch.examples)
    assert len(batch.examples) <= batch.rows <= size
    assert batch.rows % ways == 0
    assert set(batch.filled) == set(batch.examples)
    assert len(batch.filled) == batch.rows
  assert len({batch.length for batch in plan}) <= max_lengths
  # All but the last are full: rows vary in one batch only.
  assert all(len(batch.examples) == size for batch in plan[:-1])


def test_the_longest_come_first():
  plan = Batching(2, 4).plan(np.array([20, 300, 5, 100]))
  assert [batch.examples.tolist() for batch in plan] == [[1, 3], [0, 2]]
  assert [batch.length for batch in plan] == [384, 24]


def test_later_calls_meet_the_same_shapes():
  shapes = [
    {s[1:] for s in Batching(4).plan(np.array(call))}
    for call in ([33, 40, 48, 60], [35, 47, 64, 50])
  ]
  assert shapes == [{(4, 64)}, {(4, 64)}]


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"max_lengths": 0}])
def test_settings_out_of_range(settings):
  with pytest.raises(ValueError, match="must be 1 or more"):
    Batching(**settings)


def test_rows_that_the_mesh_cannot_share():
  with pytest.raises(ValueError, match=r"BATCH_SIZE 6 .* 4 data-parallel"):
    Batching(6).plan(np.array([1]), 4)


rows = st.lists(
  st.lists(st.integers(2, V - 1), max_size=6), min_size=1, max_size=4
)
positions = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@given(rows, positions, positions, positions, st.booleans())
def test_encoder_tokens_equal_the_training_pipelines(
  texts, prefix, suffix, infix, has_eos
):
  placement = Placement(prefix, suffix, encoder_infix=infix)
  own = [np.array(text + [1] * has_eos, np.int32) for text in texts]
  asked = Inputs(own, np.zeros(len(own), np.int32))
  count, length = len(own), 20
  batch = BatchPlan(np.arange(count), count, length)
  found = batching.encoder_tokens(asked, batch, [placement], V)

  ragged = from_rows(own, np.int32)
  assembler = Assembler(ragged, ragged, placement, V)
  one_each = one_per_row(np.arange(count), (count, length, length))
  expected = assembler(one_each, packed=False)["encoder_input_tokens"]
  np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(
    batching.encoder_lengths(asked, [placement]), (expected != 0).sum(1)
  )


def test_soft_tokens_of_a_text_take_the_virtual_tokens():
  text = np.array([7, FIRST_SOFT + 1, 8, FIRST_SOFT, 1], np.int32)
  placements = [Placement((0, 4)), Placement((0,))]
  asked = Inputs([text, text[4:]], np.zeros(2, np.int32))
  assert batching.encoder_lengths(asked, placements).tolist() == [5, 3]
  batch = BatchPlan(np.array([0, 1]), 2, 6)
  found = batching.encoder_tokens(asked, batch, placements, V)
  assert found.tolist() == [[7, V + 4, 8, V, 1, 0], [V, V + 4, 1, 0, 0, 0]]
  asked = Inputs([text], np.ones(1, np.int32))
  with pytest.raises(ValueError, match="2 soft tokens, but the method makes 1"):
    batching.encoder_lengths(asked, placements)


def test_each_row_has_its_own_runs_tokens():
  placements = [Placement((0,)), Placement((), (0, 1)), Placement()]
  asked = Inputs([np.array([7, 1])] * 3, np.array([2, 1, 0]))
  batch = BatchPlan(np.array([0, 2, 1]), 4, 5)
  found = batching.encoder_tokens(asked, batch, placements, V)
  assert found.tolist() == [
    [7, 1, 0, 0, 0],
    [V, 7, 1, 0, 0],
    [7, V, V + 1, 1, 0],
    [7, V, V + 1, 1, 0],  # a surplus row repeats the last
  ]


def test_decoder_starts_are_padded_on_the_left():
  placements = [Placement(), Placement((), (), (2, 0)), Placement((), (), (1,))]
  starts = batching.decoder_starts(placements, V)
  assert starts.tolist() == [[0, 0, 0], [V + 2, V, 0], [0, V + 1, 0]]
  assert batching.decoder_starts(placements[:1], V) is None


def test_candidates_are_padded():
  one, two = np.array([5, 1]), np.array([6, 7, 8, 9, 1])
  same = batching.pad_targets([[one, two], [two, one]], 3)
  assert same.shape == (3, 2, 6)
  assert same[0].tolist() == [[5, 1, 0, 0, 0, 0], [6, 7, 8, 9, 1, 0]]
  assert not same[2].any()
  # Where their number varies it is rounded up: fewer shapes.
  assert batching.pad_targets([[one] * 5, [two]], 2).shape == (2, 6, 6)
  assert batching.pad_targets([[np.array([1])]], 1).shape == (1, 1, 2)
