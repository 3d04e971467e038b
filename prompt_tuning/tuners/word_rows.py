"""Initial values of vectors for words: means of the rows of their pieces."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp

from prompt_tuning.core.types import UNK_ID, Array, DType, Shape
from prompt_tuning.prompting.label_words import NO_BLANK, word_ids
from prompt_tuning.tuners.initializers import InitializerContext

# The sentinel before an answer in the targets of a template.
_SENTINEL = re.compile(r"^<extra_id_\d+>\s*")


def answer(target: str) -> str:
  """Take the answer out of a task's target, which may begin with a sentinel."""
  return _SENTINEL.sub("", target).removeprefix(NO_BLANK)


@dataclasses.dataclass(frozen=True)
class OutputRowsOfWords:
  """Copy the output head's rows of the label words, one row for each word.

  A word of several pieces gets the mean of their rows.
  """

  def __call__(
    self, rng: Array, shape: Shape, dtype: DType, context: InitializerContext
  ) -> Array:
    """Make the rows, see `Initializer`."""
    del rng
    if context.output_rows is None:
      raise ValueError(
        "The rows of label words need the model's output head, but the "
        "context has none."
      )
    return _means(context.output_rows, shape, dtype, context)


@dataclasses.dataclass(frozen=True)
class EmbeddingsOfWords:
  """The same with rows of the embedding table."""

  def __call__(
    self, rng: Array, shape: Shape, dtype: DType, context: InitializerContext
  ) -> Array:
    """Make the rows, see `Initializer`."""
    del rng
    return _means(_embeddings(context), shape, dtype, context)


@dataclasses.dataclass(frozen=True)
class WeightedWords:
  """Vectors that are weighted means of embeddings of words.

  Attributes:
    words: for every vector: word -> its weight.
    setting: name of the setting for these words, for errors.
  """

  words: Sequence[Mapping[str, float]]
  setting: str = "the words"

  def __call__(
    self, rng: Array, shape: Shape, dtype: DType, context: InitializerContext
  ) -> Array:
    """Make the vectors, see `Initializer`."""
    del rng
    rows = _embeddings(context)
    vectors = []
    for weights in self.words:
      if not weights:
        raise ValueError(
          f"{self.setting}: no words to start from; expected at least one."
        )
      parts = [
        weight * _mean(rows, word, context) for word, weight in weights.items()
      ]
      vectors.append(sum(parts) / sum(weights.values()))
    return _insist_shape(jnp.stack(vectors).astype(dtype), shape)


def _means(
  rows: Callable[[Sequence[int]], Array],
  shape: Shape,
  dtype: DType,
  context: InitializerContext,
) -> Array:
  means = [_mean(rows, _word(word), context) for word in context.label_words]
  return _insist_shape(jnp.stack(means).astype(dtype), shape)


def _word(target: str) -> str:
  """Write the answer as label words are: `<!>A` where no blank precedes it."""
  sentinel = _SENTINEL.match(target)
  if sentinel and sentinel[0].endswith(">"):
    return NO_BLANK + answer(target)
  return _SENTINEL.sub("", target)


def _mean(
  rows: Callable[[Sequence[int]], Array], word: str, context: InitializerContext
) -> Array:
  ids: Sequence[int] = [UNK_ID]
  if context.tokenize:  # where shapes alone count, there is no vocabulary
    ids = word_ids("Label words", word, context.tokenize)
  return jnp.mean(rows(ids), axis=0)


def _embeddings(
  context: InitializerContext,
) -> Callable[[Sequence[int]], Array]:
  table = context.embeddings
  if table is None:
    raise ValueError(
      "Embeddings of words need the model's embedding table, but the context "
      "has none."
    )
  return lambda ids: jnp.take(table, jnp.asarray(ids), axis=0).astype(
    jnp.float32
  )


def _insist_shape(rows: Array, shape: Shape) -> Array:
  if rows.shape != shape:
    raise ValueError(
      f"{len(rows)} label words give rows of shape {[*rows.shape]}; expected "
      f"{[*shape]}."
    )
  return rows
