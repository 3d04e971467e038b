"""Adapters (Houlsby et al. 2019): small MLPs inside the frozen model."""

from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.core.delta import SUBLAYER_SITES, Bottleneck, Delta
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Array
from prompt_tuning.tuners import controls, norms, parameters, settings
from prompt_tuning.tuners.method import Inputs, Method, Recipe
from prompt_tuning.tuners.parameters import Parameter

_SMALL = nn.initializers.truncated_normal(1e-2)
_ZEROS, _ONES = nn.initializers.zeros, nn.initializers.ones
_SITES = ("enc_self", "enc_mlp", "dec_self", "dec_mlp")


class AdapterTuning(Method):
  """y + factor x (gelu(y down + bias) up + bias), y the output of a sublayer.

  Parameters: `<site>/down` [L, H, R], `down_bias` [L, R], `up` [L, R, H] and
  `up_bias` [L, H], so 2 H R + R + H numbers for a sublayer; with `normed`,
  `norm_scale` and `norm_bias` [L, H]; with `norms`, those of `NormTuning`;
  float32.

  Attributes:
    shape: sizes of the model.
    width: R, numbers inside an adapter.
    sites: sublayers that get an adapter: any of `enc_self`, `enc_mlp`,
      `dec_self`, `cross`, `dec_mlp`.
    parallel: whether it reads the sublayer's input in place of its output.
    factor: multiplies what it adds; He et al. use 4 for parallel adapters.
    normed: whether a LayerNorm follows `up`, as in HyperFormer's adapters. Then
      `up` starts at small numbers and not at zero, so that the model differs
      slightly from the frozen one at the start.
    norms: whether the factors of T5's own norms train, too.

  Source: Houlsby et al. 2019, section 2, which also trains norms; `normed`:
  Karimi Mahabadi et al. 2021, equation 1; `parallel`, `factor` and adapters of
  MLPs only: He et al. 2022, section 4.6. Deviations: `up` starts at exactly
  zero, so that training starts at the frozen model; all adapters use GELU.
  """

  title: ClassVar[str] = "adapter tuning"
  noun: ClassVar[str] = "adapters"
  from_model: ClassVar[tuple[str, ...]] = ("shape",)
  recipe: ClassVar[Recipe] = Recipe(
    learning_rate=3e-3, optimizer="adamw", settings={"weight_decay": 0.0}
  )

  shape: ModelShape = ModelShape()
  width: int = 64
  sites: Sequence[str] = _SITES
  parallel: bool = False
  factor: float = 1.0
  normed: bool = False
  norms: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.positive_integer("ADAPTER_WIDTH", self.width)
    settings.among("ADAPTER_SITES", self.sites, SUBLAYER_SITES)
    settings.positive("ADAPTER_FACTOR", self.factor)
    settings.boolean("tuners.AdapterTuning.parallel", self.parallel)
    settings.boolean("ADAPTER_NORMED", self.normed)
    settings.boolean("ADAPTER_NORMS", self.norms)

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the adapters, see `Method`."""
    del inputs
    described = {
      f"{site}/{name}": parameters.per_layer(self.shape, site, *how)
      for site in self.sites
      for name, how in self._arrays().items()
    }
    if self.norms:
      described |= norms.offsets(self.shape)
    made = parameters.declare(self, described)
    return Delta(
      bottleneck={site: self._adapter(site, made) for site in self.sites},
      norm=norms.factors(made) if self.norms else {},
    )

  @nn.nowrap
  def _arrays(self) -> dict[str, Parameter]:
    """Describe the arrays of one layer."""
    size, rank = self.shape.emb_dim, self.width
    up_init = _SMALL if self.normed else _ZEROS
    arrays = {
      "down": Parameter(_SMALL, (size, rank), ("embed", None)),
      "down_bias": Parameter(_ZEROS, (rank,), (None,)),
      "up": Parameter(up_init, (rank, size), (None, "embed")),
      "up_bias": Parameter(_ZEROS, (size,), ("embed",)),
    }
    if self.normed:
      arrays["norm_scale"] = Parameter(_ONES, (size,), ("embed",))
      arrays["norm_bias"] = Parameter(_ZEROS, (size,), ("embed",))
    return arrays

  @nn.nowrap
  def _adapter(self, site: str, made: dict[str, Array]) -> Bottleneck:
    arrays = {name: made[f"{site}/{name}"] for name in self._arrays()}
    last = ("norm_scale", "norm_bias") if self.normed else ("up", "up_bias")
    for name in last:  # the factor belongs to what is added
      arrays[name] = self.factor * arrays[name]
    if self.parallel:
      layers = self.shape.num_layers(site)
      return Bottleneck(**arrays, parallel=jnp.ones(layers, bool))
    return Bottleneck(**arrays)

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw adapters whose arrays have the same norms in every layer."""
    return controls.of_same_norms(delta, key)
