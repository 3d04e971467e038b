"""The algebra of deltas: names, joins, identities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core import algebra
from prompt_tuning.core.delta import (
  Bottleneck,
  Delta,
  Hidden,
  LowRank,
  Prefix,
)

K, L, H, N, D, F, R = 2, 2, 16, 3, 4, 24, 3


def normal(*shape, seed=0):
  values = np.random.default_rng([seed, *shape]).normal(size=shape)
  return jnp.asarray(values, jnp.float32)


def prefix(length, runs=K):
  shape = (runs, L, length, N, D)
  return Prefix(normal(*shape), normal(*shape, seed=1))


def lowrank(rank, runs=K):
  return LowRank(normal(runs, L, H, rank), normal(runs, L, rank, N * D))


def everything(runs=K, length=4, rank=R):
  return Delta(
    virtual=normal(runs, length, H),
    prefix={"enc_self": prefix(length, runs)},
    hidden={
      "encoder": Hidden(
        normal(runs, L, length, H), jnp.ones((runs, L, length), bool)
      )
    },
    bottleneck={
      "enc_mlp": Bottleneck(normal(runs, L, H, rank), normal(runs, L, rank, H))
    },
    lowrank={"enc_self/query": lowrank(rank, runs)},
    scale={"enc_self/key": normal(runs, L, N * D)},
    norm={"enc_mlp": normal(runs, L, H), "decoder": normal(runs, 1, H)},
    head_rows=normal(runs, 5, H),
    sight=jnp.zeros((runs, 3), bool),
    log_weight=normal(runs),
    word_weights=normal(runs, 5, length),
  )


def test_every_field_of_a_delta_has_its_kind():
  masks = {"head_mask"}  # a leaf of `head_rows`
  fields = {field.name for field in dataclasses.fields(Delta)}
  assert set(algebra.KINDS) == fields - masks
  structs = {
    "prefix": Prefix,
    "hidden": Hidden,
    "bottleneck": Bottleneck,
    "lowrank": LowRank,
  }
  for field, struct in structs.items():
    assert set(algebra.KINDS[field]) == set(struct._fields)


def test_named_leaves_are_all_leaves_and_come_back():
  delta = everything()
  named = algebra.named_leaves(delta)
  assert len(named) == len(jax.tree.leaves(delta))
  assert named["lowrank/enc_self/query/a"] is delta.lowrank["enc_self/query"].a
  again = algebra.from_named_leaves(named)
  assert jax.tree.structure(again) == jax.tree.structure(delta)
  jax.tree.map(np.testing.assert_array_equal, again, delta)
  masked = dataclasses.replace(delta, head_mask=jnp.ones((K, 5), bool))
  again = algebra.from_named_leaves(algebra.named_leaves(masked))
  np.testing.assert_array_equal(again.head_mask, masked.head_mask)


@pytest.mark.parametrize(
  ("named", "message"),
  [
    ({"virtuals": jnp.zeros(1)}, "virtuals"),
    ({"lowrank/enc_self/query/c": jnp.zeros(1)}, "not the path of an array"),
    ({"lowrank/enc_self/query/a": jnp.zeros(1)}, "lacks its arrays b"),
    ({"scale": jnp.zeros(1)}, "not the path of an array"),
    ({"virtual/x": jnp.zeros(1)}, "not the path of an array"),
  ],
)
def test_wrong_names_are_errors(named, message):
  with pytest.raises(ValueError, match=message):
    algebra.from_named_leaves(named)


def test_a_join_of_like_deltas_has_no_masks():
  joined = algebra.join([everything(), everything(runs=1)], [K, 1])
  assert joined.prefix["enc_self"].mask is None
  assert joined.head_mask is None
  for path, leaf in algebra.named_leaves(joined).items():
    assert leaf.shape[0] == K + 1, path


def test_selected_runs_of_a_join_are_the_parts():
  a, b = everything(), dataclasses.replace(everything(runs=1), lowrank={})
  joined = algebra.join([a, b], [K, 1])
  first = algebra.select(joined, slice(0, K))
  jax.tree.map(
    np.testing.assert_array_equal,
    algebra.named_leaves(first),
    algebra.named_leaves(a),
  )
  # The run without the site has the site's identity.
  last = algebra.select(joined, [K]).lowrank["enc_self/query"]
  assert not np.any(last.a)
  assert not np.any(last.b)


def test_shorter_parts_are_padded_prefixes_in_front():
  parts = [
    Delta(prefix={"cross": prefix(2, 1)}, lowrank={"cross/key": lowrank(1, 1)}),
    Delta(prefix={"cross": prefix(5, 1)}, lowrank={"cross/key": lowrank(4, 1)}),
    Delta(),
  ]
  joined = algebra.join(parts, [1, 1, 1])
  site = joined.prefix["cross"]
  mask = [[False] * 3 + [True] * 2, [True] * 5, [False] * 5]
  np.testing.assert_array_equal(site.mask[:, 0], mask)
  key = parts[0].prefix["cross"].key
  np.testing.assert_array_equal(site.key[0, :, 3:], key[0])
  assert joined.lowrank["cross/key"].a.shape == (3, L, H, 4)


def test_other_sizes_and_dtypes_are_other_models():
  one = Delta(virtual=normal(1, 4, H))
  with pytest.raises(ValueError, match=r"virtual.*H = 16.*8.*different models"):
    algebra.join([one, Delta(virtual=normal(1, 4, 8))], [1, 1])
  half = Delta(virtual=normal(1, 4, H).astype(jnp.bfloat16))
  with pytest.raises(ValueError, match="dtypes bfloat16, float32"):
    algebra.join([one, half], [1, 1])
