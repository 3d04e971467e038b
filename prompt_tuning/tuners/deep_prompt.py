"""Deep prompts: virtual tokens with separate vectors in every layer."""

from collections.abc import Iterator
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

AXES = ("layers", "prompt", "prompt_embed")


class DeepPrompt(Method):
  """A prompt in front of the text, and vectors at its positions in every layer.

  Parameters: `encoder` and `decoder` [L, P, H], float32. Those of the first
  layer are the virtual tokens. The others replace the output of the layer below
  at these positions, or are added to it.

  Attributes:
    shape: sizes of the model.
    encoder_length: vectors in front of the encoder's text.
    decoder_length: vectors in front of the decoder's start token.
    replace: True replaces a layer's input, False adds to it.
    prompt_init: initial values of the virtual tokens, and of every layer that
      replaces; vectors that are added start at zero.

  Source: P-tuning v2 (Liu et al. 2022) calls `replace` deep prompt tuning; its
  code has keys and values, which are `PrefixTuning` here. The per-layer prompts
  of prompt-tuning can replace or add; adding is the perturbation of Qin and
  Eisner (2021).
  """

  title: ClassVar[str] = "deep prompts"
  noun: ClassVar[str] = "prompts"
  from_model: ClassVar[tuple[str, ...]] = ("shape",)
  recipe: ClassVar[Recipe] = Prompt.recipe

  shape: ModelShape = ModelShape()
  encoder_length: int = 10
  decoder_length: int = 0
  replace: bool = True
  prompt_init: Initializer = SampledVocabulary()

  def __post_init__(self) -> None:
    super().__post_init__()
    lengths = (self.encoder_length, self.decoder_length)
    if any(type(n) is not int or n < 0 for n in lengths) or not any(lengths):
      raise ValueError(
        "DEEP_PROMPT_LENGTH and DEEP_DECODER_LENGTH are numbers of vectors; "
        f"expected one of them above 0, got {lengths[0]!r} and {lengths[1]!r}."
      )
    settings.boolean("DEEP_PROMPT_REPLACE", self.replace)

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return virtual tokens and what layers do at them, see `Method`."""
    virtual, hidden = [], {}
    for stack, first, length in self._stacks():
      size = (self.shape.num_layers(stack), length, self.shape.emb_dim)
      boxed = nn.with_logical_partitioning(self._initial, AXES)
      made = meta.unbox(self.param(stack, boxed, size, inputs.context))
      virtual.append(made[0])
      # Vectors of the layers begin after the first layer, at the tokens of this
      # stack.
      values = jnp.pad(made[1:], ((1, 0), (first, 0), (0, 0)))
      replace = jnp.zeros(values.shape[:2], bool)
      if self.replace:
        replace = replace.at[1:, first:].set(True)
      hidden[stack] = Hidden(values, replace)
    return Delta(virtual=jnp.concatenate(virtual), hidden=hidden)

  @property
  def placement(self) -> Placement:
    """In front of each stack's text."""
    places = {s: tuple(range(a, a + n)) for s, a, n in self._stacks()}
    return Placement(
      encoder_prefix=places.get("encoder", ()),
      decoder_prefix=places.get("decoder", ()),
    )

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw vectors of the same norms in every layer."""
    return controls.of_same_norms(delta, key)

  @nn.nowrap
  def _stacks(self) -> Iterator[tuple[str, int, int]]:
    """Yield stacks with a prompt: its first virtual token, and its length."""
    lengths = {"encoder": self.encoder_length, "decoder": self.decoder_length}
    first = 0
    for stack, length in lengths.items():
      if length:
        yield stack, first, length
      first += length

  @nn.nowrap
  def _initial(
    self, key: Array, size: Shape, context: InitializerContext
  ) -> Array:
    if not self.is_initializing():  # flax asks for the shape only
      return jnp.zeros(size, jnp.float32)
    layers, *one = size
    drawn = layers if self.replace else 1
    values = [
      self.prompt_init(own, tuple(one), jnp.float32, context)
      for own in jax.random.split(key, drawn)
    ]
    rest = jnp.zeros((layers - drawn, *one), jnp.float32)
    return jnp.concatenate([jnp.stack(values), rest])
