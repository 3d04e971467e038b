"""Scores of classes: the likelihoods of their label words under a model.

A scorer prepares the decoder's inputs, and turns the logits into a score for
every class. The encoder runs once, for any number of words. Training and
inference use the same scorers: those of `objectives.Classes`, and those of
`infer.rank.classify`.

Words are `prompting.label_words.WordPieces`; for several masks, those of
`prompting.rules`. The decoder starts from `decoder_prefix_tokens` [B, Q],
virtual tokens padded on the left and the start token 0, or from the start token
alone. Then it reads the tokens before a word in the targets of a template: the
sentinel.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.core import tree
from prompt_tuning.core.delta import NO_WORD, Delta
from prompt_tuning.core.types import EOS_ID, PAD_ID, Array, Batch
from prompt_tuning.prompting import aggregation
from prompt_tuning.prompting.aggregation import LEARNED, MEAN, SUM
from prompt_tuning.prompting.label_words import WordPieces
from prompt_tuning.prompting.rules import RulePieces

STARTS = "decoder_prefix_tokens"
_TARGETS = "decoder_target_tokens"
LENGTHS = (SUM, MEAN)

# File of label words, class -> its word or words, or a word per class; None for
# a task's own.
WordsLike = str | Mapping[str, Any] | Sequence[str] | None


@dataclasses.dataclass(frozen=True)
class ClassTable:
  """The classes of a task, as ids of a vocabulary.

  Attributes:
    names: the target texts of the classes.
    targets: [C, S] int32, the same as ids, with EOS, padded with 0.
    words: the words to score.
  """

  names: tuple[str, ...]
  targets: np.ndarray
  words: WordPieces

  def equals(self, other: "ClassTable") -> bool:
    """Whether another table has the same ids and weights; names may differ."""
    same_targets = np.array_equal(self.targets, other.targets)
    return same_targets and self.words.key == other.words.key


class Scorer(Protocol):
  """Turns logits into scores of classes.

  Attributes:
    reads_rows: whether it asks for learned output rows.
  """

  reads_rows: ClassVar[bool] = True

  def prepare(self, batch: Batch, words: WordPieces) -> Batch:
    """Prepare the decoder's inputs.

    Args:
      batch: encoder features; `decoder_prefix_tokens` if the decoder has
        virtual tokens.
      words: the words of the classes.

    Returns:
      A batch with the same number of rows.
    """
    ...

  def __call__(
    self,
    logits: Array,
    words: WordPieces,
    vocab_rows: int,
    learned: Array | None = None,
  ) -> Array:
    """Score the classes.

    Args:
      logits: [B, S, V] or [B, S, V + C], of what `prepare` made.
      words: the words of the classes.
      vocab_rows: V.
      learned: [B, C, W] or with more words, each row's `Delta.word_weights`;
        None where its run has none.

    Returns:
      [B, C] float32 log-probabilities, up to a number that all classes share.
    """
    ...

  @property
  def convention(self) -> str:
    """Describe the score for people and result files."""
    ...

  def insist_reads(self, table: ClassTable) -> None:
    """Check that this can score the classes; by default, it can score any.

    Args:
      table: the classes.

    Raises:
      ValueError: this cannot score them.
    """
    del table

  def applies(self, delta: Delta, run: int, words: WordPieces) -> bool:
    """Whether a run has the parameters that this needs; by default always.

    Args:
      delta: the delta of all runs.
      run: index of one of them.
      words: the words of the classes.
    """
    del delta, run, words
    return True


class WordScorer(Scorer):
  """A scorer that combines the scores of a class's words.

  Attributes:
    aggregate: how to combine: `sum` adds their probabilities, each times its
      weight; `mean` divides that by the sum of weights; `log_mean` is the
      weighted mean of log-probabilities; `learned` the same with the weights
      that a run has learned, equal weights if it has none.
  """

  reads_rows: ClassVar[bool] = False

  aggregate: str

  def of_words(
    self, logits: Array, words: WordPieces, vocab_rows: int
  ) -> Array:
    """Score the words.

    Args:
      logits: see `Scorer`.
      words: the words of the classes.
      vocab_rows: V.

    Returns:
      [B, C, W] float32 log-probabilities; arbitrary where there is no word.
    """
    raise NotImplementedError

  def __call__(
    self,
    logits: Array,
    words: WordPieces,
    vocab_rows: int,
    learned: Array | None = None,
  ) -> Array:
    """Score the classes, see `Scorer`."""
    values = self.of_words(logits, words, vocab_rows)
    weights: Array | np.ndarray = words.weights
    if self.aggregate == LEARNED:
      weights = self.learned_weights(learned, words)
    there = words.weights > 0
    return jnp.asarray(
      aggregation.aggregate(values, weights, there, self.aggregate)
    )

  def learned_weights(
    self, learned: Array | None, words: WordPieces
  ) -> Array | np.ndarray:
    """Select the weights of the table's words.

    Args:
      learned: see `Scorer`; any number of rows.
      words: the words of the classes.

    Returns:
      [..., C, W]; equal weights if none are learned.
    """
    classes, width = words.weights.shape
    if learned is None:
      return np.zeros((classes, width), np.float32)
    return learned[..., :classes, :width]

  def applies(self, delta: Delta, run: int, words: WordPieces) -> bool:
    """See `Scorer`.

    Raises:
      ValueError: the run has learned weights of other words.
    """
    if self.aggregate == LEARNED and delta.word_weights is not None:
      _insist_on_weights(np.asarray(delta.word_weights[run]), words)
    return True


@dataclasses.dataclass(frozen=True)
class WholeWords(WordScorer):
  """The log-probability of whole words, with EOS: the default.

  One decoder row holds all words as separate segments, like the examples of a
  packed row. Memory grows with the total number of pieces.

  Attributes:
    aggregate: how to score a class with several words, see `WordScorer`.
    length: `sum` takes the probabilities of words, `mean` divides their
      logarithms by the number of pieces, with EOS.
  """

  aggregate: str = "sum"
  length: str = "sum"

  def __post_init__(self) -> None:
    _insist("aggregate", self.aggregate, aggregation.AGGREGATIONS)
    _insist("length", self.length, LENGTHS)

  @property
  def convention(self) -> str:
    """See `Scorer`."""
    return (
      f"whole words with EOS, {self.length} over pieces, {self.aggregate} over "
      "words"
    )

  def prepare(self, batch: Batch, words: WordPieces) -> Batch:
    """Put every word into its own segment, see `Scorer`."""
    starts = _starts(batch)
    inputs, targets, segments = [], [], []
    before = np.array(words.start, np.int32)
    for number, ids in enumerate(_targets(words), 1):
      ids = np.append(before, ids)
      rest = jnp.broadcast_to(ids[None, :-1], (len(starts), len(ids) - 1))
      inputs += [starts, rest]
      targets += [np.zeros(starts.shape[1] - 1, np.int32), ids]
      segments += [np.full(starts.shape[1] + len(ids) - 1, number, np.int32)]
    made = jnp.concatenate(inputs, axis=1)
    return _encoder_features(batch) | {
      "decoder_input_tokens": made,
      _TARGETS: jnp.broadcast_to(np.concatenate(targets)[None], made.shape),
      "decoder_segment_ids": jnp.broadcast_to(
        np.concatenate(segments)[None], made.shape
      ),
    }

  def of_words(
    self, logits: Array, words: WordPieces, vocab_rows: int
  ) -> Array:
    """Score the words, see `WordScorer`."""
    targets = _targets(words)
    starts, rest = divmod(
      logits.shape[1] - sum(map(len, targets)), len(targets)
    )
    assert not rest
    # A word's pieces are the last ones of its segment.
    shape = (len(targets), max(map(len, targets)))
    where, there = np.zeros(shape, np.int32), np.zeros((1, *shape), bool)
    begin = 0
    for number, ids in enumerate(targets):
      begin += starts
      where[number, : len(ids)] = begin + np.arange(len(ids))
      there[0, number, : len(ids)] = True
      begin += len(ids)
    padding = np.zeros(starts, np.int32)
    row = np.concatenate([part for ids in targets for part in (padding, ids)])
    index = jnp.broadcast_to(row[None], logits.shape[:2])[..., None]
    picked = jnp.take_along_axis(logits, index, axis=-1)[..., 0]
    log_probs = picked - jax.nn.logsumexp(logits[..., :vocab_rows], -1)
    of_words = jnp.where(there, log_probs[:, where], 0).sum(-1)
    if self.length == "mean":
      of_words = of_words / there.sum(-1).astype(np.float32)
    return _by_class(of_words, words)


@dataclasses.dataclass(frozen=True)
class _AtStart(WordScorer):
  """Scores of words from the decoder's first answer position.

  Attributes:
    aggregate: see `WordScorer`.
  """

  aggregate: str = SUM
  pieces: ClassVar[str] = ""  # which of a word's, for people

  def __post_init__(self) -> None:
    _insist("aggregate", self.aggregate, aggregation.AGGREGATIONS)

  @property
  def convention(self) -> str:
    """See `Scorer`."""
    return f"{self.pieces}, {self.aggregate} over words"

  def insist_reads(self, table: ClassTable) -> None:
    """Check that there is one mask, see `Scorer`."""
    if isinstance(table.words, RulePieces):
      raise ValueError(
        f"The scorer {type(self).__name__} reads only the first of "
        f"{len(table.words.sentinels)} masks, but the classes have a word at "
        "each mask. Set SCORER to @scorers.Sentinels() or "
        "@scorers.WholeWords()."
      )

  def prepare(self, batch: Batch, words: WordPieces) -> Batch:
    """Let the decoder read only its start, see `Scorer`."""
    return _first_position(batch, words)


class FirstPiece(_AtStart):
  """The log-probability of the first piece of words; OpenPrompt's `first`.

  Words with the same first piece score the same; `label_words.survey` names
  them.
  """

  pieces: ClassVar[str] = "first piece"

  def of_words(
    self, logits: Array, words: WordPieces, vocab_rows: int
  ) -> Array:
    """Score the words, see `WordScorer`."""
    log_probs = _log_probs(logits, vocab_rows)
    return log_probs[:, words.pieces[..., 0]]


class MeanPiece(_AtStart):
  """The mean log-probability of a word's pieces, all at the first position.

  OpenPrompt's `mean`: it is not a probability; it is here for comparison with
  OpenPrompt.
  """

  pieces: ClassVar[str] = "mean of pieces at the first position"

  def of_words(
    self, logits: Array, words: WordPieces, vocab_rows: int
  ) -> Array:
    """Score the words, see `WordScorer`."""
    log_probs = _log_probs(logits, vocab_rows)[:, words.pieces]
    lengths = np.maximum(words.lengths, 1).astype(np.float32)
    there = jnp.where((words.pieces != PAD_ID)[None], log_probs, 0)
    return there.sum(-1) / lengths[None]


@dataclasses.dataclass(frozen=True)
class OutputRows(Scorer):
  """The logits of learned output rows, one per class.

  The softmax's denominator is that of the vocabulary's pieces, so that rows
  equal to those of pieces score as in `FirstPiece`.
  """

  @property
  def convention(self) -> str:
    """See `Scorer`."""
    return "learned output rows"

  def applies(self, delta: Delta, run: int, words: WordPieces) -> bool:
    """Whether the run has learned rows for this number of classes."""
    rows, mask, count = delta.head_rows, delta.head_mask, len(words.pieces)
    if rows is None or rows.shape[1] < count:
      return False
    return mask is None or bool(mask[run, :count].all())

  def prepare(self, batch: Batch, words: WordPieces) -> Batch:
    """Let the decoder read only its start, see `Scorer`."""
    return _first_position(batch, words)

  def __call__(
    self,
    logits: Array,
    words: WordPieces,
    vocab_rows: int,
    learned: Array | None = None,
  ) -> Array:
    """Score the classes, see `Scorer`."""
    del learned
    classes, rows = len(words.pieces), logits.shape[-1] - vocab_rows
    if rows < classes:
      raise ValueError(
        f"There are {rows} learned output rows for {classes} classes: the "
        "scorer OutputRows needs a method that learns one per class. Change "
        "TUNER, or SCORER."
      )
    at_start = logits[:, -1]
    normaliser = jax.nn.logsumexp(at_start[:, :vocab_rows], axis=-1)
    own = at_start[:, vocab_rows : vocab_rows + classes]
    return own - normaliser[:, None]


@dataclasses.dataclass(frozen=True)
class Sentinels(Scorer):
  """The log-probability of several words, each at its own sentinel.

  The decoder reads the sentinels of all masks one after the other, without the
  words between them, so that one pass serves all masks and classes. The score
  of a class is the sum of logarithms over masks: normalised over the classes,
  the product of probabilities.

  `WholeWords` scores the same rules exactly, each word given those before it,
  at the cost of one target per class.

  Source: PTR (Han et al. 2021), whose masked model predicts all masks at once.
  """

  reads_rows: ClassVar[bool] = False

  @property
  def convention(self) -> str:
    """See `Scorer`."""
    return "words of all masks, read at once, sum over masks"

  def insist_reads(self, table: ClassTable) -> None:
    """Check that all words of the rules are single pieces, see `Scorer`."""
    words = table.words
    if not isinstance(words, RulePieces):
      raise ValueError(
        "The scorer Sentinels reads a word at each mask, but these classes "
        "have label words of one mask: give the task `rules`, or set SCORER "
        "to @scorers.WholeWords()."
      )
    if words.several:
      raise ValueError(
        "The scorer Sentinels reads one piece at each mask, but these words "
        f"have several: {', '.join(map(str, words.several))}. Set SCORER to "
        "@scorers.WholeWords(), which scores whole targets, or give the task "
        "`substitutes` for them."
      )

  def prepare(self, batch: Batch, words: WordPieces) -> Batch:
    """Let the decoder read all sentinels, see `Scorer`."""
    starts = _starts(batch)
    row = np.array(_rules(words).sentinels, np.int32)
    given = jnp.broadcast_to(row[None], (len(starts), len(row)))
    targets = np.zeros(starts.shape[1] + len(row), np.int32)
    targets[starts.shape[1] - 1 :] = EOS_ID
    return _encoder_features(batch) | {
      "decoder_input_tokens": jnp.concatenate([starts, given], axis=1),
      _TARGETS: jnp.broadcast_to(targets[None], (len(starts), len(targets))),
    }

  def at_masks(
    self, logits: Array, words: WordPieces, vocab_rows: int
  ) -> Array:
    """Score the words of every class at every mask.

    Args:
      logits: see `Scorer`.
      words: the words of the classes.
      vocab_rows: V.

    Returns:
      [B, C, M] float32 log-probabilities.
    """
    ids = _rules(words).at_masks
    log_probs = jax.nn.log_softmax(logits[:, -ids.shape[1] :, :vocab_rows])
    return log_probs[:, np.arange(ids.shape[1])[None], ids]

  def __call__(
    self,
    logits: Array,
    words: WordPieces,
    vocab_rows: int,
    learned: Array | None = None,
  ) -> Array:
    """Score the classes, see `Scorer`."""
    del learned
    return self.at_masks(logits, words, vocab_rows).sum(-1)


def _rules(words: WordPieces) -> RulePieces:
  assert isinstance(words, RulePieces), "see `Sentinels.insist_reads`"
  return words


class _Words(NamedTuple):
  """The indices of the words that a table has."""

  classes: np.ndarray
  numbers: np.ndarray


def _present(words: WordPieces) -> _Words:
  """List the words that a table has, class by class."""
  return _Words(*np.nonzero(words.lengths))


def _targets(words: WordPieces) -> list[np.ndarray]:
  """List the ids of every word, with EOS."""
  rows = words.pieces[tuple(_present(words))]
  return [
    np.append(row[row != PAD_ID], EOS_ID).astype(np.int32) for row in rows
  ]


def _by_class(values: Array, words: WordPieces) -> Array:
  """Arrange the values of words as a table: [B, words] -> [B, C, W]."""
  number = np.zeros(words.lengths.shape, np.int32)
  number[tuple(_present(words))] = np.arange(values.shape[1])
  return values[:, number]


def _insist_on_weights(learned: np.ndarray, words: WordPieces) -> None:
  """Check that weights [C', W'] are for all words of the table, or more.

  Words that are not in the vocabulary have weights, but are not scored.
  """
  there = words.weights > 0
  known = learned > NO_WORD / 2
  if not known.any():  # a run beside others, which has learned none
    return
  fits = (np.array(known.shape) >= there.shape).all()
  classes, width = there.shape
  if (
    not fits
    or (there & ~known[:classes, :width]).any()
    or known[classes:].any()
    or known[:, width:].any()
  ):
    raise ValueError(
      f"The run has learned weights for {_counts(known)} words (class by "
      f"class), but the task has {_counts(there)}. Set LABEL_WORDS, or the "
      "task's label words, to those of the training."
    )


def _counts(there: np.ndarray) -> str:
  counts = there.sum(axis=-1)
  return ", ".join(map(str, counts[counts > 0].tolist()))


def _starts(batch: Batch) -> Array:
  """Return the first tokens of the decoder, [B, Q]."""
  starts = batch.get(STARTS)
  if starts is not None:
    return starts
  rows = len(batch["encoder_input_tokens"])
  return jnp.full((rows, 1), PAD_ID, jnp.int32)


def _first_position(batch: Batch, words: WordPieces) -> Batch:
  """Let the decoder read up to a word, to predict the word's first piece."""
  starts = _starts(batch)
  before = np.array(words.start, np.int32)
  row = np.concatenate([np.zeros(starts.shape[1] - 1, np.int32), before])
  # The start token has a target; padding has none.
  row = np.append(row, np.int32(EOS_ID))
  given = jnp.broadcast_to(before[None], (len(starts), len(before)))
  return _encoder_features(batch) | {
    "decoder_input_tokens": jnp.concatenate([starts, given], axis=1),
    _TARGETS: jnp.broadcast_to(row[None], (len(starts), len(row))),
  }


def _encoder_features(batch: Batch) -> dict[str, Array]:
  return {
    name: array
    for name, array in batch.items()
    if not name.startswith("decoder_")
  }


def _log_probs(logits: Array, vocab_rows: int) -> Array:
  """Return the log-probabilities of the first answer position, [B, V]."""
  return jax.nn.log_softmax(logits[:, -1, :vocab_rows])


def _insist(name: str, value: str, known: tuple[str, ...]) -> None:
  if value not in known:
    raise ValueError(
      f"A scorer's {name} {value!r}: expected one of {', '.join(known)}."
      f"{tree.nearest(value, known)}"
    )
