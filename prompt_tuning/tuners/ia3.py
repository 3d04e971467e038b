"""(IA)3 (Liu et al. 2022): factors on keys, values and MLPs."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from prompt_tuning.core.adapter import Adapter, by_layer
from prompt_tuning.core.delta import ATTENTION_SITES, MLP_SITES, Delta
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Array
from prompt_tuning.tuners import controls, parameters
from prompt_tuning.tuners.method import Inputs, Method, Recipe

# Site -> logical axis of its features.
SITES = {f"{site}/key": "joined_kv" for site in ATTENTION_SITES}
SITES |= {f"{site}/value": "joined_kv" for site in ATTENTION_SITES}
SITES |= {f"{site}/hidden": "mlp" for site in MLP_SITES}
_NAME = "ia3_l"


class IA3(Method):
  """Learned factors on keys, values and the input of an MLP's `wo`.

  Parameters: `<attention>/key` and `value` [L, N D], `<mlp>/hidden` [L, F],
  float32. They hold the factors minus one, so that training starts at the
  frozen model and weight decay pulls back to it.

  Attributes:
    shape: sizes of the model.

  Source: Liu et al. 2022, section 3.3; at every attention, as in their code.
  T-Few's losses and pre-training are not included.
  """

  title: ClassVar[str] = "(IA)3"
  noun: ClassVar[str] = "factors"
  from_model: ClassVar[tuple[str, ...]] = ("shape",)
  recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-2)
  peft_types: ClassVar[tuple[str, ...]] = ("IA3",)

  shape: ModelShape = ModelShape()

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the factors, see `Method`."""
    del inputs
    shape, zeros = self.shape, nn.initializers.zeros
    sizes = {"joined_kv": shape.num_heads * shape.head_dim}
    sizes["mlp"] = shape.mlp_dim
    offsets = {
      site: parameters.per_layer(shape, site, zeros, (sizes[axis],), (axis,))
      for site, axis in SITES.items()
    }
    made = parameters.declare(self, offsets)
    return Delta(scale={site: 1 + made[site] for site in SITES})

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw factors at the same distance from one in every layer."""
    return controls.of_same_norms(delta, key)

  @nn.nowrap
  def to_peft(self, delta: Delta) -> Adapter:
    """Write PEFT's IA3, see `Method`; its feedforward is the input of `wo`."""
    kernels: dict[tuple[str, int, str], np.ndarray] = {}
    read_by = {site: site.replace("hidden", "wo") for site in delta.scale}
    for site, (factors,) in delta.scale.items():
      into = read_by[site] != site
      columns = factors[:, None] if into else factors[..., None]
      kernels |= by_layer(read_by[site], _NAME, columns)
    inward = [name for site, name in read_by.items() if name != site]
    config = {"peft_type": "IA3", "feedforward_modules": tuple(inward)}
    return Adapter(
      config | {"target_modules": tuple(read_by.values())}, {}, kernels
    )

  @classmethod
  def from_peft(
    cls, adapter: Adapter, model: ModelShape | None
  ) -> tuple["IA3", Delta]:
    """Read PEFT's IA3, for any modules, see `Method`."""
    adapter.insist(("feedforward_modules", "init_ia3_weights"))
    scale = {}
    for site, (factors,) in adapter.stacked((_NAME,), model, 1.0).items():
      into = factors.shape[1] == 1  # [1, inputs], or [outputs, 1]
      if into and not site.endswith("/wo"):
        raise ValueError(f"(IA)3 has no factor for the input of {site}.")
      scale[site.replace("/wo", "/hidden") if into else site] = jnp.asarray(
        factors.reshape(1, len(factors), -1)
      )
    return cls(model or ModelShape()), Delta(scale=scale)
