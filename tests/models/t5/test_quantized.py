"""Quantised weights: rounding, the model that uses them, gradients, places."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.core import axes, partition, tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.models.t5 import network, quantized
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.models.t5.layers import Dense

CONFIG = T5Config(
  vocab_size=96,
  emb_dim=64,
  num_heads=4,
  head_dim=16,
  mlp_dim=128,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
P = 3
ZEROS = jax.nn.initializers.zeros
NAMES = tuple(quantized.SCHEMES)


def _quantised(params, dtype, like=None):
  """Quantise a whole tree, as restoring does leaf by leaf."""
  like = params if like is None else like
  convert = quantized.quantizer(quantized.target(like, dtype), dtype)
  found = {}
  for path, leaf in tree.flatten(params).items():
    found |= convert(path, leaf)
  return tree.unflatten(found)


def _described(params):
  return jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
    params,
  )


def _floats(params):
  """The float model that a quantised one stands for, in numpy."""
  flat = {p: np.asarray(a, np.float32) for p, a in tree.flatten(params).items()}
  for path in [p for p in flat if p.endswith(quantized.SUFFIX)]:
    name, scale = path.removesuffix(quantized.SUFFIX), flat.pop(path)
    axis = 1 if name.endswith("embedding") else flat[name].ndim - 2
    repeats = flat[name].shape[axis] // scale.shape[axis]
    flat[name] = flat[name] * np.repeat(scale, repeats, axis)
  return tree.unflatten({p: jnp.asarray(a) for p, a in flat.items()})


def _batch(rows=4):
  rng = np.random.default_rng(0)
  encoder = rng.integers(2, CONFIG.vocab_size, (rows, 10))
  encoder[:, :P] = CONFIG.vocab_size + np.arange(P)
  targets = jnp.asarray(rng.integers(2, CONFIG.vocab_size, (rows, 5)))
  return {
    "encoder_input_tokens": jnp.asarray(encoder),
    "decoder_input_tokens": network.shift_right(targets),
    "decoder_target_tokens": targets,
  }


def _logits_and_gradient(config, params, batch):
  virtual = jax.random.normal(jax.random.key(2), (1, P, config.emb_dim))

  @jax.jit
  def both(virtual, params, batch):
    def loss(virtual):
      delta = Delta(virtual=virtual)
      logits = network.T5(config).apply({"params": params}, batch, delta)
      scores = network.score(logits, batch["decoder_target_tokens"])
      return -jnp.sum(scores), logits

    return jax.grad(loss, has_aux=True)(virtual)

  gradient, logits = both(virtual, params, batch)
  return np.asarray(logits), np.asarray(gradient)


@pytest.fixture(scope="module")
def params(random_params):
  return random_params(CONFIG)


@given(
  st.sampled_from(NAMES), st.integers(0, 9), st.sampled_from([24, 64, 96, 37])
)
def test_rounding_is_at_most_half_a_step_of_its_group(name, seed, inputs):
  chosen = quantized.SCHEMES[name]
  rng = np.random.default_rng(seed)
  kernel = rng.normal(size=(inputs, 5)) * 10.0 ** rng.integers(-3, 3, (1, 5))
  kernel[:, 0] = 0
  values, scale = quantized.quantize(
    jnp.asarray(kernel, jnp.float32), chosen, -2
  )
  assert values.dtype == chosen.dtype
  assert int(jnp.max(jnp.abs(values.astype(jnp.int32)))) <= chosen.largest
  groups = scale.shape[0]
  assert inputs // groups <= (chosen.group or inputs)
  parts = kernel.reshape(groups, -1, 5)
  steps = np.abs(parts).max(1, keepdims=True) / chosen.largest
  given_back = quantized.dequantize(values, scale, jnp.float32)
  error = np.abs(np.asarray(given_back).reshape(parts.shape) - parts)
  assert np.all(error <= steps * (0.5 + 1e-4))
  assert np.all(np.asarray(given_back)[:, 0] == 0)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_that_of_the_rounded_floats(
  name, tied, random_params, tolerance
):
  config = dataclasses.replace(CONFIG, logits_via_embedding=tied)
  rounded = _quantised(random_params(config), name)
  expected = _logits_and_gradient(config, _floats(rounded), _batch())
  found = _logits_and_gradient(config, rounded, _batch())
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, **tolerance["parity"])


def _noisy(params, rounded, seed):
  """Add what rounding at random would: uniform, half a step to either side."""
  rng = np.random.default_rng(seed)
  scales = tree.flatten(rounded)
  noisy = {}
  for path, leaf in tree.flatten(params).items():
    scale = scales.get(path + quantized.SUFFIX)
    noisy[path] = leaf
    if scale is not None:
      axis = 1 if path.endswith("embedding") else leaf.ndim - 2
      repeats = leaf.shape[axis] // scale.shape[axis]
      steps = np.repeat(np.asarray(scale), repeats, axis)
      noise = rng.uniform(-0.5, 0.5, leaf.shape).astype(np.float32)
      noisy[path] = leaf + jnp.asarray(steps * noise)
  return tree.unflatten(noisy)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_that_of_uniform_noise_of_half_a_step(name, params):
  """Anything systematic (a bias, a clipped channel) would be larger."""
  exact = _logits_and_gradient(CONFIG, params, _batch())
  rounded = _quantised(params, name)
  found = _logits_and_gradient(CONFIG, rounded, _batch())
  noise = [
    _logits_and_gradient(CONFIG, _noisy(params, rounded, seed), _batch())
    for seed in range(4)
  ]
  for i in range(2):
    expected = np.mean([np.linalg.norm(n[i] - exact[i]) for n in noise])
    error = np.linalg.norm(found[i] - exact[i])
    assert 0.7 < error / expected < 1.4


@pytest.mark.parametrize("name", NAMES)
def test_scanned_layers_are_the_same_model(name, params, tolerance):
  stacked = dict(params)
  for stack in ("encoder", "decoder"):
    part = dict(params[stack])
    layers = [part.pop(f"layers_{i}") for i in range(2)]
    part["layers"] = jax.tree.map(lambda *a: jnp.stack(a), *layers)
    stacked[stack] = part
  scanned = dataclasses.replace(CONFIG, scan_layers=True)
  one = _logits_and_gradient(CONFIG, _quantised(params, name), _batch())
  other = _logits_and_gradient(scanned, _quantised(stacked, name), _batch())
  for a, b in zip(one, other, strict=True):
    np.testing.assert_allclose(a, b, **tolerance["parity"])


def test_backward_keeps_integers_not_floats(params):
  """Else the float copies of all scanned layers lie side by side."""
  config = dataclasses.replace(
    CONFIG,
    scan_layers=True,
    num_encoder_layers=12,
    mlp_dim=2048,
    remat_policy="none",
  )
  drawn = jax.eval_shape(lambda: network.init_params(config, jax.random.key(0)))
  described = quantized.target(drawn, "int8")
  virtual = jax.ShapeDtypeStruct((1, P, config.emb_dim), jnp.float32)

  def loss(virtual, params, batch):
    delta = Delta(virtual=virtual)
    logits = network.T5(config).apply({"params": params}, batch, delta)
    return jnp.sum(network.score(logits, batch["decoder_target_tokens"]))

  lowered = jax.jit(jax.grad(loss)).lower(virtual, described, _batch(1))
  temporaries = lowered.compile().memory_analysis().temp_size_in_bytes
  floats = 12 * 3 * 64 * 2048 * 4  # of the encoder's MLPs
  assert temporaries < floats * 2 / 3


@pytest.mark.parametrize(
  ("name", "share"), [("int8", 1 / 4), ("int4", 1 / 8 + 1 / 32)]
)
def test_bytes(name, share, tolerance):
  """4 bytes -> 1 and a scale per channel, or 1/2 and one per 32."""
  large = dataclasses.replace(
    CONFIG, vocab_size=4096, emb_dim=512, mlp_dim=1024, head_dim=128
  )
  floats = network.abstract_params(large)
  found = quantized.nbytes(quantized.target(floats, name))
  assert found / quantized.nbytes(floats) == pytest.approx(
    share, rel=tolerance["size"]["rtol"]
  )


def test_norms_and_positions_stay(params):
  flat = tree.flatten(_quantised(params, "int8"))
  for path, leaf in tree.flatten(params).items():
    if path.endswith(("norm/scale", "rel_embedding")):
      assert flat[path] is leaf
    else:
      assert flat[path].dtype == jnp.int8
      assert flat[path + quantized.SUFFIX].dtype == jnp.float32


@pytest.mark.parametrize("rules", ["STANDARD_RULES", "FULLY_SHARDED_RULES"])
@pytest.mark.parametrize("name", NAMES)
def test_eight_devices_equal_one(name, rules, params, tolerance):
  mesh, rules = axes.make_mesh(data=2, model=4), getattr(axes, rules)
  target = axes.restore_target(
    network.abstract_params(CONFIG),
    network.logical_axes(CONFIG),
    mesh,
    rules,
  )
  split = jax.tree.map(
    lambda a, t: jax.device_put(a, t.sharding), params, target
  )
  many = _quantised(split, name, target)
  one = _quantised(params, name)
  flat = tree.flatten(many)
  for path, struct in tree.flatten(quantized.target(target, name)).items():
    assert flat[path].sharding.is_equivalent_to(struct.sharding, struct.ndim)
    np.testing.assert_array_equal(
      np.asarray(flat[path]), np.asarray(tree.flatten(one)[path])
    )
  scale = flat["encoder/layers_0/mlp/wi_0/kernel_scale"]
  assert scale.addressable_shards[0].data.shape[-1] == 128 // 4
  placed = axes.batch_sharder(mesh, rules)(
    {k: np.asarray(v) for k, v in _batch().items()}
  )
  alone = _logits_and_gradient(CONFIG, one, _batch())
  together = _logits_and_gradient(CONFIG, many, placed)
  for a, b in zip(together, alone, strict=True):
    np.testing.assert_allclose(a, b, **tolerance["parity"])


def test_an_unknown_id_is_nan_in_a_quantised_table_too(params):
  batch = _batch(2)
  ids = batch["encoder_input_tokens"].at[0, 5].set(CONFIG.vocab_size + P)
  ids = ids.at[1, 5].set(-1)
  batch["encoder_input_tokens"] = ids
  logits, _ = _logits_and_gradient(CONFIG, _quantised(params, "int8"), batch)
  assert np.isnan(logits).all()


@pytest.mark.parametrize("name", [None, *NAMES])
def test_a_dense_contracts_its_kernel(name, params, tolerance):
  held = params if name is None else _quantised(params, name)
  part = held["encoder"]["layers_0"]["attention"]["key"]
  dense = Dense(64, 64, ("embed", "joined_kv"), ZEROS, CONFIG)
  x = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
  found = dense.apply(
    {"params": part}, "bh,hnd->nbd", x, (64, 4, 16), method=Dense.contract
  )
  kernel = _floats(held)["encoder"]["layers_0"]["attention"]["key"]["kernel"]
  expected = (x @ np.asarray(kernel)).reshape(2, 4, 16).swapaxes(0, 1)
  np.testing.assert_allclose(found, expected, **tolerance["parity"])


@pytest.mark.parametrize("name", NAMES)
def test_float16_does_not_overflow(name, tolerance):
  rng = np.random.default_rng(0)
  kernel = rng.normal(0.03, 0.05, (1024, 3)).astype(np.float32)
  values, scale = quantized.quantize(
    jnp.asarray(kernel), quantized.SCHEMES[name], -2
  )
  x = jnp.full((1, 1024), 5, jnp.float16)
  found = quantized.matmul(x, values, scale)
  assert found.dtype == jnp.float16
  rounded = quantized.dequantize(values, scale, jnp.float32)
  np.testing.assert_allclose(
    found, 5 * rounded.sum(0)[None], **tolerance["float16"]
  )


def test_a_tuned_leaf_takes_the_form_of_the_old_one(params, tolerance):
  flat = tree.flatten(_quantised(params, "int4"))
  path = "decoder/logits_dense/kernel"
  values = np.asarray(tree.flatten(params)[path]) * 2
  found = quantized.requantize(flat, path, values)
  np.testing.assert_array_equal(np.asarray(found[path]), np.asarray(flat[path]))
  np.testing.assert_allclose(
    found[path + quantized.SUFFIX],
    2 * np.asarray(flat[path + quantized.SUFFIX]),
    **tolerance["arithmetic"],
  )


def test_training_them_is_refused(params):
  held = {"model": _quantised(params, "int8")}

  def refuse(rules):
    leaves = partition.build(rules, held).leaves
    quantized.refuse_training(
      (a.path, a.dtype) for a in leaves if a.mode == partition.TRAIN
    )

  with pytest.raises(ValueError, match="RESTORE_DTYPE quantised"):
    refuse(partition.EVERYTHING)
  with pytest.raises(ValueError, match="kernel_scale"):
    refuse([(".*kernel_scale", "train"), (".*", "freeze")])
  refuse([(".*norm/scale", "train"), (".*", "freeze")])


@pytest.mark.parametrize("name", ["int3", "int16", "flaot32"])
def test_unknown_dtypes_are_errors(name):
  with pytest.raises(ValueError, match="expected 'float32', 'bfloat16'"):
    quantized.scheme(name)
