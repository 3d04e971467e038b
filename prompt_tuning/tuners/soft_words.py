"""Soft words (Qin and Eisner 2021): a mixture of prompts in every layer."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import meta

from prompt_tuning.core.delta import Delta, Hidden
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Array, Shape
from prompt_tuning.tuners import controls, settings
from prompt_tuning.tuners.initializers import (
  Initializer,
  InitializerContext,
  SampledVocabulary,
)
from prompt_tuning.tuners.method import Inputs, Method, Recipe
from prompt_tuning.tuners.prompt import Prompt

EM, GRADIENT = "em", "gradient"
AXES = (None, "layers", "prompt", "prompt_embed")


class SoftWords(Method):
  """A mixture of the answers of several prompts in front of the text.

  A prompt's vectors start as words. Offsets are added to them at the input of
  every layer of the encoder. Parameters, float32: `prompts` [M, L, P, H] and
  `weights` [M]. For the first layer, `prompts` holds words plus offsets; for
  the others it holds only offsets, which start at zero. `weights` start equal.

  Attributes:
    shape: sizes of the model.
    length: vectors of a prompt (P).
    mixture: number of prompts (M).
    weighting: with `em`, `weights` are the weights of the mixture, and a step
      of size r moves them by r towards the mean responsibilities of its batch.
      With `gradient`, the weights of the mixture are the softmax of `weights`.
    prompt_init: the words as which prompts start: one initialiser that draws
      each, or one per prompt.

  Source: the paper and its code, where a masked model answers with one token.
  Deviations: the prompts stand in front of the text, not around its blanks; EM
  runs batch by batch. If an optimizer has weight decay, it pulls the sum of a
  word and its offset to zero.
  """

  title: ClassVar[str] = "soft words"
  noun: ClassVar[str] = "prompts"
  from_model: ClassVar[tuple[str, ...]] = ("shape",)
  recipe: ClassVar[Recipe] = dataclasses.replace(
    Prompt.recipe,
    settings={"multiply_by_parameter_scale": False, "weight_decay": None},
    by_path={"tuner/weights": Recipe(0.05, "sgd")},
    objective="mixture",
  )

  shape: ModelShape = ModelShape()
  length: int = 5
  mixture: int = 3
  weighting: str = EM
  prompt_init: Initializer | Sequence[Initializer] = SampledVocabulary()

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.positive_integer("SOFT_WORDS_LENGTH", self.length)
    settings.among("SOFT_WORDS_WEIGHTING", [self.weighting], (EM, GRADIENT))
    if type(self.mixture) is not int or self.mixture < 2:
      raise ValueError(
        f"SOFT_WORDS_MIXTURE is {self.mixture!r}; expected at least 2 prompts. "
        "One alone is tuners.DeepPrompt with replace = False."
      )
    inits = self.prompt_init
    if isinstance(inits, Sequence) and len(inits) != self.mixture:
      raise ValueError(
        f"Soft words have {len(inits)} initialisers for {self.mixture} prompts "
        "(SOFT_WORDS_MIXTURE); expected one, or one for each."
      )

  @property
  def components(self) -> int:
    """Number of prompts."""
    return self.mixture

  @property
  def placement(self) -> Placement:
    """In front of the text."""
    return Placement(encoder_prefix=tuple(range(self.length)))

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return one prompt and its share, see `Method`."""
    layers = self.shape.num_encoder_layers
    size = (self.mixture, layers, self.length, self.shape.emb_dim)
    boxed = nn.with_logical_partitioning(self._initial, AXES)
    prompts = meta.unbox(self.param("prompts", boxed, size, inputs.context))
    first = 1 / self.mixture if self.weighting == EM else 0.0
    weights = self.param(
      "weights", nn.initializers.constant(first), (self.mixture,), jnp.float32
    )
    shares = em_log if self.weighting == EM else jax.nn.log_softmax
    number = inputs.number(self.mixture)
    own = prompts[number]
    values = jnp.pad(own[1:], ((1, 0), (0, 0), (0, 0)))
    return Delta(
      virtual=own[0],
      hidden={"encoder": Hidden(values, jnp.zeros(values.shape[:2], bool))},
      log_weight=shares(weights)[number],
    )

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw vectors of the same norms in every layer; weights do not change."""
    drawn = controls.of_same_norms(
      dataclasses.replace(delta, log_weight=None), key
    )
    return dataclasses.replace(drawn, log_weight=delta.log_weight)

  @nn.nowrap
  def _initial(
    self, key: Array, size: Shape, context: InitializerContext
  ) -> Array:
    if not self.is_initializing():  # flax asks for the shape only
      return jnp.zeros(size, jnp.float32)
    count, _, *one = size
    inits = self.prompt_init
    if not isinstance(inits, Sequence):
      inits = [inits] * count
    words = [
      init(own, tuple(one), jnp.float32, context)
      for init, own in zip(inits, jax.random.split(key, count), strict=True)
    ]
    return jnp.zeros(size, jnp.float32).at[:, 0].set(jnp.stack(words))


@jax.custom_vjp
def em_log(weights: Array) -> Array:
  """Take logarithms; the gradient is changed so that a step is one of EM.

  Let -r_m be the derivative by log w_m, summed over n examples. Then the
  gradient by w_m is n w_m - r_m. So a step of size 1 / n replaces the weights
  by the mean responsibilities, which is the M step of EM. A shorter step goes a
  part of the way.

  Args:
    weights: [M], which add up to 1.

  Returns:
    [M]; minus infinity for weights that are not positive.
  """
  return jnp.log(jnp.maximum(weights, 0))


def _forward(weights: Array) -> tuple[Array, Array]:
  return em_log(weights), weights


def _backward(weights: Array, cotangent: Array) -> tuple[Array]:
  return (cotangent - cotangent.sum() * weights,)


em_log.defvjp(_forward, _backward)
