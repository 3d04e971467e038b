"""Refinement of label words from a knowledge base: which of them to keep.

Both look at what the model answers to texts without labels. Neither empties a
class: its best word stays, and who was saved is told.

Source: Hu et al. 2021 (KPT), section 3.3, and its code at 6c9ce53.
"""

from typing import NamedTuple

import numpy as np


class Kept(NamedTuple):
  """Words that stay.

  Attributes:
    words: [C, W] bool.
    saved: [C] bool, classes that would have had none, and keep their best.
  """

  words: np.ndarray
  saved: np.ndarray


def frequent(prior: np.ndarray, there: np.ndarray, share: float) -> Kept:
  """Drop the words that a model hardly ever answers.

  Deviation: the share is one of the label words; KPT's code drops that share of
  the whole vocabulary, and words with a piece among it.

  Args:
    prior: [C, W] logarithms, see `calibration.log_prior`.
    there: [C, W] bool.
    share: of the words to drop, from 0 (none) to below 1.

  Raises:
    ValueError: another share.
  """
  if not 0 <= share < 1:
    raise ValueError(f"Share of words to drop: {share}; expected 0 to below 1.")
  ranked = np.sort(prior[there])
  least = ranked[int(share * len(ranked))]
  return _keep(there & (prior >= least), prior, there)


def relevance(
  answers: np.ndarray, there: np.ndarray, order: float = 1.0
) -> np.ndarray:
  """Measure how much more a word goes with its class than with others.

  R(v) = r(v, f(v)) / mean of r(v, y) over the other classes y; r is the cosine
  of what a model answers in D texts for v and for the first word of a class,
  its name.

  Args:
    answers: [D, C, W]: the paper's are probabilities; the code's are logits
      less their mean over texts.
    there: [C, W] bool; the first word of a class that is, is its name.
    order: of the generalised mean: 1 in the paper, `order_of_code` in the code.

  Returns:
    [C, W] float64; minus infinity where there is no word. A word that goes
    against its own class has -100, as in the code.
  """
  vectors = np.moveaxis(np.asarray(answers, np.float64), 0, -1)
  unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
  names = unit[np.arange(len(there)), there.argmax(-1)]
  cosines = np.einsum("cwd,yd->cwy", unit, names)
  classes = len(there)
  own = np.eye(classes, dtype=bool)[:, None, :]
  to_own = np.where(own, cosines, 0).sum(-1)
  others = np.where(own, 0, np.abs(cosines) if order != 1 else cosines)
  mean = others.sum(-1) / (classes - 1)
  if order != 1:
    # Divided by the largest: high powers of cosines are below any number.
    top = others.max(-1, keepdims=True)
    powers = (others / top) ** order
    mean = top[..., 0] * (powers.sum(-1) / (classes - 1)) ** (1 / order)
  with np.errstate(divide="ignore", invalid="ignore"):
    ratio = to_own / mean
  return np.where(there, np.where(to_own < 0, -100.0, ratio), -np.inf)


def order_of_code(classes: int) -> float:
  """Return the order of the generalised mean that KPT's code takes."""
  return 10 / (classes - 2 + 1e-2) + 1


def relevant(values: np.ndarray, there: np.ndarray, least: float = 1.0) -> Kept:
  """Drop the words that go with other classes as well.

  Args:
    values: [C, W], see `relevance`.
    there: [C, W] bool.
    least: that a word must have.
  """
  return _keep(there & (values >= least), values, there)


def _keep(keep: np.ndarray, values: np.ndarray, there: np.ndarray) -> Kept:
  """Keep the best word of a class that would have none."""
  saved = np.asarray(~keep.any(axis=-1))
  best = np.argmax(np.where(there, values, -np.inf), axis=-1)
  keep = keep.copy()
  keep[saved, best[saved]] = True
  return Kept(keep, saved)
