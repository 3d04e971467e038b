"""Fingerprints tell backbones apart and survive dtype and layout."""

import jax
import jax.numpy as jnp
import pytest

from prompt_tuning.checkpoints import fingerprint
from prompt_tuning.models.t5 import config as t5_config


@pytest.fixture(scope="module")
def params(random_params):
  return random_params(t5_config.T5Config(vocab_size=64, emb_dim=16))


def test_dtype_and_stacking_do_not_matter(params):
  expected = fingerprint.fingerprint(params)
  low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
  assert fingerprint.fingerprint(low) == expected
  stacked = dict(params)
  for stack in ("encoder", "decoder"):
    part = dict(params[stack])
    layers = [part.pop(f"layers_{i}") for i in range(8)]
    part["layers"] = jax.tree.map(lambda *a: jnp.stack(a), *layers)
    stacked[stack] = part
  assert fingerprint.fingerprint(stacked) == expected


def test_other_weights_or_shapes_do(params, random_params):
  expected = fingerprint.fingerprint(params)
  other = random_params(t5_config.T5Config(vocab_size=64, emb_dim=16), seed=1)
  assert fingerprint.fingerprint(other) != expected
  tuned = jax.tree.map(lambda a: a * 1.02, params)
  assert fingerprint.fingerprint(tuned) != expected


def test_checksum_sees_every_bit(params):
  expected = fingerprint.checksum(params)
  changed = jax.tree.map(lambda a: a, params)
  table = changed["token_embedder"]["embedding"]
  nudged = jnp.nextafter(table[17, 3], jnp.float32(jnp.inf))
  changed["token_embedder"]["embedding"] = table.at[17, 3].set(nudged)
  assert fingerprint.checksum(params) == expected
  assert fingerprint.checksum(changed) != expected
