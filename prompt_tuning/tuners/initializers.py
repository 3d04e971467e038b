"""Initial values of a prompt.

An initialiser is a callable (rng, shape, dtype, context) -> array. It reads the
backbone through an `InitializerContext`: the embedding table in memory, a
tokenizer, and the words of the task. So nothing is read from disk twice.

The behaviour is that of google-research/prompt-tuning (`prompts.py`) at commit
72285ee. Mistakes that the original ignores are errors here.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.core.types import (
  EOS_ID,
  PAD_ID,
  UNK_ID,
  Array,
  DType,
  Shape,
)

_LOG = logging.getLogger(__name__)

# "The 5,000 most common tokens" of the paper, section 3.2: T5's vocabulary is
# ordered by frequency, so they are the first ids.
COMMON_TOKENS = 5_000

# Paper, appendix: the words for the two SuperGLUE tasks without a label set.
RECORD_LABELS = ("commonsense", "reasoning", "reading", "comprehension")
WSC_LABELS = ("commonsense", "pronoun", "resolution")


@dataclasses.dataclass(frozen=True, eq=False)
class InitializerContext:
  """What initialisers may read.

  Attributes:
    embeddings: [V, H] embedding table of the frozen model, readable by this
      host.
    tokenize: text -> ids, without an end-of-sequence id.
    label_words: the task's target words, in the order of its labels.
    soft_pieces: for every soft token of the task's template the id of the piece
      that it starts as, None for one without words; empty without a template.
    load_prompt: path -> [P, H] array, for prompts in files; None reads `.npy`.
    warn: tells the user where the result differs from what they asked for.
    output_rows: ids -> [n, H], the output head's rows of these pieces; their
      product with the head's input gives the logits.
  """

  embeddings: Array | np.ndarray | None = None
  tokenize: Callable[[str], Sequence[int]] | None = None
  label_words: tuple[str, ...] = ()
  soft_pieces: tuple[int | None, ...] = ()
  load_prompt: Callable[[str], np.ndarray] | None = None
  warn: Callable[[str], None] = _LOG.warning
  output_rows: Callable[[Sequence[int]], Array] | None = None


class Initializer(Protocol):
  """Makes the initial value of a prompt."""

  def __call__(
    self, rng: Array, shape: Shape, dtype: DType, context: InitializerContext
  ) -> Array:
    """Make the array.

    Args:
      rng: random key; deterministic initialisers ignore it.
      shape: [P, H].
      dtype: floating dtype of the result.
      context: what is known about model and task.

    Returns:
      [P, H] of `dtype`.

    Raises:
      ValueError: the context lacks what is needed or does not fit the shape.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Uniform:
  """Draw every number uniformly from [low, high).

  Attributes:
    low: smallest value.
    high: upper bound. The default interval is the paper's.
  """

  low: float = -0.5
  high: float = 0.5

  def __post_init__(self) -> None:
    if not self.low < self.high:
      raise ValueError(
        f"Uniform: expected low below high; got low={self.low}, "
        f"high={self.high}."
      )

  def __call__(
    self, rng: Array, shape: Shape, dtype: DType, context: InitializerContext
  ) -> Array:
    """Draw the array, see `Initializer`."""
    del context
    return jax.random.uniform(rng, shape, dtype, self.low, self.high)


# As in the paper, section 3.2. The public code uses flax's `uniform(0.5)`,
# which draws only positive numbers.
UNIFORM_PAPER = Uniform(-0.5, 0.5)
UNIFORM_PUBLIC = Uniform(0.0, 0.5)


@dataclasses.dataclass(frozen=True)
class SampledVocabulary:
  """Copy randomly drawn rows of the embedding table.

  Rows are drawn without replacement if there are enough of them. The population
  starts at id 0. As in the public code, it includes T5's padding,
  end-of-sequence and unknown pieces (ids 0 to 2).

  Attributes:
    population: draw from this many first ids; None for the whole table.
  """

  population: int | None = COMMON_TOKENS

  def __post_init__(self) -> None:
    if self.population is not None and self.population <= 0:
      raise ValueError(
        f"SampledVocabulary needs a positive population or None; got "
        f"{self.population}."
      )

  def __call__(
    self, rng: Array, shape: Shape, dtype: DType, context: InitializerContext
  ) -> Array:
    """Draw the rows, see `Initializer`."""
    table = _table(context, shape, type(self).__name__)
    length, rows = shape[0], table.shape[0]
    population = rows if self.population is None else self.population
    if population > rows:
      if population != COMMON_TOKENS:  # somebody asked for it
        context.warn(
          f"The population is {population}, but the embedding table has only "
          f"{rows} rows: the initialiser samples from all of them."
        )
      population = rows
    replace = length > population
    if replace:
      context.warn(
        f"Sampling with replacement: the prompt length {length} exceeds the "
        f"population of {population}."
      )
    ids = jax.random.choice(rng, population, (length,), replace)
    return jnp.take(table, ids, axis=0).astype(dtype)


@dataclasses.dataclass(frozen=True)
class ClassLabels:
  """Embed one label of the task per position, then use the fallback.

  A label of several pieces is the mean of their embeddings. As in the public
  code, the fallback draws all positions, and the labels overwrite the first.

  Attributes:
    labels: words; None for the task's own (`InitializerContext.label_words`).
    fallback: fills the positions after the last label; the paper's choice is
      the sampled vocabulary.

  Source: Lester et al. 2021, section 3.2 and appendix. Deviation from the
  public code: a label without pieces, or with an unknown piece, is an error.
  """

  labels: tuple[str, ...] | None = None
  fallback: Initializer = SampledVocabulary()

  def __post_init__(self) -> None:
    if isinstance(self.labels, str):
      raise ValueError(
        f"CLASS_LABELS must be a list of words; got the string {self.labels!r}."
      )
    if self.labels is not None:  # gin passes lists, which do not hash
      object.__setattr__(self, "labels", tuple(self.labels))

  def __call__(
    self, rng: Array, shape: Shape, dtype: DType, context: InitializerContext
  ) -> Array:
    """Embed the labels, see `Initializer`."""
    table = _table(context, shape, type(self).__name__)
    labels = context.label_words if self.labels is None else self.labels
    if not labels:
      raise ValueError(
        "Initialising from class labels needs labels, but the task declares "
        "none. Set CLASS_LABELS, or choose another initialiser."
      )
    rows = [
      jnp.take(table, jnp.asarray(ids), axis=0).astype(jnp.float32).mean(0)
      for ids in (_pieces(context, label, table) for label in labels)
    ]
    if len(rows) > shape[0]:
      context.warn(
        f"PROMPT_LENGTH {shape[0]} is shorter than the list of class labels; "
        f"no position is left for {', '.join(labels[shape[0] :])}."
      )
    return _overwrite(
      self.fallback(rng, shape, dtype, context), jnp.stack(rows)
    )


@dataclasses.dataclass(frozen=True)
class Text:
  """Embed one token of a text per position, then use the fallback.

  Attributes:
    text: what to tokenise.
    fallback: fills the positions after the last token.
  """

  text: str
  fallback: Initializer = SampledVocabulary()

  def __call__(
    self, rng: Array, shape: Shape, dtype: DType, context: InitializerContext
  ) -> Array:
    """Embed the text, see `Initializer`."""
    table = _table(context, shape, type(self).__name__)
    ids = _tokenize(context, self.text, table)
    if len(ids) > shape[0]:
      context.warn(
        f"The text to initialise from has {len(ids)} tokens; PROMPT_LENGTH "
        f"{shape[0]} cuts it: {self.text!r}."
      )
    rows = jnp.take(table, jnp.asarray(ids), axis=0)
    return _overwrite(self.fallback(rng, shape, dtype, context), rows)


@dataclasses.dataclass(frozen=True)
class TemplateWords:
  """Embed the words of the soft tokens in the task's template.

  Attributes:
    fallback: fills the soft tokens without words.
  """

  fallback: Initializer = SampledVocabulary()

  def __call__(
    self, rng: Array, shape: Shape, dtype: DType, context: InitializerContext
  ) -> Array:
    """Embed the words, see `Initializer`."""
    table = _table(context, shape, type(self).__name__)
    pieces = context.soft_pieces
    if not pieces:
      raise ValueError(
        "Initialising from a template's soft tokens needs a task whose "
        'template has soft tokens, such as {"soft": "It was"}. Choose '
        "another initialiser (PROMPT_INIT), or another template."
      )
    if len(pieces) != shape[0]:
      raise ValueError(
        f"The template has {len(pieces)} soft tokens, but PROMPT_LENGTH is "
        f"{shape[0]}; set it to {len(pieces)}."
      )
    rows = self.fallback(rng, shape, dtype, context)
    worded = np.array(
      [k for k, piece in enumerate(pieces) if piece is not None]
    )
    if not len(worded):
      return rows
    ids = jnp.asarray([piece for piece in pieces if piece is not None])
    words = jnp.take(table, ids, axis=0).astype(dtype)
    return rows.at[worded].set(words)


def _table(
  context: InitializerContext, shape: Shape, who: str
) -> Array | np.ndarray:
  """Return the embedding table after checking that it is as wide as a prompt.

  Raises:
    ValueError: no table, or of another width.
  """
  table = context.embeddings
  if table is None:
    raise ValueError(
      f"{who} needs the model's embedding table; restore the model first and "
      "pass InitializerContext(embeddings=...)."
    )
  if table.ndim != 2 or table.shape[1] != shape[-1]:
    raise ValueError(
      f"{who}: the embedding table has shape {tuple(table.shape)}, but prompt "
      f"vectors have {shape[-1]} features. The model size of the gin file and "
      "INITIAL_CHECKPOINT_PATH must belong together."
    )
  return table


def _tokenize(
  context: InitializerContext, text: str, table: Array | np.ndarray
) -> list[int]:
  """Tokenise a text into ids that all have a row of their own."""
  if context.tokenize is None:
    raise ValueError(
      f"Initialising from the text {text!r} needs a tokenizer; pass "
      "InitializerContext(tokenize=...)."
    )
  ids = [int(i) for i in context.tokenize(text)]
  if not ids:
    raise ValueError(f"The text {text!r} has no tokens; expected at least one.")
  if {PAD_ID, EOS_ID} & set(ids):
    raise ValueError(
      f"The tokenizer turned {text!r} into {ids}; expected no padding "
      f"({PAD_ID}) and no end-of-sequence ({EOS_ID}) id."
    )
  if min(ids) < 0 or max(ids) >= table.shape[0]:
    raise ValueError(
      f"The tokenizer turned {text!r} into {ids}, but the embedding table has "
      f"{table.shape[0]} rows. VOCABULARY and the model must belong together."
    )
  return ids


def _pieces(
  context: InitializerContext, label: str, table: Array | np.ndarray
) -> list[int]:
  """Tokenise a label, which must be made of known pieces."""
  if not isinstance(label, str) or not label.strip():
    raise ValueError(
      f"Class label {label!r} is not a word; change CLASS_LABELS."
    )
  ids = _tokenize(context, label, table)
  if UNK_ID in ids:
    raise ValueError(
      f"Class label {label!r} contains a piece that the vocabulary lacks (ids "
      f"{ids}); change CLASS_LABELS."
    )
  return ids


def _overwrite(prompt: Array, rows: Array) -> Array:
  """Replace the first rows of a prompt, as many as fit."""
  rows = rows[: prompt.shape[0]].astype(prompt.dtype)
  return jnp.concatenate([rows, prompt[rows.shape[0] :]])
