"""The perceptron's loss over classes: the right class should score best."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from prompt_tuning.core.types import Array
from prompt_tuning.models.scorers import Scorer, WholeWords
from prompt_tuning.train.classes import Classes, ClassLoss
from prompt_tuning.train.objectives import Setting


@dataclasses.dataclass(frozen=True)
class Perceptron(Classes):
  """The best score of all classes minus the right class's score.

  Attributes:
    scorer: by default the mean log-probability of a word's pieces.
    margin: added to the loss of every example. The best score may be that of
      the right class, so that the margin changes no gradient.

  Source: google-research/prompt-tuning, `extended/perceptron`, hinge = 0.2,
  with length-normalised scores; its authors call the result negative.
  """

  scorer: Scorer = dataclasses.field(
    default_factory=lambda: WholeWords(length="mean")
  )
  margin: float = 0.2

  def __post_init__(self) -> None:
    if not self.margin >= 0:
      raise ValueError(
        f"PERCEPTRON_MARGIN is {self.margin!r}; expected a number, at least 0."
      )

  def for_runs(self, setting: Setting) -> "PerceptronLoss":
    """Learn the words of the tasks, see `Classes`."""
    made = super().for_runs(setting)
    return PerceptronLoss(
      *(made.scorer, made.table, made.vocab_rows, made.start_length),
      margin=self.margin,
    )


@dataclasses.dataclass(frozen=True)
class PerceptronLoss(ClassLoss):
  """The loss of `Perceptron` for given classes.

  Attributes:
    margin: see `Perceptron`.
  """

  can_be_flat: ClassVar[bool] = True

  margin: float = 0.2

  def losses(self, scores: Array, gold: Array) -> Array:
    """Compare the right class's score with the best, see `ClassLoss`."""
    right = jnp.where(gold, scores, 0).sum(-1)
    return jnp.maximum(self.margin + scores.max(-1) - right, 0)
