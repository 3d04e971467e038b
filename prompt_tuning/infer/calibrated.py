"""Classification by label words with calibrated scores (KPT).

A model's scores on texts without labels show how likely it gives a word
whatever the text (the word's prior), and to which class name the word is
related.

Source: Hu et al. 2021 (KPT), sections 3.2 and 3.3.
"""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from prompt_tuning.core import bounds
from prompt_tuning.infer import rank
from prompt_tuning.infer.inputs import Inputs
from prompt_tuning.infer.predict import Predictor
from prompt_tuning.models.scorers import WordScorer
from prompt_tuning.prompting import aggregation, calibration, refinement
from prompt_tuning.prompting.label_words import WordPieces, some

logger = logging.getLogger(__name__)

_SHOWN = 10  # dropped words that a message names


@dataclasses.dataclass(frozen=True)
class Calibration:
  """How to calibrate scores of words, and which words to use.

  Attributes:
    texts: maximum number of texts of the training split, without their labels,
      from which the prior is estimated; KPT uses 200.
    seed: seed for choosing these texts.
    prior: `logits` as in KPT's code, or `probabilities` as in the paper, see
      `prompting.calibration`.
    drop_rare: share of the label words to drop, those with the lowest prior; 0
      for none.
    least_relevance: minimum relevance of a word to its class, 1 in the paper;
      None keeps all words.
  """

  texts: int = 200
  seed: int = 0
  prior: str = calibration.LOGITS
  drop_rare: float = 0.0
  least_relevance: float | None = None

  def __post_init__(self) -> None:
    bounds.insist_whole("Calibration.texts", self.texts, 1)
    bounds.insist_whole("Calibration.seed", self.seed, 0)
    if self.prior not in calibration.PRIORS:
      raise ValueError(
        f"Calibration.prior {self.prior!r}: expected one of "
        f"{', '.join(calibration.PRIORS)}."
      )
    if not 0 <= self.drop_rare < 1:
      raise ValueError(
        f"Calibration.drop_rare {self.drop_rare}: expected 0 to below 1."
      )

  def choose(self, count: int) -> np.ndarray:
    """Choose the texts from which the prior is estimated.

    Args:
      count: number of texts.

    Returns:
      At most `texts` row indices, ascending.
    """
    order = np.random.default_rng(self.seed).permutation(count)
    return np.sort(order[: self.texts])


def classify(
  predictor: Predictor,
  asked: Inputs,
  context: Inputs,
  classes: Sequence[str],
  words: WordPieces,
  scorer: WordScorer,
  how: Calibration,
) -> tuple[list[rank.Ranking], str]:
  """Choose the class of every input.

  Args:
    predictor: the model and its runs.
    asked: n inputs of one run.
    context: inputs without labels, of the same run.
    classes: class names, for warnings.
    words: the words of the classes.
    scorer: scores the words.
    how: how to calibrate their scores.

  Returns:
    n rankings, and a record of the calibration for a result file.
  """
  there = words.weights > 0
  of_context = rank.word_scores(predictor, context, words, scorer)
  of_context = of_context.astype(np.float64)
  prior = calibration.log_prior(of_context, there, how.prior)
  keep = _refined(classes, of_context, prior, there, how)
  scores = rank.word_scores(predictor, asked, words, scorer)
  of_classes = aggregation.aggregate(
    calibration.calibrate(scores, prior, keep),
    _weights(predictor, asked, words, scorer),
    keep,
    scorer.aggregate,
  )
  _log_dropped(predictor, words, there & ~keep)
  convention = (
    f"{scorer.convention}, calibrated by the prior of {how.prior} of "
    f"{len(context)} texts, {keep.sum()} of {there.sum()} words"
  )
  rankings = [
    rank.Ranking(int(row.argmax()), tuple(row.tolist())) for row in of_classes
  ]
  return rankings, convention


def _weights(
  predictor: Predictor, asked: Inputs, words: WordPieces, scorer: WordScorer
) -> np.ndarray:
  """Return the weights of words: [C, W], or learned ones, [n, C, W]."""
  if scorer.aggregate != aggregation.LEARNED:
    return words.weights
  learned = predictor.runs.delta.word_weights
  if learned is not None:
    learned = learned[np.asarray(asked.run_ids)]
  return np.asarray(scorer.learned_weights(learned, words))


def _refined(
  classes: Sequence[str],
  scores: np.ndarray,
  prior: np.ndarray,
  there: np.ndarray,
  how: Calibration,
) -> np.ndarray:
  """Return which words are used, [C, W] bool."""
  keep = there
  for name, kept in _refinements(scores, prior, there, how):
    if kept.saved.any():
      pairs = zip(classes, kept.saved, strict=True)
      saved = [repr(of_class) for of_class, is_saved in pairs if is_saved]
      logger.warning(
        "%s would leave %d of %d classes without words (%s); each keeps its "
        "best word.",
        *(name, len(saved), len(classes), some(saved)),
      )
    both = keep & kept.words
    # The other rule may drop a word that one of the rules kept.
    lost = ~both.any(-1)
    keep = np.where(lost[:, None], kept.words, both)
  return keep


def _refinements(
  scores: np.ndarray, prior: np.ndarray, there: np.ndarray, how: Calibration
) -> list[tuple[str, refinement.Kept]]:
  refinements = []
  if how.drop_rare:
    kept = refinement.frequent(prior, there, how.drop_rare)
    refinements.append(("Calibration.drop_rare", kept))
  if how.least_relevance is not None:
    # A factor does not change cosines; without it, small numbers would be 0.
    answers = np.exp(scores - scores.max(axis=0))
    values = refinement.relevance(answers, there)
    kept = refinement.relevant(values, there, how.least_relevance)
    refinements.append(("Calibration.least_relevance", kept))
  return refinements


def _log_dropped(
  predictor: Predictor, words: WordPieces, dropped: np.ndarray
) -> None:
  """Log the words that are not used."""
  if not dropped.any():
    return
  decode = predictor.vocabulary.decode
  texts = [decode(ids[ids != 0]) for ids in words.pieces[dropped][:_SHOWN]]
  more = dropped.sum() - len(texts)
  logger.info(
    "Calibration leaves out %d label words: %s%s.",
    *(dropped.sum(), ", ".join(texts), f" and {more} more" if more else ""),
  )
