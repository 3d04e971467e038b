"""Wayward prompts (Khashabi et al. 2022): a penalty pulls them to a text."""

from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.core import meta

from prompt_tuning.core.adapter import Adapter
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.types import Array, Params, Shape
from prompt_tuning.tuners import controls, settings
from prompt_tuning.tuners.initializers import InitializerContext, Text
from prompt_tuning.tuners.method import Inputs, Method, Recipe
from prompt_tuning.tuners.prompt import PROMPT_AXES, Prompt

_VECTORS, _TEXT = "prompt", "text"


class WaywardPrompt(Method):
  """A prompt that starts as a text; its distance to it adds to the loss.

  Parameters: `prompt` [P, H], which trains, and `text` [P, H], which does not:
  the embeddings of the text's tokens, float32.

  Attributes:
    emb_dim: features of a token embedding (H).
    text: the text to which the prompt should stay close.
    length: P, the number of the text's tokens.
    pull: penalty for a squared distance of 1, as a mean over positions.

  Source: prompt-tuning's `extended/train/wayward.py`, which adds gamma = 0.01
  times the squared L2 distance over the length, for each batch. Deviation: it
  is an error if the text and the prompt differ in length.
  """

  title: ClassVar[str] = "wayward prompts"
  noun: ClassVar[str] = "prompt"
  constants: ClassVar[tuple[str, ...]] = (_TEXT,)
  recipe: ClassVar[Recipe] = Prompt.recipe

  emb_dim: int = 0
  text: str = ""
  length: int = 1
  pull: float = 0.01

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.text("TASK_STRING", self.text)
    settings.positive_integer("PROMPT_LENGTH", self.length)
    if not self.pull >= 0:
      raise ValueError(
        f"WAYWARD_PULL is {self.pull!r}; expected a number, at least 0."
      )

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the prompt as virtual tokens, see `Method`."""
    boxed = nn.with_logical_partitioning(self._initial, PROMPT_AXES)
    size = (self.length, self.emb_dim)
    if self.is_initializing():  # only the penalty reads it afterwards
      self.param(_TEXT, boxed, size, inputs.context)
    return Delta(
      virtual=meta.unbox(self.param(_VECTORS, boxed, size, inputs.context))
    )

  @property
  def placement(self) -> Placement:
    """In front of the text."""
    return Placement(encoder_prefix=tuple(range(self.length)))

  @nn.nowrap
  def penalty(self, params: Params) -> Array:
    """Compute the penalty for the distance to the text, see `Method`."""
    apart = params[_VECTORS] - params[_TEXT]
    return self.pull * jnp.square(apart).sum(-1).mean()

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw vectors of random direction and the same norms."""
    return controls.of_same_norms(delta, key)

  @nn.nowrap
  def to_peft(self, delta: Delta) -> Adapter | str:
    """Write the adapter of a plain prompt, see `Method`."""
    plain = Prompt.of_vectors(self.length, self.emb_dim)
    return plain.to_peft(delta)

  @nn.nowrap
  def _initial(
    self, key: Array, size: Shape, context: InitializerContext
  ) -> Array:
    if not self.is_initializing():  # flax asks for the shape only
      return jnp.zeros(size, jnp.float32)
    if context.tokenize is not None:
      count = len(context.tokenize(self.text))
      if count != self.length:
        raise ValueError(
          f"TASK_STRING has {count} tokens but PROMPT_LENGTH is "
          f"{self.length}; a wayward prompt has one vector for each token: "
          f"set PROMPT_LENGTH = {count}."
        )
    return Text(self.text)(key, size, jnp.float32, context)
