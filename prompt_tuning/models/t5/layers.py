"""The parts of T5 other than attention: kernels, embedding, norms, MLP.

Arithmetic follows T5 1.1 as T5X runs it: pre-norm with scale-only RMSNorm, no
biases, tanh-GELU gated MLP. Parameter names, shapes and logical axes are T5X's,
so that its checkpoints load without renaming.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from prompt_tuning.core.axes import LOOKED_UP, LogicalAxes
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.types import Array, Shape
from prompt_tuning.models.t5 import quantized, sites
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.models.t5.dropout import dropout

NORM_EPSILON = 1e-6
_GELU_LINEAR = 2 * math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715 * _GELU_LINEAR


def gelu(x: Array) -> Array:
  """Apply GELU in its tanh form, as in T5 1.1.

  (1 + tanh z) / 2 is the logistic function of 2 z, which needs fewer passes and
  does not lose digits for negative x. Source: Hendrycks and Gimpel, section 2.

  Args:
    x: floats.

  Returns:
    The shape and dtype of `x`.
  """
  return x * jax.nn.sigmoid(x * (_GELU_LINEAR + _GELU_CUBIC * x * x))


_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
  "gelu": gelu,
  "relu": jax.nn.relu,
  "silu": jax.nn.silu,
  "linear": lambda x: x,
}


def parameter(
  module: nn.Module,
  name: str,
  init: Any,
  shape: Shape,
  axes: LogicalAxes,
) -> Array:
  """Declare or fetch a parameter that carries its logical axis names.

  Args:
    module: module of the parameter; its `config.param_dtype` is used when
      initialising.
    name: T5X's name.
    init: initialiser.
    shape: shape.
    axes: one logical axis name per dimension.

  Returns:
    The array, in whatever dtype it was restored.
  """
  boxed = nn.with_logical_partitioning(init, axes)
  value: Any = module.param(name, boxed, shape, module.config.param_dtype)
  return value


class Dense(nn.Module):
  """A kernel without bias, with the low-rank and scale sites on its output.

  Attributes:
    inputs: number of inputs of the kernel.
    features: number of outputs.
    axes: logical axis names of the kernel.
    kernel_init: initialiser of the kernel.
    config: model configuration.
    site: name of this kernel in `Delta.lowrank` and `Delta.scale`.
  """

  inputs: int
  features: int
  axes: tuple[str, str]
  kernel_init: Any
  config: T5Config
  site: str = ""

  def setup(self) -> None:
    """Declare the kernel, [inputs, features]."""
    shape = (self.inputs, self.features)
    self.kernel = parameter(self, "kernel", self.kernel_init, shape, self.axes)

  def __call__(
    self, x: Array, delta: Delta, run_ids: Array | None = None
  ) -> Array:
    """Map [B, T, inputs] to [B, T, features]."""
    scale = quantized.scale_of(self, "kernel")
    y = quantized.matmul(x, self.kernel, scale)
    y = sites.low_rank(y, x, delta.lowrank.get(self.site), run_ids)
    return sites.scale(y, delta.scale.get(self.site), run_ids)

  def untouched(self, delta: Delta) -> bool:
    """Whether the output is only the product with the kernel."""
    return self.site not in delta.lowrank and self.site not in delta.scale

  def contract(self, equation: str, x: Array, shape: Shape) -> Array:
    """Contract x with the kernel in `shape`; see `quantized.einsum`."""
    scale = quantized.scale_of(self, "kernel")
    return quantized.einsum(equation, x, self.kernel, scale, shape)


class TokenEmbedder(nn.Module):
  """The shared embedding table.

  Attributes:
    config: model configuration.
  """

  config: T5Config

  def setup(self) -> None:
    """Declare the table, [V, H]."""
    config = self.config
    self.embedding = parameter(
      self,
      "embedding",
      nn.initializers.normal(1.0),
      (config.vocab_size, config.emb_dim),
      ("vocab", "embed"),
    )
    self.scale = quantized.scale_of(self, "embedding")

  def __call__(
    self, ids: Array, virtual: Array | None, run_ids: Array | None
  ) -> Array:
    """Look up [B, T] ids, virtual ones included; see `sites.embed`."""
    dtype = self.config.dtype
    x = sites.embed(self.embedding, ids, virtual, run_ids, dtype, self.scale)
    if LOOKED_UP in dict(nn.get_logical_axis_rules()):
      # Without this constraint, XLA sends all rows to all slices.
      x = nn.with_logical_constraint(x, (LOOKED_UP, "length", "embed"))
    return x

  def attend(self, x: Array) -> Array:
    """Compute the tied head's float32 logits, scaled by 1/sqrt(H)."""
    scale = None if self.scale is None else self.scale.T
    logits = quantized.matmul(x.astype(jnp.float32), self.embedding.T, scale)
    return logits / np.float32(np.sqrt(x.shape[-1]))


class RMSNorm(nn.Module):
  """T5's layer norm: scale only, no mean, no bias, computed in float32.

  Attributes:
    config: model configuration.
  """

  config: T5Config

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Normalise the last axis of [B, T, H]."""
    ones = nn.initializers.ones
    scale = parameter(self, "scale", ones, x.shape[-1:], ("embed",))
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    y = (x32 * jax.lax.rsqrt(mean_square + NORM_EPSILON)).astype(x.dtype)
    return y * scale.astype(x.dtype)[None, None]


class MLP(nn.Module):
  """The feed-forward block: product of activated kernels, then `wo`.

  Attributes:
    config: model configuration.
    site: `enc_mlp` or `dec_mlp`.
  """

  config: T5Config
  site: str

  @nn.compact
  def __call__(
    self,
    x: Array,
    delta: Delta,
    run_ids: Array | None,
    keep: Array | None,
  ) -> Array:
    """Map [B, T, H] to [B, T, H]; dropout keeps [B, 1, mlp_dim]."""
    config = self.config
    init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
    gated = len(config.mlp_activations) > 1
    inner: Any = None
    for i, activation in enumerate(config.mlp_activations):
      name = f"wi_{i}" if gated else "wi"
      y = Dense(
        config.emb_dim,
        config.mlp_dim,
        ("embed", "mlp"),
        init,
        config,
        f"{self.site}/{name}",
        name=name,
      )(x, delta, run_ids)
      y = _ACTIVATIONS[activation](y)
      inner = y if inner is None else inner * y
    inner = dropout(inner, config.dropout_rate, keep)
    inner = sites.scale(inner, delta.scale.get(f"{self.site}/hidden"), run_ids)
    y = Dense(
      config.mlp_dim,
      config.emb_dim,
      ("mlp", "embed"),
      init,
      config,
      f"{self.site}/wo",
      name="wo",
    )(inner, delta, run_ids)
    return sites.bottleneck(y, x, delta.bottleneck.get(self.site), run_ids)
