"""Runs side by side: padding, order, and what does not fit together."""

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core.delta import Delta, LowRank, Prefix
from prompt_tuning.core.placement import Placement
from prompt_tuning.infer.runs import Runs, join


def prompt(length, width=3, fill=1.0):
  virtual = jnp.full((1, length, width), fill)
  placement = Placement(encoder_prefix=tuple(range(length)))
  return Runs(Delta(virtual=virtual), (placement,))


def test_join_pads_to_the_longest_and_keeps_the_order():
  joined = join([prompt(2, fill=5.0), prompt(4, fill=6.0), Runs()])
  expected = np.zeros((3, 4, 3))
  expected[0, :2] = 5
  expected[1] = 6
  np.testing.assert_array_equal(joined.delta.virtual, expected)
  assert [p.encoder_length for p in joined.placements] == [2, 4, 0]


def test_join_of_joined_runs():
  first = join([prompt(1), prompt(2)])
  again = join([first, prompt(3)])
  assert again.delta.virtual.shape == (3, 3, 3)
  assert len(again) == 3


def test_one_of_several():
  """Its rows, and those that pad it; each as before the join."""
  parts = [prompt(2, fill=5.0), prompt(4, fill=6.0)]
  joined = join(parts)
  for number, part in enumerate(parts):
    one = joined.one(number)
    assert one.placements == part.placements
    length = part.delta.virtual.shape[1]
    np.testing.assert_array_equal(
      one.delta.virtual[:, :length], part.delta.virtual
    )
  assert Runs().one(0).delta.virtual is None


def test_plain_models_need_no_arrays():
  joined = join([Runs()])
  assert joined.delta.virtual is None
  assert len(joined) == 1


def low_rank(rank, width=3):
  a, b = jnp.zeros((1, 2, width, rank)), jnp.zeros((1, 2, rank, width))
  return Runs(Delta(lowrank={"enc_self/query": LowRank(a, b)}))


def positioned_prefix():
  keys = jnp.zeros((1, 2, 3, 1, 3))
  prefix = Prefix(keys, keys, positioned=jnp.ones((1, 2), bool))
  return Runs(Delta(prefix={"dec_self": prefix}))


def decoder_prompt():
  vectors = Delta(virtual=jnp.zeros((1, 1, 3)))
  return Runs(vectors, (Placement(decoder_prefix=(0,)),))


def test_runs_of_different_kinds_and_ranks_are_joined():
  joined = join([low_rank(2), prompt(2), low_rank(3), Runs()])
  assert len(joined) == 4
  assert joined.delta.lowrank["enc_self/query"].a.shape == (4, 2, 3, 3)
  assert joined.delta.virtual.shape == (4, 2, 3)


def test_other_sites_are_joined_where_they_agree():
  joined = join([low_rank(2), low_rank(2)])
  assert joined.delta.lowrank["enc_self/query"].a.shape == (2, 2, 3, 2)


@pytest.mark.parametrize(
  ("parts", "message"),
  [
    ([], "Nothing to join"),
    ([prompt(2), prompt(2, width=4)], "different models"),
    ([low_rank(2), low_rank(2, width=4)], "different models"),
    ([positioned_prefix(), decoder_prompt()], "Use separate batches"),
  ],
)
def test_what_cannot_be_joined(parts, message):
  with pytest.raises(ValueError, match=message):
    join(parts)


def test_one_placement_per_run():
  with pytest.raises(ValueError, match="one placement for each"):
    Runs(Delta(virtual=jnp.zeros((2, 1, 3))), (Placement(),))


def test_a_placement_may_only_name_rows_that_exist():
  with pytest.raises(ValueError, match=r"tokens 0 to 2; .* rows 0 to 1"):
    Runs(Delta(virtual=jnp.zeros((1, 2, 3))), (Placement((0, 2)),))
  with pytest.raises(ValueError, match="Run 0 places"):
    Runs(Delta(), (Placement((0,)),))
