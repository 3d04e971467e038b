"""Contextual calibration: it corrects a model's preference for some words.

The prior of a word is the probability that the model answers with it, over
texts without labels. Scores of words are divided by it. All arrays are numpy's;
an entry without a word (`there` False) has probability 0.

Source: Hu et al. 2021 (KPT), section 3.3.3, and OpenPrompt's `ManualVerbalizer`
at f6fb080.
"""

import numpy as np

# How the prior is made of the scores that words have in single texts. `logits`:
# the softmax of their mean, as KPT's code does, so that a bias of a word's
# logit changes nothing. `probabilities`: their mean, as the paper says.
LOGITS, PROBABILITIES = "logits", "probabilities"
PRIORS = (LOGITS, PROBABILITIES)


def normalise(scores: np.ndarray, there: np.ndarray) -> np.ndarray:
  """Turn scores into log-probabilities over all label words.

  Args:
    scores: [..., C, W], logarithms up to a number that all words share.
    there: [C, W] bool, True where there is a word.

  Returns:
    [..., C, W] float64; minus infinity where there is no word.
  """
  values = np.where(there, np.asarray(scores, np.float64), -np.inf)
  return values - _log_sum(values, (-2, -1))


def log_prior(
  scores: np.ndarray, there: np.ndarray, of: str = LOGITS
) -> np.ndarray:
  """Estimate the prior of words, independent of the text.

  Args:
    scores: [D, C, W] log-probabilities of words in D texts.
    there: [C, W] bool, see `normalise`.
    of: one of `PRIORS`.

  Returns:
    [C, W] float64 log-probabilities over all label words.

  Raises:
    ValueError: there are no texts, or the kind is unknown.
  """
  if of not in PRIORS:
    raise ValueError(f"Prior of {of!r}: expected one of {', '.join(PRIORS)}.")
  if not len(scores):
    raise ValueError("A prior needs at least one text.")
  values = np.asarray(scores, np.float64)
  if of == LOGITS:
    return normalise(values.mean(axis=0), there)
  values = np.where(there, values, -np.inf)
  return normalise(_log_sum(values, (0,))[0], there)


def calibrate(
  scores: np.ndarray, prior: np.ndarray, there: np.ndarray
) -> np.ndarray:
  """Divide the probabilities of words by their prior.

  Args:
    scores: [..., C, W] as for `normalise`.
    prior: [C, W] logarithms.
    there: [C, W] bool.

  Returns:
    [..., C, W] float64 log-probabilities over all label words.
  """
  return normalise(
    np.asarray(scores, np.float64) - np.where(there, prior, 0), there
  )


def _log_sum(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
  """Add numbers whose logarithms are given; the axes stay, of size 1."""
  top = values.max(axis=axes, keepdims=True)
  top = np.where(np.isfinite(top), top, 0)
  with np.errstate(divide="ignore"):
    return top + np.log(np.exp(values - top).sum(axis=axes, keepdims=True))
