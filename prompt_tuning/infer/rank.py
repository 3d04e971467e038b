"""Scores of given targets, and the choice of the best candidate.

A target is always scored as a whole, with EOS, because the first piece alone
may not decide (`choice1` and `choice2` share it, `entailment` starts with a
blank).
"""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from prompt_tuning.core.types import UNK_ID
from prompt_tuning.data.vocabulary import insist_distinct
from prompt_tuning.infer import batching, programs
from prompt_tuning.infer.batching import BatchPlan
from prompt_tuning.infer.inputs import Inputs, Rows, encode_targets
from prompt_tuning.infer.predict import Predictor
from prompt_tuning.models.scorers import Scorer, WordScorer
from prompt_tuning.prompting.label_words import WordPieces

# The default description of a candidate's score, without a scorer.
CONVENTION = "whole targets with EOS, sum over pieces"
# Positions of words in one decoder row: more need memory, fewer need time.
_ROW = 512

logger = logging.getLogger(__name__)

Normalise = Literal["sum", "mean"]


class Ranking(NamedTuple):
  """The ranked candidates of one input.

  Attributes:
    best: index of the candidate with the highest score; in a tie, the first.
    scores: log-likelihood of every candidate (natural logarithm).
  """

  best: int
  scores: tuple[float, ...]


def score(
  predictor: Predictor, asked: Inputs, targets: Sequence[str]
) -> list[float]:
  """Compute the log-likelihood of one given target per input.

  Args:
    predictor: the model and its runs.
    asked: n inputs.
    targets: n texts.

  Returns:
    n sums over target tokens, with EOS (natural logarithm).

  Raises:
    ValueError: the numbers of targets and inputs differ.

  Source: T5X's score_batch.
  """
  if len(targets) != len(asked):
    raise ValueError(
      f"{len(targets)} targets for {len(asked)} inputs; expected one for each."
    )
  rows = encode_targets(predictor.vocabulary, targets)
  if any(np.any(row == UNK_ID) for row in rows):  # no count: these are a few
    logger.warning(
      "Some targets have characters that the vocabulary lacks; the unknown "
      "piece is scored in their place."
    )
  scores = log_likelihoods(predictor, asked, [[row] for row in rows])
  return [float(values[0]) for values in scores]


def rank(
  predictor: Predictor,
  asked: Inputs,
  candidates: Sequence[str] | Sequence[Sequence[str]],
  normalise: Normalise = "sum",
) -> list[Ranking]:
  """Choose the most likely candidate for every input.

  Args:
    predictor: the model and its runs.
    asked: n inputs.
    candidates: one list of texts for all inputs, or one list for each.
    normalise: `sum` compares the probabilities of whole targets, `mean` divides
      their logarithm by the number of tokens, with EOS.

  Returns:
    n rankings.

  Raises:
    ValueError: an input has no candidates, or two with the same token ids; the
      numbers of lists and inputs differ; or `normalise` is unknown.
  """
  if normalise not in ("sum", "mean"):
    raise ValueError(
      f"Unknown length convention {normalise!r}; expected 'sum' or 'mean'."
    )
  rows = encode_candidates(predictor, candidates, len(asked))
  rows = _as_answers(predictor, asked, candidates, rows)
  rankings = []
  for candidate_ids, values in zip(
    rows, log_likelihoods(predictor, asked, rows), strict=True
  ):
    if normalise == "mean":
      values = values / np.array(
        [len(ids) for ids in candidate_ids], np.float32
      )
    rankings.append(Ranking(int(values.argmax()), tuple(values.tolist())))
  return rankings


def classify(
  predictor: Predictor, asked: Inputs, words: WordPieces, scorer: Scorer
) -> list[Ranking]:
  """Choose the class for every input by its label words.

  Args:
    predictor: the model and its runs.
    asked: n inputs.
    words: the words of C classes.
    scorer: scores the classes.

  Returns:
    n rankings of the classes.
  """
  program = programs.class_scores(
    predictor.config,
    scorer,
    programs.Words(words),
    predictor.mesh,
  )
  by_example: dict[int, Ranking] = {}
  for plan, scores in predictor.map_batches(program, asked, lambda _: {}):
    for row, example in enumerate(plan.examples.tolist()):
      best = int(scores[row].argmax())
      by_example[example] = Ranking(best, tuple(scores[row].tolist()))
  return [by_example[example] for example in range(len(asked))]


def word_scores(
  predictor: Predictor, asked: Inputs, words: WordPieces, scorer: WordScorer
) -> np.ndarray:
  """Score every word of every class for every input.

  Many words are scored in several passes; each pass reads the inputs again.

  Args:
    predictor: the model and its runs.
    asked: n inputs.
    words: the words of C classes.
    scorer: scores the classes.

  Returns:
    [n, C, W] float32 log-probabilities; arbitrary where there is no word.
  """
  result = np.zeros((len(asked), *words.weights.shape), np.float32)
  for columns in _turns(words):
    part = dataclasses.replace(
      words,
      pieces=words.pieces[:, columns],
      weights=words.weights[:, columns],
    )
    program = programs.word_scores(
      predictor.config,
      scorer,
      programs.Words(part),
      predictor.mesh,
    )
    for plan, scores in predictor.map_batches(program, asked, lambda _: {}):
      result[plan.examples, :, columns] = scores[: len(plan.examples)]
  return result


def _turns(words: WordPieces) -> list[slice]:
  """Divide all words into passes whose words fit into one decoder row."""
  sizes = (words.lengths + 1).sum(axis=0)  # EOS too
  turns, start, size = [], 0, 0
  for column, pieces in enumerate(sizes.tolist()):
    if column > start and size + pieces > _ROW:
      turns.append(slice(start, column))
      start, size = column, 0
    size += pieces
  return [*turns, slice(start, len(sizes))]


def encode_candidates(
  predictor: Predictor,
  candidates: Sequence[str] | Sequence[Sequence[str]],
  count: int,
) -> list[list[np.ndarray]]:
  """Tokenise every distinct list of candidates once.

  Args:
    predictor: provides the vocabulary.
    candidates: see `rank`.
    count: n, number of inputs.

  Returns:
    For each input, the token rows of its candidates.

  Raises:
    ValueError: see `rank`.
  """
  shared = all(isinstance(candidate, str) for candidate in candidates)
  lists: list[Any] = [candidates] * count if shared else list(candidates)
  if len(lists) != count:
    raise ValueError(
      f"{len(lists)} lists of candidates for {count} inputs; expected one for "
      "each."
    )
  known: dict[tuple[str, ...], list[np.ndarray]] = {}
  for row, texts in enumerate(lists):
    if not texts or isinstance(texts, str):
      raise ValueError(
        f"Input {row} has candidates {texts!r}; expected a list of at least "
        "one text."
      )
    key = tuple(texts)
    if key not in known:
      insist_distinct(predictor.vocabulary, key, None, "The candidates")
      known[key] = encode_targets(predictor.vocabulary, key)
  return [known[tuple(texts)] for texts in lists]


def _as_answers(
  predictor: Predictor,
  asked: Inputs,
  candidates: Sequence[str] | Sequence[Sequence[str]],
  rows: list[list[np.ndarray]],
) -> list[list[np.ndarray]]:
  """Replace candidates by the ids of their learned output rows, if any."""
  if not any(predictor.runs.answers):
    return rows
  shared = all(isinstance(candidate, str) for candidate in candidates)
  replaced = []
  for example, own_rows in enumerate(rows):
    texts = candidates if shared else candidates[example]
    answers = predictor.runs.answers_of(int(asked.run_ids[example]))
    ids = {t: predictor.config.vocab_size + k for k, t in enumerate(answers)}
    replaced.append(
      [
        np.asarray([ids[text]], np.int32) if text in ids else row
        for text, row in zip(texts, own_rows, strict=True)
      ]
    )
  return replaced


def log_likelihoods(
  predictor: Predictor, asked: Inputs, candidates: Sequence[Rows]
) -> list[np.ndarray]:
  """Score token rows.

  Args:
    predictor: the model and its runs.
    asked: n inputs.
    candidates: for each input, C_i token rows with EOS.

  Returns:
    For each input, [C_i] float32, summed log-likelihoods.
  """
  program = programs.candidate_scores(predictor.config, predictor.mesh)

  def features(plan: BatchPlan) -> dict[str, np.ndarray]:
    targets = [candidates[example] for example in plan.examples.tolist()]
    return {"candidates": batching.pad_targets(targets, plan.rows)}

  by_example: dict[int, np.ndarray] = {}
  for plan, scores in predictor.map_batches(program, asked, features):
    for row, example in enumerate(plan.examples.tolist()):
      by_example[example] = scores[row, : len(candidates[example])]
  return [by_example[example] for example in range(len(asked))]
