"""Norm tuning: factors on the scales of T5's own norms."""

from collections.abc import Mapping
from typing import ClassVar

from flax import linen as nn

from prompt_tuning.core.delta import STACKS, SUBLAYER_SITES, Delta
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Array
from prompt_tuning.tuners import controls, parameters
from prompt_tuning.tuners.method import Inputs, Method, Recipe
from prompt_tuning.tuners.parameters import Parameter

_ZEROS = nn.initializers.zeros


class NormTuning(Method):
  """Every norm's scale times a learned vector.

  Parameters: `norm/<sublayer>` [L, H], and `norm/encoder` and `norm/decoder`
  [1, H] for the norms after the stacks, float32. They hold the factors minus
  one, so that training starts at the frozen model and weight decay pulls back
  to it.

  Attributes:
    shape: sizes of the model.

  Source: the baseline of Houlsby et al. 2019, section 3.6; T5 has no biases.
  Deviation: the factor trains, not the scale itself.
  """

  title: ClassVar[str] = "norm tuning"
  noun: ClassVar[str] = "factors on norms"
  from_model: ClassVar[tuple[str, ...]] = ("shape",)
  recipe: ClassVar[Recipe] = Recipe(learning_rate=3e-2)

  shape: ModelShape = ModelShape()

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the factors, see `Method`."""
    del inputs
    return Delta(norm=factors(parameters.declare(self, offsets(self.shape))))

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw factors at the same distance from one in every layer."""
    return controls.of_same_norms(delta, key)


def offsets(shape: ModelShape) -> dict[str, Parameter]:
  """Describe the parameters of all norms' factors, see `NormTuning`."""
  size, axes = (shape.emb_dim,), ("embed",)
  described = {
    f"norm/{site}": parameters.per_layer(shape, site, _ZEROS, size, axes)
    for site in SUBLAYER_SITES
  }
  last = Parameter(_ZEROS, (1, *size), (None, *axes))
  return described | {f"norm/{stack}": last for stack in STACKS}


def factors(declared: Mapping[str, Array]) -> dict[str, Array]:
  """Make `Delta.norm` from the parameters that `offsets` describes."""
  names = (*SUBLAYER_SITES, *STACKS)
  return {site: 1 + declared[f"norm/{site}"] for site in names}
