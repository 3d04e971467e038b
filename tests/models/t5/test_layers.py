"""Relative position buckets and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.models.t5 import layers

# First distance of each bucket of T5's 32, up to 128; found identical in
# Flaxformer and Hugging Face.
BEFORE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
AFTER = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
CAUSAL = [
  *range(17),
  19,
  21,
  24,
  27,
  31,
  35,
  40,
  46,
  52,
  59,
  67,
  77,
  87,
  99,
  113,
]


def _expected(edges, distance, first_bucket=0):
  return first_bucket + sum(distance >= edge for edge in edges[1:])


@pytest.mark.parametrize("bidirectional", [True, False])
def test_bucket_edges(bidirectional):
  distances = np.arange(-400, 401)  # key - query
  buckets = layers.relative_position_bucket(
    distances, bidirectional=bidirectional, num_buckets=32, max_distance=128
  )
  for distance, bucket in zip(distances, buckets, strict=True):
    if not bidirectional:
      expected = _expected(CAUSAL, max(-distance, 0))
    elif distance <= 0:
      expected = _expected(BEFORE, -distance)
    else:
      expected = _expected(AFTER, distance, first_bucket=17)
    assert bucket == expected, distance


@pytest.mark.parity
def test_buckets_equal_hugging_face():
  torch = pytest.importorskip("torch", reason="parity needs the test extra")
  modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
  distances = np.arange(-600, 601)
  for bidirectional in (True, False):
    for count, farthest in ((32, 128), (4, 8), (16, 64)):
      theirs = modeling.T5Attention._relative_position_bucket(
        torch.as_tensor(distances), bidirectional, count, farthest
      )
      ours = layers.relative_position_bucket(
        distances,
        bidirectional=bidirectional,
        num_buckets=count,
        max_distance=farthest,
      )
      np.testing.assert_array_equal(ours, theirs.numpy())


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
