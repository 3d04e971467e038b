"""Activations and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.models.t5 import layers


def _exact_gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_gelu_is_the_tanh_form():
  x = np.linspace(-12, 12, 4801, dtype=np.float32)
  expected = _exact_gelu(x.astype(np.float64))
  np.testing.assert_allclose(layers.gelu(x), expected, rtol=2e-6, atol=1e-7)


def test_gelu_is_no_farther_from_float64_than_jax():
  x = np.linspace(-8, 8, 4001, dtype=np.float32)
  exact = _exact_gelu(x.astype(np.float64))
  slope = np.gradient(_exact_gelu(np.linspace(-8, 8, 400_001)), 4e-5)[::100]

  def error(function):
    derivative = jax.vmap(jax.grad(function))(x)
    return np.abs(function(x) - exact).max(), np.abs(derivative - slope).max()

  ours, theirs = error(layers.gelu), error(jax.nn.gelu)
  assert ours[0] <= theirs[0]
  assert ours[1] <= theirs[1] + 1e-6


def _keys(rows, seed=0):
  return jax.random.split(jax.random.key(seed), rows)


def test_dropout_broadcasts_over_length_and_rescales():
  x = jnp.ones((4, 10, 64))
  y = np.asarray(layers.dropout(x, 0.25, _keys(4)))
  np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
  assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
  assert not np.array_equal(y[0], y[1])


def test_attention_dropout_broadcasts_over_queries():
  x = jnp.ones((2, 3, 5, 40))
  y = np.asarray(layers.dropout(x, 0.5, _keys(2)))
  np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1], y.shape))
  assert not np.array_equal(y[:, 0], y[:, 1])  # heads differ


def test_dropout_keeps_the_stated_share():
  x = jnp.ones((64, 1, 512))
  kept = np.mean(np.asarray(layers.dropout(x, 0.1, _keys(64))) > 0)
  # 32,768 Bernoulli draws: five standard deviations.
  assert abs(kept - 0.9) < 5 * np.sqrt(0.09 / 32_768)


@given(extra=st.integers(1, 9), rows=st.integers(1, 4))
def test_dropout_does_not_depend_on_padding_or_neighbours(extra, rows):
  """A row drops the same whatever it is padded to and stands beside."""
  keys = _keys(4)
  weights = jnp.ones((4, 3, 2, 8))
  alone = layers.dropout(weights[:rows], 0.5, keys[:rows])
  wide = jnp.ones((4, 3, 2 + extra, 8 + extra))
  padded = layers.dropout(wide, 0.5, keys)
  np.testing.assert_array_equal(alone, padded[:rows, :, :2, :8])


def test_no_keys_or_no_rate_is_the_identity():
  x = jnp.arange(12.0).reshape(1, 3, 4)
  assert layers.dropout(x, 0.5, None) is x
  assert layers.dropout(x, 0.0, _keys(1)) is x
