"""The frozen model: shapes from gin, weights from a checkpoint."""

import dataclasses
import re
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from prompt_tuning.checkpoints import fingerprint, hf_config, restore
from prompt_tuning.checkpoints.source import Checkpoint
from prompt_tuning.core import axes, tree
from prompt_tuning.core.types import Array, Params
from prompt_tuning.models.t5 import network, quantized
from prompt_tuning.models.t5.config import T5Config

# Prompts that a T5X checkpoint may hold beside the model.
_PROMPTS = r"(encoder|decoder)/prompt/.*"
_RELPOS = "relpos_bias/rel_embedding"

# Bytes of attention logits that stay in a CPU's cache. With more, each pass
# over them (and the page faults of new memory) costs more than the products.
_CPU_ATTENTION_BYTES = 8 << 20


class Backbone(NamedTuple):
  """A restored model.

  Attributes:
    config: its configuration.
    params: its parameters.
    step: training step of the checkpoint; None if it does not say.
    fingerprint: tells it from other models.
    weights_dtype: dtype of the weights; with `int8` and `int4`, only kernels
      and embeddings have it, and the rest is float32.
    base_model: name that transformers loads it by; None if it cannot.
  """

  config: T5Config
  params: Params
  step: int | None
  fingerprint: str
  weights_dtype: str = "float32"
  base_model: str | None = None


def load(
  path: str | Checkpoint,
  config: T5Config,
  mesh: Mesh | None,
  rules: axes.AxisRules,
  dtype: str,
) -> Backbone:
  """Restore a model straight into its dtype and sharding.

  Args:
    path: checkpoint of any known format, or an open one; a prompt in it is left
      out.
    config: of the model.
    mesh: None for one device.
    rules: logical axis -> mesh axis.
    dtype: of the weights; for `int8` and `int4`, each leaf is quantised as it
      is read. The fingerprint does not depend on it.

  Returns:
    The model.

  Raises:
    CheckpointError: no checkpoint, a damaged one, or one of another model.
    ValueError: the mesh cannot split the model, or an unknown dtype.
  """
  checkpoint = path
  if not isinstance(checkpoint, Checkpoint):
    checkpoint = restore.open_checkpoint(checkpoint, whole=False)
  target = _target(config, mesh, rules, dtype)
  quantize = quantized.quantizer(quantized.target(target, dtype), dtype)
  samples: dict[str, bytes] = {}

  def convert(name: str, leaf: Array) -> dict[str, Array]:
    samples.update(fingerprint.samples(name, leaf))
    return quantize(name, leaf)

  ignore = _ignored(checkpoint)
  params = restore.restore(checkpoint, target, ignore=ignore, convert=convert)
  name = fingerprint.of_samples(samples)
  suited = for_machine(config, mesh)
  base_model = hf_config.base_model(checkpoint.config, checkpoint.path)
  return Backbone(suited, params, checkpoint.step, name, dtype, base_model)


def check(
  checkpoint: Checkpoint,
  config: T5Config,
  mesh: Mesh | None,
  rules: axes.AxisRules,
  dtype: str,
) -> None:
  """Find what is wrong with a checkpoint before anything large is read.

  Args:
    checkpoint: an open checkpoint.
    config: see `load`.
    mesh: see `load`.
    rules: see `load`.
    dtype: see `load`.

  Raises:
    CheckpointError: it is of another model, or its leaves cannot be opened.
    ValueError: the mesh cannot split the model, or an unknown dtype.
  """
  target = _target(config, mesh, rules, dtype)
  restore.check(checkpoint, target, _ignored(checkpoint))


def _target(
  config: T5Config, mesh: Mesh | None, rules: axes.AxisRules, dtype: str
) -> Params:
  """Say on which devices every parameter is read, before it is quantised."""
  return axes.restore_target(
    network.abstract_params(config),
    network.logical_axes(config),
    mesh,
    rules,
    quantized.float_dtype(dtype),
  )


def _ignored(checkpoint: Checkpoint) -> list[str]:
  """Leave out the prompt of a tuned T5X model, if there is one."""
  has_prompt = any(re.fullmatch(_PROMPTS, name) for name in checkpoint.params)
  return [_PROMPTS] if has_prompt else []


def fresh(
  config: T5Config,
  mesh: Mesh | None,
  rules: axes.AxisRules,
  seed: int,
  relpos_scale: float = 1.0,
) -> Backbone:
  """Draw a random model, to pre-train.

  Args:
    config: of the model.
    mesh: None for one device.
    rules: logical axis -> mesh axis.
    seed: of the weights.
    relpos_scale: multiplies the relative position biases of T5's
      initialisation.

  Returns:
    The model, at step 0.

  Raises:
    ValueError: the mesh cannot split the model.
  """
  target = axes.restore_target(
    network.abstract_params(config),
    network.logical_axes(config),
    mesh,
    rules,
    config.param_dtype,
  )
  shardings = None
  if mesh is not None:
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)

  def draw(key: Array) -> Params:
    flat = tree.flatten(network.init_params(config, key))
    scales = {p: relpos_scale for p in flat if p.endswith(_RELPOS)}
    return tree.unflatten({p: a * scales.get(p, 1.0) for p, a in flat.items()})

  params = jax.jit(draw, out_shardings=shardings)(jax.random.key(seed))
  dtype = np.dtype(config.param_dtype).name
  name = fingerprint.fingerprint(params)
  return Backbone(for_machine(config, mesh), params, 0, name, dtype)


def for_machine(config: T5Config, mesh: Mesh | None) -> T5Config:
  """Let rows take turns in attention if one CPU computes it.

  Args:
    config: of the model.
    mesh: None for one device.

  Returns:
    The `config` of a restored model.
  """
  one_device = mesh is None or mesh.size == 1
  if config.attention_bytes or not one_device or jax.default_backend() != "cpu":
    return config
  return dataclasses.replace(config, attention_bytes=_CPU_ATTENTION_BYTES)
