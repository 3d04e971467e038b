"""The objective of rules: the word at every mask, and the class.

A class has a word at each of several masks (`prompting.rules`). Its probability
is the product of the words' probabilities, normalised over the classes. The
loss of an example has two parts. The first is the mean over masks of a
cross-entropy: that of the mask's word among the words of all rules at this
mask. The second is the cross-entropy of the class.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.types import Array, Batch
from prompt_tuning.models.scorers import Scorer, Sentinels
from prompt_tuning.prompting.label_words import WordPieces
from prompt_tuning.prompting.rules import RulePieces
from prompt_tuning.train.classes import Classes, ClassLoss
from prompt_tuning.train.objectives import Setting, Sums


@dataclasses.dataclass(frozen=True)
class Masks(Classes):
  """Cross-entropy at every mask, and of the class.

  Attributes:
    scorer: `Sentinels`, which reads all masks at once.
    masks_weight: weight of the first part, the mean over masks.
    classes_weight: weight of the second part, over classes; with a masks_weight
      of 0 the loss is that of `Classes`.

  Source: Han et al. 2021 (PTR), whose code has both parts with a weight of 1;
  the paper's formula has only the second part.
  """

  scorer: Scorer = dataclasses.field(default_factory=Sentinels)
  masks_weight: float = 1.0
  classes_weight: float = 1.0

  def __post_init__(self) -> None:
    if not isinstance(self.scorer, Sentinels):
      raise ValueError(
        "The objective objectives.Masks reads all masks at once: set SCORER to "
        "@scorers.Sentinels(), or OBJECTIVE to @objectives.Classes(), which "
        f"trains by any scorer; got {type(self.scorer).__name__}."
      )
    for name in ("masks_weight", "classes_weight"):
      value = getattr(self, name)
      if not 0 <= value < float("inf"):
        raise ValueError(
          f"{name.upper()} is {value!r}; expected a number, at least 0."
        )
    if not self.masks_weight + self.classes_weight > 0:
      raise ValueError(
        "MASKS_WEIGHT and CLASSES_WEIGHT are both 0, so there is nothing to "
        "minimise; expected one above 0."
      )

  def for_runs(self, setting: Setting) -> "MasksLoss":
    """Learn the rules of the tasks, see `Classes`."""
    made = super().for_runs(setting)
    return MasksLoss(
      *(made.scorer, made.table, made.vocab_rows, made.start_length),
      masks_weight=self.masks_weight,
      classes_weight=self.classes_weight,
    )


@dataclasses.dataclass(frozen=True)
class MasksLoss(ClassLoss):
  """The loss of `Masks` for given classes.

  Attributes:
    masks_weight: see `Masks`.
    classes_weight: see `Masks`.
  """

  masks_weight: float = 1.0
  classes_weight: float = 1.0

  def __call__(self, outputs: Outputs, batch: Batch) -> Sums:
    """Score a batch, see `ClassLoss`.

    Args:
      outputs: with logits of what `prepare` made.
      batch: see `ClassLoss`.

    Returns:
      [B] sums of a `ClassLoss`, and of the parts of `loss` without their
      weights: `masks_loss` and `classes_loss`.
    """
    sums = super().__call__(outputs, batch)
    scorer, words = self.scorer, self.table.words
    assert isinstance(scorer, Sentinels)
    at_masks = scorer.at_masks(outputs.logits, words, self.vocab_rows)
    of_masks = self.masks_losses(at_masks, self.gold(batch)[0])
    weight = sums["weights"]
    of_masks = jnp.where(weight > 0, of_masks, 0)
    loss = self.masks_weight * of_masks + self.classes_weight * sums["loss"]
    return {
      **sums,
      "loss": loss,
      "masks_loss": of_masks,
      "classes_loss": sums["loss"],
    }

  def masks_losses(self, at_masks: Array, gold: Array) -> Array:
    """Compute the loss of the words, as a mean over masks.

    Args:
      at_masks: [B, C, M] log-probabilities of the words of every class.
      gold: [B, C] booleans, True for the right class.

    Returns:
      [B] float32.
    """
    first = _first_with_word(self.table.words)
    total = jnp.zeros(len(at_masks), at_masks.dtype)
    for mask, classes in enumerate(first.T):
      scores = at_masks[:, :, mask]
      # Each different word once.
      alone = np.unique(classes)
      normaliser = jax.nn.logsumexp(scores[:, alone], axis=-1)
      total += normaliser - jnp.where(gold, scores, 0).sum(-1)
    return total / first.shape[1]

  def summarise(self, sums: Sums, num_steps: int) -> dict[str, np.ndarray]:
    """Turn sums over many steps into metrics, see `ClassLoss`."""
    parts = ("masks_loss", "classes_loss")
    return super().summarise(sums, num_steps) | {
      name: np.asarray(sums[name], np.float64) / num_steps for name in parts
    }


def _first_with_word(words: WordPieces) -> np.ndarray:
  """Find the first class with the same word at each mask: [C, M]."""
  assert isinstance(words, RulePieces)
  ids = words.at_masks
  same = ids[:, None] == ids[None]
  return same.argmax(axis=1)
