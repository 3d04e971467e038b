"""Dropout masks."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from prompt_tuning.core import axes
from prompt_tuning.models.t5 import dropout


def _dropped(x, rate, keys):
  keep = dropout.draw(keys, rate, (*x.shape[1:-2], x.shape[-1]))
  return dropout.dropout(x, rate, keep)


def _keys(rows, seed=0):
  return jax.random.split(jax.random.key(seed), rows)


def test_dropout_broadcasts_over_length_and_rescales():
  x = jnp.ones((4, 10, 64))
  y = np.asarray(_dropped(x, 0.25, _keys(4)))
  np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
  assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
  assert not np.array_equal(y[0], y[1])


def test_attention_dropout_broadcasts_over_queries():
  x = jnp.ones((2, 3, 5, 40))
  y = np.asarray(_dropped(x, 0.5, _keys(2)))
  np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1], y.shape))
  assert not np.array_equal(y[:, 0], y[:, 1])  # heads differ


def test_dropout_keeps_the_stated_share():
  x = jnp.ones((64, 1, 512))
  kept = np.mean(np.asarray(_dropped(x, 0.1, _keys(64))) > 0)
  # 32,768 Bernoulli draws: five standard deviations.
  assert abs(kept - 0.9) < 5 * np.sqrt(0.09 / 32_768)


@given(extra=st.integers(1, 9), rows=st.integers(1, 4))
def test_dropout_does_not_depend_on_padding_or_neighbours(extra, rows):
  """A row drops the same whatever it is padded to and stands beside."""
  keys = _keys(4)
  weights = jnp.ones((4, 3, 2, 8))
  alone = _dropped(weights[:rows], 0.5, keys[:rows])
  wide = jnp.ones((4, 3, 2 + extra, 8 + extra))
  padded = _dropped(wide, 0.5, keys)
  np.testing.assert_array_equal(alone, padded[:rows, :, :2, :8])


def test_no_keys_or_no_rate_keeps_all():
  uses = ((3, 7), (16,), (16,))
  assert dropout.of_layers(None, 0.5, 2, uses) == (None, None, None)
  assert dropout.of_layers(_keys(4), 0.0, 2, uses) == (None, None, None)
  assert dropout.around_layers(_keys(4), 0.0, 2, 16) == (None, None)
  x = jnp.arange(12.0).reshape(1, 3, 4)
  assert dropout.dropout(x, 0.5, None) is x


def test_every_use_of_every_layer_draws_from_its_own_key():
  """A mask is what its layer's and its use's number, folded in, draw alone."""
  keys, uses = _keys(4), ((3, 7), (16,), (5,), (16,))
  masks = dropout.of_layers(keys, 0.3, 2, uses)
  for layer in range(2):
    for use, shape in enumerate(uses):
      for row in range(4):
        key = jax.random.fold_in(jax.random.fold_in(keys[row], layer), use)
        alone = dropout.draw(key[None], 0.3, shape)[0]
        np.testing.assert_array_equal(masks[use][layer, row], alone)
  before, after = dropout.around_layers(keys, 0.3, 2, 16)
  for mask, number in ((before, 2), (after, 3)):
    alone = dropout.draw(dropout.fold_keys(keys, number), 0.3, (16,))
    np.testing.assert_array_equal(mask, alone)


def test_a_mesh_draws_its_own_rows():
  """No device needs the keys of another's rows."""
  mesh = axes.make_mesh(data=8, model=1)
  rows = NamedSharding(mesh, PartitionSpec("data"))
  uses = ((3, 7), (16,), (5,), (16,))
  keys = jax.device_put(_keys(16), rows)
  program = jax.jit(
    lambda keys: dropout.of_layers(keys, 0.3, 3, uses), in_shardings=rows
  )
  text = program.lower(keys).compile().as_text()
  assert "all-gather" not in text
  assert "all-to-all" not in text
  for split, whole in zip(
    program(keys), dropout.of_layers(_keys(16), 0.3, 3, uses), strict=True
  ):
    np.testing.assert_array_equal(split, whole)
    assert split.sharding.shard_shape(split.shape)[1] == 2
