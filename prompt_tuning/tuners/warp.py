"""WARP (Hambardzumyan et al. 2021): a prompt, and an output row per class."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.core import meta

from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.types import Array, Shape
from prompt_tuning.tuners import controls, settings
from prompt_tuning.tuners.initializers import (
  Initializer,
  SampledVocabulary,
)
from prompt_tuning.tuners.method import Inputs, Method, Recipe
from prompt_tuning.tuners.prompt import PROMPT_AXES, Prompt
from prompt_tuning.tuners.word_rows import OutputRowsOfWords, answer


class Warp(Method):
  """Vectors around the text, and an output row for every class.

  The answer is the class whose row has the largest product with the decoder's
  state at its first position. Parameters, float32: `prompt` [P, H], vectors
  before the text first, and `class_rows` [C, H].

  Attributes:
    emb_dim: features of a token embedding (H).
    label_words: words of the classes; by default the task's.
    before: vectors before the text.
    after: vectors after it, before its EOS.
    prompt_init: initial value of the vectors.
    rows_init: initial value of the rows.

  Source: the paper, sections 2 and 3. Its model is a masked one; here the first
  answer position of a T5 takes the place of the mask. Deviation: optimizer and
  learning rates, because T5's embeddings are larger than RoBERTa's by orders of
  magnitude.
  """

  title: ClassVar[str] = "WARP"
  noun: ClassVar[str] = "prompt"
  from_data: ClassVar[tuple[str, ...]] = ("label_words",)
  recipe: ClassVar[Recipe] = dataclasses.replace(
    Prompt.recipe,
    by_path={"tuner/class_rows": Recipe(0.003, "adam")},
    objective="output_rows",
  )

  emb_dim: int = 0
  label_words: Sequence[str] | None = None
  before: int = 5
  after: int = 5
  prompt_init: Initializer = SampledVocabulary()
  rows_init: Initializer = OutputRowsOfWords()

  def __post_init__(self) -> None:
    super().__post_init__()
    if isinstance(self.label_words, str | Mapping):
      raise ValueError(
        "WARP's LABEL_WORDS must list one word per class; got "
        f"{self.label_words!r:.80}."
      )
    settings.whole_number("WARP_BEFORE", self.before)
    settings.whole_number("WARP_AFTER", self.after)
    settings.positive_integer("WARP_BEFORE + WARP_AFTER", self._length)

  @property
  def placement(self) -> Placement:
    """Around the text."""
    rows = tuple(range(self._length))
    return Placement(
      encoder_prefix=rows[: self.before], encoder_suffix=rows[self.before :]
    )

  @property
  def answers(self) -> Sequence[str]:
    """The label words."""
    return tuple(map(answer, self.label_words or ()))

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return virtual tokens and output rows, see `Method`.

    Raises:
      ValueError: less than two classes.
    """
    words = tuple(self.label_words or ())
    if len(words) < 2:
      raise ValueError(
        f"WARP has a vector for each class, but there are {len(words)} label "
        "words: choose a task that has label words, or set LABEL_WORDS."
      )
    context = dataclasses.replace(inputs.context, label_words=words)
    shapes = {
      "prompt": ((self._length, self.emb_dim), PROMPT_AXES, self.prompt_init),
      "class_rows": (
        (len(words), self.emb_dim),
        (None, "prompt_embed"),
        self.rows_init,
      ),
    }
    made = {}
    for name, (shape, axes, init) in shapes.items():

      def initial(key: Array, shape: Shape, init: Initializer = init) -> Array:
        if not self.is_initializing():  # flax asks for the shape only
          return jnp.zeros(shape, jnp.float32)
        return init(key, shape, jnp.float32, context)

      boxed = nn.with_logical_partitioning(initial, axes)
      made[name] = meta.unbox(self.param(name, boxed, shape))
    return Delta(virtual=made["prompt"], head_rows=made["class_rows"])

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw vectors and rows of random direction and the same norms."""
    return controls.of_same_norms(delta, key)

  @property
  def _length(self) -> int:
    return self.before + self.after
