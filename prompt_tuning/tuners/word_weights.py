"""A trained weight for every label word: KPT's learned refinement.

Source: Hu et al. 2021 (KPT), section 3.3.4: the weights of a class's words are
the softmax of parameters that start at zero, which gives the plain mean of
log-probabilities. To add them to another method, do as `PromptAndWordWeights`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import meta

from prompt_tuning.core.adapter import Adapter
from prompt_tuning.core.delta import NO_WORD, Delta
from prompt_tuning.core.types import Array
from prompt_tuning.tuners.method import Inputs, Method, Recipe
from prompt_tuning.tuners.prompt import Prompt

PARAMETER = "word_weights"
# The learning rate of KPT's few-shot code; its script then sets it to zero.
_RECIPE = Recipe(0.06, "adam", objective="learned_words")

# The words of every class. Before a run's data are known, it is the value of
# LABEL_WORDS in gin, or None for the task's own words.
Words = Sequence[Sequence[str]] | Mapping[str, Any] | str | None


def known(words: Words) -> Sequence[Sequence[str]]:
  """Return the words of every class; empty until a run's data are known."""
  return () if isinstance(words, str | Mapping | None) else words


def learned(module: Method, words: Words) -> Array:
  """Make the parameter of the weights, inside a method's compact `__call__`.

  Args:
    module: gets the parameter `word_weights` [C, W], float32. A class with
      fewer words than others has unused entries, which stay zero.
    words: label words of the classes.

  Returns:
    [C, W], see `Delta.word_weights`.

  Raises:
    ValueError: no words.
  """
  of_classes = known(words)
  if len(of_classes) < 2:
    raise ValueError(
      f"There are no label words of several classes to weigh: {words!r:.80}. "
      "Choose a task that has some, or set LABEL_WORDS."
    )
  counts = np.array([len(of_class) for of_class in of_classes])
  there = np.arange(counts.max())[None] < counts[:, None]
  zeros = nn.with_logical_partitioning(nn.initializers.zeros, (None, None))
  weights = meta.unbox(module.param(PARAMETER, zeros, there.shape, jnp.float32))
  return jnp.where(there, weights, NO_WORD)


class WordWeights(Method):
  """Only weights of words; the model is frozen, or tuned as well.

  Attributes:
    words: label words of the classes.
  """

  title: ClassVar[str] = "word weights"
  from_model: ClassVar[tuple[str, ...]] = ()
  from_data: ClassVar[tuple[str, ...]] = ("words",)
  recipe: ClassVar[Recipe] = _RECIPE

  words: Words = None

  @property
  def weighed_words(self) -> Sequence[Sequence[str]]:
    """The words, once they are known."""
    return known(self.words)

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the weights, see `Method`."""
    del inputs
    return Delta(word_weights=learned(self, self.words))


class PromptAndWordWeights(Prompt):
  """A prompt together with weights of words.

  Attributes:
    words: label words of the classes.
  """

  title: ClassVar[str] = "prompt and word weights"
  bundle_name: ClassVar[str | None] = None  # type: ignore[assignment]
  peft_types: ClassVar[tuple[str, ...]] = ()
  from_data: ClassVar[tuple[str, ...]] = ("words",)
  recipe: ClassVar[Recipe] = dataclasses.replace(
    Prompt.recipe,
    by_path={f"tuner/{PARAMETER}": _RECIPE},
    objective=_RECIPE.objective,
  )

  words: Words = None

  @property
  def weighed_words(self) -> Sequence[Sequence[str]]:
    """The words, once they are known."""
    return known(self.words)

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the prompt and the weights, see `Method`."""
    prompt = super().__call__(inputs)
    return dataclasses.replace(prompt, word_weights=learned(self, self.words))

  @nn.nowrap
  def to_peft(self, delta: Delta) -> Adapter | str:
    """Refuse, see `Method`."""
    del delta
    return "PEFT has no weights of label words"
