"""Cross-entropy over classes: an objective for classification.

The loss of an example is the cross-entropy of its class among all classes, with
the scores of a scorer (`models.scorers`). Its class is the one that has the
target as a word.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.types import PAD_ID, Array, Batch
from prompt_tuning.models import scorers
from prompt_tuning.models.scorers import (
  ClassTable,
  Scorer,
  WholeWords,
  WordsLike,
)
from prompt_tuning.prompting.aggregation import LEARNED
from prompt_tuning.train.errors import UnknownTargetError
from prompt_tuning.train.objectives import (
  WORD_WEIGHTS,
  Objective,
  Setting,
  Sums,
)

_TARGETS = "decoder_target_tokens"


@dataclasses.dataclass(frozen=True)
class Classes:
  """Cross-entropy over the classes of a task.

  The sum over examples is minimised. Rows hold one example each: BATCHING must
  not be `packed`.

  Attributes:
    scorer: computes scores of classes.
    label_words: the words to score, see `scorers.WordsLike`. If the task has
      label words of its own, these define the classes.
  """

  scorer: Scorer = dataclasses.field(default_factory=WholeWords)
  label_words: WordsLike = None

  @property
  def reads_rows(self) -> bool:
    """Whether the scorer asks for learned output rows."""
    return getattr(self.scorer, "reads_rows", True)

  def for_runs(self, setting: Setting) -> "ClassLoss":
    """Learn the words of the tasks, see `Choice`.

    Raises:
      ValueError: words differ between runs, or the scorer cannot score them.
    """
    first, *others = [of(self.label_words) for of in setting.classes]
    if any(not first.equals(other) for other in others):
      raise ValueError(
        "The runs of this bank have different label words, but "
        "objectives.Classes needs the same ones for all. Train the runs apart "
        "(MIXTURE_OR_TASK_NAME), or set LABEL_WORDS."
      )
    self.scorer.insist_reads(first)
    return ClassLoss(
      self.scorer, first, setting.vocab_rows, setting.start_length
    )


@dataclasses.dataclass(frozen=True)
class ClassLoss(Objective):
  """The loss of `Classes` for given classes.

  Attributes:
    scorer: see `Classes`.
    table: the classes.
    vocab_rows: V.
    start_length: Q, largest number of tokens with which the decoder starts.
  """

  scorer: Scorer
  table: ClassTable
  vocab_rows: int
  start_length: int

  def prepare(self, batch: Batch) -> Batch:
    """Put the scorer's input into the decoder's features, see `Objective`."""
    if "decoder_segment_ids" in batch:
      raise ValueError(
        "The objective objectives.Classes needs one example per row: set "
        "BATCHING to 'buckets'."
      )
    starts = _starts(batch, self.start_length)
    own = {**batch, scorers.STARTS: starts}
    return self.scorer.prepare(own, self.table.words)

  def __call__(self, outputs: Outputs, batch: Batch) -> Sums:
    """Score a batch, see `Objective`.

    Args:
      outputs: with logits of what `prepare` made.
      batch: `decoder_target_tokens` [B, S]; a row without any has no weight;
        `label_word_weights` [B, C, W] where runs learn some.

    Returns:
      [B] sums of `loss`, `weights` and `sequences` (1 for an example),
      `correct` ones, `target_tokens`, and `unknown` ones, whose target is no
      class's word.
    """
    words = self.table.words
    learned = batch.get(WORD_WEIGHTS)
    self._insist_on_weights(learned)
    scores = self.scorer(outputs.logits, words, self.vocab_rows, learned)
    gold, there = self.gold(batch)
    known = gold.any(-1)
    weight = (there & known).astype(jnp.float32)
    right = jnp.take_along_axis(
      gold, scores.argmax(-1, keepdims=True), axis=-1
    )[:, 0]
    return {
      "loss": jnp.where(weight > 0, self.losses(scores, gold), 0),
      "weights": weight,
      "sequences": weight,
      "correct": jnp.where(right, weight, 0),
      "target_tokens": jnp.full_like(weight, batch[_TARGETS].shape[1]),
      "unknown": (there & ~known).astype(jnp.float32),
    }

  def gold(self, batch: Batch) -> tuple[Array, Array]:
    """Find the class of every example.

    Args:
      batch: see `prepare`.

    Returns:
      [B, C] booleans, True for the right class, all False if no class has the
      target; and [B], whether there is a target.
    """
    return _gold(batch, self.table.targets)

  def _insist_on_weights(self, learned: Array | None) -> None:
    """Insist that there are learned weights if the scorer uses them.

    Raises:
      ValueError: nothing learns any, or those of other words.
    """
    if getattr(self.scorer, "aggregate", "") != LEARNED:
      return
    shape = self.table.words.weights.shape
    found = None if learned is None else learned.shape[1:]
    if found != shape:
      raise ValueError(
        f"The scorer needs learned weights for {[*shape]} label words, but "
        f"TUNER has {[*found] if found else 'none'}: let TUNER learn weights "
        "for the same LABEL_WORDS (methods/word_weights.gin), or change the "
        "scorer's `aggregate`."
      )

  def losses(self, scores: Array, gold: Array) -> Array:
    """Compute the loss of every example.

    Args:
      scores: [B, C].
      gold: [B, C] booleans, True for the right class.

    Returns:
      [B] float32.
    """
    return -jnp.where(gold, jax.nn.log_softmax(scores), 0).sum(-1)

  def divide(self, sums: Sums) -> Array:
    """Turn sums over each run's batch into its loss, see `Objective`."""
    return sums["loss"]

  def summarise(self, sums: Sums, num_steps: int) -> dict[str, np.ndarray]:
    """Turn sums over many steps into metrics, see `Objective`.

    Raises:
      UnknownTargetError: the target of an example is not a word of any class.
    """
    total = {name: np.asarray(x, np.float64) for name, x in sums.items()}
    if total["unknown"].any():
      raise UnknownTargetError(
        f"{int(total['unknown'].sum())} examples have a target that is not "
        f"one of the {len(self.table.targets)} label words of their task, or "
        "only the beginning of one. Raise TASK_FEATURE_LENGTHS of targets if "
        "it cuts them, correct the label words, or set OBJECTIVE to "
        "objectives.CrossEntropy."
      )
    examples = np.maximum(total["sequences"], 1)
    return {
      "loss": total["loss"] / num_steps,
      "loss_per_example": total["loss"] / examples,
      "accuracy": total["correct"] / examples,
    }


def _first(targets: Array) -> Array:
  """Find where every row's target begins, [B]."""
  return jnp.argmax(targets != PAD_ID, axis=-1)


def _starts(batch: Batch, length: int) -> Array:
  """Take what stands in front of the targets, padded on the left: [B, Q]."""
  first = _first(batch[_TARGETS])[:, None]
  # The start token stands at the position of the first target.
  where = first + jnp.arange(1 - length, 1)[None]
  inputs = batch["decoder_input_tokens"]
  taken = jnp.take_along_axis(inputs, jnp.maximum(where, 0), axis=-1)
  return jnp.where(where < 0, PAD_ID, taken)


def _gold(batch: Batch, of_classes: np.ndarray) -> tuple[Array, Array]:
  """Compare targets with those of classes: [B, C], and [B] of any target."""
  targets = batch[_TARGETS]
  longest = max(of_classes.shape[1], targets.shape[1])
  padded = jnp.pad(targets, ((0, 0), (0, longest)))
  where = _first(targets)[:, None] + jnp.arange(longest)[None]
  aligned = jnp.take_along_axis(padded, where, axis=-1)
  wide = np.pad(of_classes, ((0, 0), (0, longest - of_classes.shape[1])))
  gold = (aligned[:, None] == wide[None]).all(-1)
  return gold, (targets != PAD_ID).any(-1)
