"""Invariants of the T5 module: layouts, dtypes, padding, packing, sharding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core import axes, tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.models.t5 import network, sites
from prompt_tuning.models.t5.config import T5Config

CONFIG = T5Config(
  vocab_size=96,
  emb_dim=32,
  num_heads=4,
  head_dim=4,
  mlp_dim=64,
  num_encoder_layers=3,
  num_decoder_layers=3,
)
P = 5


def _with(**changes):
  return dataclasses.replace(CONFIG, **changes)


@pytest.fixture(scope="module")
def params(random_params):
  return random_params(CONFIG)


@pytest.fixture(scope="module")
def delta():
  return Delta(virtual=jax.random.normal(jax.random.key(2), (1, P, 32)))


def stacked(params):
  """Stack `layers_<i>` under `layers`, as `scan_layers` wants them."""
  out = dict(params)
  for stack in ("encoder", "decoder"):
    part = dict(params[stack])
    layers = [part.pop(f"layers_{i}") for i in range(3)]
    part["layers"] = jax.tree.map(lambda *a: jnp.stack(a), *layers)
    out[stack] = part
  return out


def make_batch(config=CONFIG, rows=4, seed=0):
  rng = np.random.default_rng(seed)
  encoder = rng.integers(2, config.vocab_size, (rows, 12))
  encoder[:, :P] = config.vocab_size + np.arange(P)
  targets = rng.integers(2, config.vocab_size, (rows, 6))
  for row in range(rows):
    encoder[row, 12 - row :] = 0
    targets[row, 5 - row :] = 0
    targets[row, 5 - row] = 1
  targets = jnp.asarray(targets, jnp.int32)
  return {
    "encoder_input_tokens": jnp.asarray(encoder, jnp.int32),
    "decoder_input_tokens": network.shift_right(targets),
    "decoder_target_tokens": targets,
  }


def loss_and_gradient(config, params, batch, delta, keys=None):
  """Summed negative log-likelihood and its gradient at the prompt."""

  return _loss_and_gradient(config)(delta.virtual, params, batch, keys)


@functools.cache
def _loss_and_gradient(config):
  model = network.T5(config)

  def loss(virtual, params, batch, keys):
    delta = Delta(virtual=virtual)
    logits = model.apply({"params": params}, batch, delta, keys)
    return -jnp.sum(network.score(logits, batch["decoder_target_tokens"]))

  return jax.jit(jax.value_and_grad(loss))


@functools.cache
def _apply(config=CONFIG):
  return jax.jit(network.T5(config).apply)


def assert_trees_close(ours, theirs, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs
  )


@pytest.mark.parametrize("with_dropout", [False, True])
@pytest.mark.parametrize(
  "changes",
  [
    {"remat_policy": "none"},
    {"remat_policy": "full"},
    {"scan_layers": True},
    {"remat_policy": "full", "scan_layers": True},
    {"attention_bytes": 1},  # a row at a time
    {"attention_bytes": 3_000},  # some rows at a time, not all
  ],
  ids=str,
)
def test_layouts_give_the_same_numbers(
  changes, with_dropout, params, delta, tolerance
):
  keys = jax.random.split(jax.random.key(3), 4) if with_dropout else None
  batch = make_batch()
  plain = loss_and_gradient(CONFIG, params, batch, delta, keys)
  other_params = stacked(params) if "scan_layers" in changes else params
  other = loss_and_gradient(_with(**changes), other_params, batch, delta, keys)
  assert_trees_close(other, plain, **tolerance["same"])


def test_an_unknown_remat_policy_is_refused():
  with pytest.raises(ValueError, match="REMAT is True; expected one of none"):
    _with(remat_policy=True)


@pytest.mark.parametrize("with_dropout", [False, True])
def test_few_queries_attend_to_states_as_many_do_to_projections(
  with_dropout, params, delta, tolerance
):
  """Targets shorter than a head: kernels are taken to the queries."""
  keys = jax.random.split(jax.random.key(3), 4) if with_dropout else None
  few = CONFIG.head_dim - 1
  long = make_batch()
  cut = {k: v[:, :few] if "decoder" in k else v for k, v in long.items()}
  # Nothing beyond counts, but the positions are there.
  targets = long["decoder_target_tokens"].at[:, few:].set(0)
  long["decoder_target_tokens"] = targets
  config = _with(absorb_from=0)
  one, other = (
    loss_and_gradient(config, params, batch, delta, keys)
    for batch in (cut, long)
  )
  assert_trees_close(one, other, **tolerance["layout"])


@pytest.mark.parametrize("weights", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("compute", [jnp.float32, jnp.bfloat16])
def test_compute_and_weight_dtypes(weights, compute, params, delta):
  """Logits are always float32; bfloat16 stays near float32."""
  batch = make_batch()
  cast = jax.tree.map(lambda a: a.astype(weights), params)
  config = _with(dtype=compute)
  apply = _apply(config)
  logits = apply({"params": cast}, batch, delta)
  assert logits.dtype == jnp.float32
  reference = _apply()({"params": params}, batch, delta)
  error = np.abs(logits - reference)[
    np.asarray(batch["decoder_target_tokens"]) > 0
  ]
  # bfloat16 keeps 8 bits: 2^-8 relative per operation, a dozen operations deep.
  limit = 1e-6 if weights == compute == jnp.float32 else 0.15
  assert error.max() < limit * np.abs(reference).max()


def test_float32_attention_logits_change_only_bfloat16(params, delta):
  batch = make_batch()

  def run(**changes):
    return _apply(_with(**changes))({"params": params}, batch, delta)

  np.testing.assert_array_equal(run(), run(float32_attention_logits=True))
  low = {"dtype": jnp.bfloat16}
  assert not np.array_equal(
    run(**low), run(**low, float32_attention_logits=True)
  )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
  "features",
  [
    ("encoder_input_tokens",),
    ("decoder_input_tokens", "decoder_target_tokens"),
  ],
  ids=["encoder", "decoder"],
)
def test_padding_does_not_change_a_result(
  side, features, params, delta, tolerance
):
  batch = make_batch()
  extra = (4, 0) if side == "left" else (0, 4)
  padded = dict(batch)
  for name in features:
    padded[name] = jnp.pad(batch[name], ((0, 0), extra))
  ours = loss_and_gradient(CONFIG, params, batch, delta)
  theirs = loss_and_gradient(CONFIG, params, padded, delta)
  assert_trees_close(theirs, ours, **tolerance["same"])


def test_right_padding_keeps_dropout(params, delta, tolerance):
  keys = jax.random.split(jax.random.key(3), 4)
  batch = make_batch()
  padded = {k: jnp.pad(v, ((0, 0), (0, 3))) for k, v in batch.items()}
  assert_trees_close(
    loss_and_gradient(CONFIG, params, padded, delta, keys),
    loss_and_gradient(CONFIG, params, batch, delta, keys),
    **tolerance["same"],
  )


def pack(batch, rows_per_pack=2):
  """Lay unpadded examples end to end, each with its virtual tokens."""
  out = {k: [] for k in batch}
  out |= {"encoder_segment_ids": [], "decoder_segment_ids": []}
  encoder = np.asarray(batch["encoder_input_tokens"])
  inputs = np.asarray(batch["decoder_input_tokens"])
  targets = np.asarray(batch["decoder_target_tokens"])
  for start in range(0, len(encoder), rows_per_pack):
    parts = {k: [] for k in out}
    for segment, row in enumerate(range(start, start + rows_per_pack), 1):
      e, d = np.sum(encoder[row] > 0), np.sum(targets[row] > 0)
      parts["encoder_input_tokens"].append(encoder[row, :e])
      parts["decoder_input_tokens"].append(inputs[row, :d])
      parts["decoder_target_tokens"].append(targets[row, :d])
      parts["encoder_segment_ids"].append(np.full(e, segment))
      parts["decoder_segment_ids"].append(np.full(d, segment))
    for name, pieces in parts.items():
      flat = np.concatenate(pieces)
      size = 26 if name.startswith("encoder") else 14
      out[name].append(np.pad(flat, (0, size - len(flat))))
  return {k: jnp.asarray(np.stack(v), jnp.int32) for k, v in out.items()}


def test_packed_loss_and_gradient_equal_unpacked(params, delta, tolerance):
  batch = make_batch()
  assert_trees_close(
    loss_and_gradient(CONFIG, params, pack(batch), delta),
    loss_and_gradient(CONFIG, params, batch, delta),
    **tolerance["same"],
  )


def test_dropout_of_a_row_does_not_depend_on_the_batch(
  params, delta, tolerance
):
  keys = jax.random.split(jax.random.key(3), 4)
  batch = make_batch()
  apply = _apply()
  together = apply({"params": params}, batch, delta, keys)
  for row in (0, 3):
    one = jax.tree.map(lambda a, row=row: a[row : row + 1], batch)
    alone = apply({"params": params}, one, delta, keys[row : row + 1])
    np.testing.assert_allclose(together[row], alone[0], **tolerance["same"])
  assert not np.allclose(together, apply({"params": params}, batch, delta))


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("rules", ["STANDARD_RULES", "FULLY_SHARDED_RULES"])
def test_eight_devices_equal_one(rules, scan, params, delta, tolerance):
  """2 data x 4 model, with T5X's axis rules, weights really split."""
  mesh = axes.make_mesh(data=2, model=4)
  rules = getattr(axes, rules)
  config = _with(scan_layers=scan)
  if scan:
    params = stacked(params)
  shardings = jax.tree.map(
    lambda names: axes.sharding(mesh, names, rules),
    network.logical_axes(config),
    is_leaf=lambda x: isinstance(x, tuple),
  )
  split = jax.device_put(params, shardings)
  wi = tree.flatten(split)[
    "encoder/layers/mlp/wi_0/kernel"
    if scan
    else "encoder/layers_0/mlp/wi_0/kernel"
  ]
  shard = wi.addressable_shards[0].data.shape
  assert shard[-1] == 64 // 4
  by_row = axes.sharding(mesh, ("batch", None), rules)
  batch = make_batch()
  placed = jax.device_put(batch, by_row)
  one = loss_and_gradient(config, params, batch, delta)
  many = loss_and_gradient(config, split, placed, delta)
  assert_trees_close(many, one, **tolerance["same"])


def test_score_is_the_summed_log_likelihood(tolerance):
  logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]]))
  np.testing.assert_allclose(
    network.score(logits, jnp.array([[1, 2]])),
    [np.log(0.25) + np.log(0.7)],
    **tolerance["arithmetic"],
  )
  np.testing.assert_allclose(
    network.score(logits, jnp.array([[2, 0]])),
    [np.log(0.25)],
    **tolerance["arithmetic"],
  )


def test_abstract_params_allocate_nothing_and_match_init():
  abstract = network.abstract_params(CONFIG)
  params = network.init_params(CONFIG, jax.random.key(0))
  shapes = functools.partial(jax.tree.map, lambda a: (a.shape, a.dtype))
  assert shapes(abstract) == shapes(params)
  assert all(
    isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(abstract)
  )


def test_unrolled_layers_share_one_trace(monkeypatch):
  """One layer of each stack is traced, however many there are."""
  calls = []
  hidden = sites.hidden

  def count(*args):
    calls.append(1)
    return hidden(*args)

  # Sizes of no other test: what was traced before would not be traced again.
  config = T5Config(
    vocab_size=101,
    emb_dim=20,
    num_heads=2,
    head_dim=6,
    mlp_dim=28,
    num_encoder_layers=5,
    num_decoder_layers=4,
    dropout_rate=0.1,
  )
  params = network.abstract_params(config)
  ids = jax.ShapeDtypeStruct((2, 7), jnp.int32)
  batch = {
    "encoder_input_tokens": ids,
    "decoder_input_tokens": ids,
    "decoder_target_tokens": ids,
  }
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
  monkeypatch.setattr(sites, "hidden", count)
  jax.eval_shape(
    lambda p, b, k: network.T5(config).apply({"params": p}, b, None, k),
    params,
    batch,
    keys,
  )
  assert len(calls) == 2
