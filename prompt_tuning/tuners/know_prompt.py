"""KnowPrompt (Chen et al. 2022): virtual words for types and for relations."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import meta

from prompt_tuning.core.delta import Delta
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.types import PAD_ID, Array, Batch, Shape
from prompt_tuning.tuners import controls, settings
from prompt_tuning.tuners.initializers import Initializer
from prompt_tuning.tuners.method import Inputs, Method, Recipe, Stage
from prompt_tuning.tuners.prompt import PROMPT_AXES, Prompt
from prompt_tuning.tuners.word_rows import (
  EmbeddingsOfWords,
  OutputRowsOfWords,
  WeightedWords,
  answer,
)

_SUBJECT, _OBJECT = range(2)  # soft tokens of the template, in order
_LONGEST = 4  # tokens of a random span
_ROWS: Mapping[str, Initializer] = {
  "head": OutputRowsOfWords(),
  "embeddings": EmbeddingsOfWords(),
}
# Word -> weight; or words, which weigh the same.
Types = Mapping[str, float] | Sequence[str]


class KnowPrompt(Method):
  """Two virtual type words in the text, and an answer word for every relation.

  The template writes the first soft token on both sides of the subject and the
  second one on both sides of the object. The model answers with the relation
  whose answer word has the largest product with the decoder's state, at the
  position that `scorers.OutputRows` reads: after the common beginning of all
  answers, such as a sentinel.
  Parameters, float32: `type_words` [2, H] and `answer_words` [C, H].

  To the loss of every example, `structure` times this is added:

    -log sigmoid(gamma - d(s, o)) - mean_i log sigmoid(d(s'_i, o'_i) - gamma)

  where d(s, o) is the length of s + r - o. The vectors s and o are means of the
  encoder's states between the type words, r is the decoder's state where the
  answer is read, and s', o' are means over random spans of the same input,
  which are drawn anew in every step.

  Attributes:
    emb_dim: features of a token embedding (H).
    label_words: words of the relations; by default the task's.
    subject_types: words for the types of subjects. The first type word starts
      as their weighted mean; a weight is how often the type occurs.
    object_types: the same for objects.
    rows_from: answer words start as means of rows of the label words: those of
      the output head (`head`) or of the embedding table (`embeddings`).
    structure: weight of this loss (lambda of the paper); 0 leaves it out.
    gamma: margin of the distances.
    negatives: pairs of random spans for every example (n).

  Source: sections 3.2 to 3.4 of the paper. Deviations: each example has its own
  distance, the authors' code has one for the whole batch; the user's counts
  weigh type words, there all weigh the same; r is the decoder's state for
  negatives, too; the model is a T5, whose first answer position takes the place
  of the mask.
  """

  title: ClassVar[str] = "KnowPrompt, frozen model"
  noun: ClassVar[str] = "words"
  from_data: ClassVar[tuple[str, ...]] = ("label_words",)
  recipe: ClassVar[Recipe] = dataclasses.replace(
    Prompt.recipe,
    by_path={"tuner/answer_words": Recipe(0.003, "adam")},
    objective="output_rows",
  )

  emb_dim: int = 0
  label_words: Sequence[str] | None = None
  subject_types: Types = ()
  object_types: Types = ()
  rows_from: str = "head"
  structure: float = 0.001
  gamma: float = 0.3
  negatives: int = 1

  def __post_init__(self) -> None:
    super().__post_init__()
    if isinstance(self.label_words, str | Mapping):
      raise ValueError(
        "KnowPrompt's LABEL_WORDS must list one text per relation; got "
        f"{self.label_words!r:.80}."
      )
    settings.among("tuners.KnowPrompt.rows_from", [self.rows_from], list(_ROWS))
    settings.positive_integer("tuners.KnowPrompt.negatives", self.negatives)
    if self.structure != 0:
      settings.positive("KNOWPROMPT_STRUCTURE", self.structure)

  @property
  def placement(self) -> Placement:
    """Both words; the template's slots say where they stand."""
    return Placement(encoder_prefix=(_SUBJECT, _OBJECT))

  @property
  def answers(self) -> Sequence[str]:
    """The label words."""
    return tuple(map(answer, self.label_words or ()))

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return virtual tokens and output rows, see `Method`.

    Raises:
      ValueError: less than two relations, no words for a type, or a template
        without a soft token for each argument.
    """
    words = tuple(self.label_words or ())
    if len(words) < 2:
      raise ValueError(
        "KnowPrompt has an answer word for each relation, but there are "
        f"{len(words)} label words: choose a task that has label words."
      )
    if self.is_initializing():
      self._insist_on_template(inputs)
    context = dataclasses.replace(inputs.context, label_words=words)
    types = (self.subject_types, self.object_types)

    def make(name: str, shape: Shape, axes: tuple, init: Initializer) -> Array:
      def initial(key: Array, shape: Shape) -> Array:
        if not self.is_initializing():  # flax asks for the shape only
          return jnp.zeros(shape, jnp.float32)
        return init(key, shape, jnp.float32, context)

      boxed = nn.with_logical_partitioning(initial, axes)
      return meta.unbox(self.param(name, boxed, shape))

    both = WeightedWords(
      tuple(map(_weights, types)),
      "KNOWPROMPT_SUBJECT_TYPES and KNOWPROMPT_OBJECT_TYPES",
    )
    rows_shape, rows_axes = (len(words), self.emb_dim), (None, "prompt_embed")
    return Delta(
      virtual=make("type_words", (2, self.emb_dim), PROMPT_AXES, both),
      head_rows=make(
        "answer_words", rows_shape, rows_axes, _ROWS[self.rows_from]
      ),
    )

  @nn.nowrap
  def extra(
    self, delta: Delta, outputs: Outputs, batch: Batch, keys: Array | None
  ) -> Mapping[str, Array]:
    """Compute the structured loss of every example, see the class."""
    if self.structure == 0:
      return {}
    rows, tokens = delta.head_rows, batch["encoder_input_tokens"]
    encoder, decoder = outputs.encoder_states, outputs.decoder_states
    assert rows is not None
    assert encoder is not None
    assert decoder is not None
    if "encoder_segment_ids" in batch:
      raise ValueError(
        "KnowPrompt's structured loss needs one example per row: set BATCHING "
        "to 'buckets', or KNOWPROMPT_STRUCTURE to 0."
      )
    first_word = outputs.logits.shape[-1] - rows.shape[1]
    spans = [_between(tokens, first_word + word) for word in (0, 1)]
    there = spans[_SUBJECT].any(-1) & spans[_OBJECT].any(-1)
    arguments = jnp.stack(spans, axis=1)[:, None]
    others = random_spans(tokens, _row_keys(batch, keys), self.negatives)
    # [B, 1 + n, 2, T]: the arguments first.
    masks = jnp.concatenate([arguments, others], axis=1)
    answer_at = _last(batch["decoder_target_tokens"])
    relation = jnp.take_along_axis(decoder, answer_at[:, None, None], axis=1)
    away = distances(encoder, masks, relation[:, 0])
    near = jax.nn.log_sigmoid(self.gamma - away[:, 0])
    far = jax.nn.log_sigmoid(away[:, 1:] - self.gamma).mean(-1)
    loss = jnp.where(there, -near - far, 0)
    return {"structure": self.structure * loss}

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw vectors and rows of random direction and the same norms."""
    return controls.of_same_norms(delta, key)

  @nn.nowrap
  def _insist_on_template(self, inputs: Inputs) -> None:
    """Insist on a soft token for each argument, which the structure needs."""
    soft = len(inputs.context.soft_pieces)
    # If only shapes are computed, there is no vocabulary and no template.
    if self.structure and inputs.context.tokenize and soft != 2:
      raise ValueError(
        f"The task's template has {soft} soft tokens; KnowPrompt needs two: "
        '{"soft": 1, "id": 0} on both sides of the subject, and '
        '{"soft": 1, "id": 1} on both sides of the object. To train '
        "without them, set KNOWPROMPT_STRUCTURE to 0."
      )


class KnowPromptTuned(KnowPrompt):
  """KnowPrompt as its paper trains it: the words first, then everything.

  In the last training the model trains, too: set PARTITION_RULES to
  `%partition.EVERYTHING`.
  """

  title: ClassVar[str] = "KnowPrompt, tuned model"
  noun: ClassVar[str] = KnowPrompt.noun
  recipe: ClassVar[Recipe] = Recipe(
    learning_rate=3e-5,
    optimizer="adamw",
    settings={"weight_decay": 0.01},
    objective="output_rows",
    stages=(
      Stage(
        "words",
        300,
        (("tuner/.*", "train"), (".*", "freeze")),
        KnowPrompt.recipe,
      ),
    ),
  )


def _weights(types: Types) -> dict[str, float]:
  """Give words that have none the same weight."""
  if isinstance(types, Mapping):
    return dict(types)
  return dict.fromkeys(types, 1.0)


def _last(targets: Array) -> Array:
  """Find every row's last target, where the scorer reads the answer: [B].

  The targets before it are the same in all answers.
  """
  behind = jnp.argmax(targets[:, ::-1] != PAD_ID, axis=-1)
  return targets.shape[1] - 1 - behind


def _between(tokens: Array, word: int) -> Array:
  """Mark positions from the first to the last occurrence of a word: [B, T]."""
  here = tokens == word
  opened = jnp.cumsum(here, axis=-1) > 0
  open_later = jnp.cumsum(here[:, ::-1], axis=-1)[:, ::-1] > 0
  return opened & open_later & ~here


def _row_keys(batch: Batch, keys: Array | None) -> Array:
  """Give every row a key made of its run, the step and its tokens: [B].

  So a row draws the same numbers in a bank or alone, in any batch.
  """
  tokens = batch["encoder_input_tokens"].astype(jnp.uint32)
  factors = (2 * jnp.arange(tokens.shape[1], dtype=jnp.uint32) + 1)[None]
  number = jnp.sum(tokens * factors * jnp.uint32(2654435761), axis=-1)
  if keys is None:
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), number)
  run_ids = batch.get("run_ids", jnp.zeros(len(tokens), jnp.int32))
  return jax.vmap(jax.random.fold_in)(keys[run_ids], number)


def random_spans(tokens: Array, keys: Array, count: int) -> Array:
  """Draw pairs of spans from rows that are padded on the right.

  Args:
    tokens: [B, T] ids.
    keys: [B] random keys.
    count: n.

  Returns:
    [B, n, 2, T] booleans: each span is up to four adjacent tokens.
  """
  length = jnp.sum(tokens != PAD_ID, axis=-1).astype(jnp.float32)
  length = length[:, None, None]
  draws = jax.vmap(lambda key: jax.random.uniform(key, (2, count, 2)))(keys)
  size = 1 + jnp.floor(draws[:, 0] * jnp.minimum(length, _LONGEST))
  start = jnp.floor(draws[:, 1] * (length - size + 1))
  at = jnp.arange(tokens.shape[1], dtype=jnp.float32)[None, None, None]
  begun, ended = at >= start[..., None], at >= (start + size)[..., None]
  return begun & ~ended


def distances(states: Array, masks: Array, relation: Array) -> Array:
  """Compute the lengths of subject + relation - object.

  Args:
    states: [B, T, H] of tokens.
    masks: [B, n, 2, T] booleans: tokens of a subject and an object.
    relation: [B, H].

  Returns:
    [B, n] float32, lengths of s + r - o. The mean of an empty span is 0.
  """
  weights = masks.astype(jnp.float32)
  weights = weights / jnp.maximum(weights.sum(-1, keepdims=True), 1)
  means = jnp.einsum("bnat,bth->bnah", weights, states.astype(jnp.float32))
  relation = relation.astype(jnp.float32)[:, None]
  apart = means[:, :, _SUBJECT] + relation - means[:, :, _OBJECT]
  # The derivative of the square root at zero is infinite.
  return jnp.sqrt(jnp.maximum(jnp.square(apart).sum(-1), 1e-12))
