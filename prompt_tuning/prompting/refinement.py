"""Refinement of label words from a knowledge base: which words to keep.

Both functions use the model's answers to texts without labels. A class always
keeps its best word, and the result says for which classes this was needed.

Source: Hu et al. 2021 (KPT), section 3.3, and its code at 6c9ce53.
"""

from typing import NamedTuple

import numpy as np


class Kept(NamedTuple):
  """The words to keep.

  Attributes:
    words: [C, W] bool.
    saved: [C] bool, classes that keep only their best word because all would
      have been dropped.
  """

  words: np.ndarray
  saved: np.ndarray


def frequent(prior: np.ndarray, there: np.ndarray, share: float) -> Kept:
  """Drop the words that a model rarely answers with.

  Deviation: `share` is a share of the label words. KPT's code drops this share
  of the whole vocabulary, and all words with a piece among the dropped ones.

  Args:
    prior: [C, W] logarithms, see `calibration.log_prior`.
    there: [C, W] bool, True where there is a word.
    share: share of the words to drop, from 0 (none) to below 1.

  Raises:
    ValueError: the share is out of this range.
  """
  if not 0 <= share < 1:
    raise ValueError(f"Share of words to drop: {share}; expected 0 to below 1.")
  ranked = np.sort(prior[there])
  least = ranked[int(share * len(ranked))]
  return _keep(there & (prior >= least), prior, there)


def relevance(
  answers: np.ndarray, there: np.ndarray, order: float = 1.0
) -> np.ndarray:
  """Measure how specific a word is to its class.

  R(v) = r(v, f(v)) / mean of r(v, y) over the other classes y. r is a cosine,
  over D texts, between the model's scores of v and of the class's name, which
  is its first word.

  Args:
    answers: [D, C, W] scores: probabilities in the paper, logits minus their
      mean over texts in the code.
    there: [C, W] bool, True where there is a word; the first of these in a
      class is its name.
    order: order of the generalised mean: 1 in the paper, `order_of_code` in the
      code.

  Returns:
    [C, W] float64; minus infinity where there is no word. A word with a
    negative cosine to its own class gets -100, as in the code.
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
    # Divide by the largest, because high powers of cosines would underflow.
    top = others.max(-1, keepdims=True)
    powers = (others / top) ** order
    mean = top[..., 0] * (powers.sum(-1) / (classes - 1)) ** (1 / order)
  with np.errstate(divide="ignore", invalid="ignore"):
    ratio = to_own / mean
  return np.where(there, np.where(to_own < 0, -100.0, ratio), -np.inf)


def order_of_code(classes: int) -> float:
  """Return the order of the generalised mean in KPT's code."""
  return 10 / (classes - 2 + 1e-2) + 1


def relevant(values: np.ndarray, there: np.ndarray, least: float = 1.0) -> Kept:
  """Drop the words that fit other classes as well.

  Args:
    values: [C, W], see `relevance`.
    there: [C, W] bool, True where there is a word.
    least: smallest relevance of a word to keep.
  """
  return _keep(there & (values >= least), values, there)


def _keep(keep: np.ndarray, values: np.ndarray, there: np.ndarray) -> Kept:
  """Keep the best word of a class that would have none."""
  saved = np.asarray(~keep.any(axis=-1))
  best = np.argmax(np.where(there, values, -np.inf), axis=-1)
  keep = keep.copy()
  keep[saved, best[saved]] = True
  return Kept(keep, saved)
