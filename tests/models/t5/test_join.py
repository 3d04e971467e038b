"""Runs that tune different things, in one batch: each as it is alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core import algebra
from prompt_tuning.core.delta import Bottleneck, Delta, Hidden, LowRank, Prefix
from prompt_tuning.models.t5 import network
from prompt_tuning.models.t5.config import T5Config

CONFIG = T5Config(
  vocab_size=64,
  emb_dim=16,
  num_heads=3,
  head_dim=4,
  mlp_dim=24,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
V, H, N, D, F, L = 64, 16, 3, 4, 24, 2


def normal(*shape):
  rng = np.random.default_rng(list(shape))
  return jnp.asarray(rng.normal(size=shape) / 4, jnp.float32)


def prefix(length, **marks):
  shape = (1, L, length, N, D)
  return Prefix(normal(*shape), -normal(*shape), **marks)


def adapter(rank, norm):
  parts = (normal(1, L, H, rank), normal(1, L, rank, H))
  return Bottleneck(
    *parts,
    norm_scale=normal(1, L, H) if norm else None,
    norm_bias=normal(1, L, H) if norm else None,
  )


def hidden(length, replaces):
  flags = jnp.full((1, L, length), replaces)
  return Hidden(normal(1, L, length, H), flags)


HERE = jnp.ones((1, L), bool)
PARTS = {
  "plain": Delta(),
  "short prompt": Delta(virtual=normal(1, 3, H)),
  "long prompt": Delta(virtual=normal(1, 5, H)),
  "deep prompt": Delta(
    virtual=normal(1, 4, H),
    hidden={"encoder": hidden(4, True), "decoder": hidden(4, True)},
  ),
  "added prompt": Delta(
    virtual=normal(1, 2, H), hidden={"encoder": hidden(2, False)}
  ),
  "short prefix": Delta(prefix={s: prefix(2) for s in ("enc_self", "cross")}),
  "long prefix": Delta(prefix={s: prefix(6) for s in ("enc_self", "dec_self")}),
  "positioned prefix": Delta(
    prefix={s: prefix(3, positioned=HERE) for s in ("enc_self", "dec_self")}
  ),
  "low rank": Delta(
    lowrank={"enc_self/query": LowRank(normal(1, L, H, 2), normal(1, L, 2, 12))}
  ),
  "lower rank": Delta(
    lowrank={
      "enc_self/query": LowRank(normal(1, L, H, 1), normal(1, L, 1, 12)),
      "dec_mlp/wo": LowRank(normal(1, L, F, 3), normal(1, L, 3, H)),
    }
  ),
  "scale": Delta(scale={"enc_self/key": 1 + normal(1, L, 12)}),
  "adapter": Delta(bottleneck={"enc_mlp": adapter(4, False)}),
  "parallel adapter": Delta(
    bottleneck={"enc_mlp": adapter(3, False)._replace(parallel=HERE)}
  ),
  "norms": Delta(
    norm={"cross": 1 + normal(1, L, H), "encoder": normal(1, 1, H)}
  ),
  "normed adapter": Delta(bottleneck={"enc_mlp": adapter(2, True)}),
  "two words": Delta(head_rows=normal(1, 2, H)),
  "three words": Delta(head_rows=normal(1, 3, H)),
}


@pytest.fixture(scope="module")
def params(random_params):
  return random_params(CONFIG)


@pytest.fixture(scope="module")
def apply():
  return jax.jit(network.T5(CONFIG).apply)


def rows(deltas):
  """One row per delta: its virtual tokens, then the same text."""
  text = [7, 9, 11, 1]
  encoder = np.zeros((len(deltas), 9), np.int32)
  for row, delta in zip(encoder, deltas, strict=True):
    length = 0 if delta.virtual is None else delta.virtual.shape[1]
    ids = [*range(V, V + length), *text]
    row[: len(ids)] = ids
  targets = np.tile(np.asarray([[5, 6, 1, 0]], np.int32), (len(deltas), 1))
  inputs = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
  return {
    "encoder_input_tokens": encoder,
    "decoder_input_tokens": inputs,
    "decoder_target_tokens": targets,
  }


@pytest.mark.parametrize("names", [list(PARTS), ["plain", "scale"]])
def test_a_mixed_batch_equals_every_row_alone(params, apply, tolerance, names):
  deltas = [PARTS[name] for name in names]
  batch = rows(deltas)
  joined = algebra.join(deltas, [1] * len(deltas))
  ids = np.arange(len(deltas), dtype=np.int32)
  mixed = apply({"params": params}, {**batch, "run_ids": ids}, joined)
  for k, (name, delta) in enumerate(zip(names, deltas, strict=True)):
    own = {key: a[k : k + 1] for key, a in batch.items()}
    alone = apply({"params": params}, own, delta)
    words = alone.shape[-1]
    np.testing.assert_allclose(
      mixed[k : k + 1, :3, :words],
      alone[:, :3],
      **tolerance["same"],
      err_msg=name,
    )
    # Words of other runs are impossible.
    assert np.all(np.isneginf(mixed[k, :3, words:])), name


def test_an_identity_changes_nothing(params, apply, tolerance):
  batch = rows([Delta()])
  joined = algebra.join(list(PARTS.values()), [1] * len(PARTS))
  neutral = algebra.select(joined, [list(PARTS).index("plain")])
  neutral = dataclasses.replace(neutral, head_rows=None, head_mask=None)
  np.testing.assert_allclose(
    apply({"params": params}, batch, neutral)[:, :3],
    apply({"params": params}, batch, Delta())[:, :3],
    **tolerance["same"],
  )
