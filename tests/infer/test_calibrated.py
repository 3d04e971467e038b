"""Calibrated and refined classes, against numpy on the same scores of words."""

import dataclasses
import logging

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core.delta import NO_WORD, Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.infer import calibrated, rank
from prompt_tuning.infer.calibrated import Calibration
from prompt_tuning.infer.runs import Runs
from prompt_tuning.models import scorers
from prompt_tuning.prompting import aggregation, calibration, refinement
from prompt_tuning.prompting.label_words import LabelWords, WordPieces

# As in `test_classes`, whose programs these are.
LISTS = {
  "animal": {"cat": 1.0, "choice 1": 2.0, "dog runs 1": 0.5},
  "colour": {"red": 1.0, "choice 2": 0.25},
}
MEAN_OF_LOGS = scorers.WholeWords("log_mean")


@pytest.fixture(scope="module")
def words(predictor):
  def encode(text):
    return predictor.vocabulary.encode_batch([text])[0]

  return WordPieces.of(LabelWords.of(LISTS), encode)


@pytest.fixture(scope="module")
def asked(predictor, texts):
  return predictor.encode(texts[3:7], [1] * 4)


@pytest.fixture(scope="module")
def context(predictor, texts):
  return predictor.encode(texts[:4], [1] * 4)


def test_classes_are_made_of_the_scores_of_words(
  predictor, asked, words, tolerance
):
  there = words.weights > 0
  scores = rank.word_scores(predictor, asked, words, MEAN_OF_LOGS)
  found = rank.classify(predictor, asked, words, MEAN_OF_LOGS)
  expected = aggregation.aggregate(scores, words.weights, there, "log_mean")
  np.testing.assert_allclose(
    [r.scores for r in found], expected, **tolerance["oracle"]
  )


def test_many_words_are_scored_in_turns(
  predictor, asked, words, monkeypatch, tolerance
):
  whole = rank.word_scores(predictor, asked, words, MEAN_OF_LOGS)
  monkeypatch.setattr(rank, "_ROW", 6)
  assert len(rank._turns(words)) == 3
  turns = rank.word_scores(predictor, asked, words, MEAN_OF_LOGS)
  there = words.weights > 0
  np.testing.assert_allclose(
    turns[:, there], whole[:, there], **tolerance["same"]
  )


@pytest.mark.parametrize("prior", calibration.PRIORS)
def test_scores_are_divided_by_their_prior(
  predictor, asked, context, words, prior, tolerance
):
  how = Calibration(prior=prior)
  found, convention = calibrated.classify(
    predictor, asked, context, tuple(LISTS), words, MEAN_OF_LOGS, how
  )
  there = words.weights > 0
  of_context = rank.word_scores(predictor, context, words, MEAN_OF_LOGS)
  scores = rank.word_scores(predictor, asked, words, MEAN_OF_LOGS)
  likes = calibration.log_prior(of_context, there, prior)
  expected = aggregation.aggregate(
    calibration.calibrate(scores, likes, there),
    words.weights,
    there,
    "log_mean",
  )
  np.testing.assert_allclose(
    [r.scores for r in found], expected, **tolerance["oracle"]
  )
  assert [r.best for r in found] == expected.argmax(-1).tolist()
  assert f"by the prior of {prior} of 4 texts, 5 of 5 words" in convention


def test_refined_words_do_not_count(
  predictor, asked, context, words, caplog, tolerance
):
  there = words.weights > 0
  of_context = rank.word_scores(predictor, context, words, MEAN_OF_LOGS)
  likes = calibration.log_prior(of_context, there)
  keep = refinement.frequent(likes, there, 0.5).words
  assert (keep != there).any()
  fewer = dataclasses.replace(words, weights=np.where(keep, words.weights, 0))
  with caplog.at_level(logging.INFO):
    found, convention = calibrated.classify(
      *(predictor, asked, context, tuple(LISTS), words, MEAN_OF_LOGS),
      Calibration(drop_rare=0.5),
    )
  alone, _ = calibrated.classify(
    predictor, asked, context, tuple(LISTS), fewer, MEAN_OF_LOGS, Calibration()
  )
  # Up to a number that all classes share: the prior is of other words.
  for ours, theirs in zip(found, alone, strict=True):
    np.testing.assert_allclose(
      np.diff(ours.scores), np.diff(theirs.scores), **tolerance["oracle"]
    )
  assert f"{keep.sum()} of 5 words" in convention
  assert f"leaves out {5 - keep.sum()} label words: " in caplog.text


def test_no_class_is_left_without_words(
  predictor, asked, context, words, caplog
):
  how = Calibration(drop_rare=0.9, least_relevance=1e9)
  found, convention = calibrated.classify(
    predictor, asked, context, tuple(LISTS), words, MEAN_OF_LOGS, how
  )
  assert np.isfinite([r.scores for r in found]).all()
  assert "2 of 5 words" in convention
  warning = "least_relevance would leave 2 of 2 classes without words"
  assert f"{warning} ('animal', 'colour'); each keeps its" in caplog.text


def test_learned_weights_are_those_of_a_texts_run(
  predictor, asked, context, words, tolerance
):
  """Calibrated or not; one of two runs has learned some."""
  there = words.weights > 0
  learned = np.where(there, [[0.5, -1, 2], [0, 3, 0]], NO_WORD)
  both = np.stack([np.full_like(learned, NO_WORD), learned])
  # Wider, as beside a run of other words.
  wide = np.pad(both, [(0, 0), (0, 1), (0, 2)], constant_values=NO_WORD)
  delta = Delta(word_weights=jnp.asarray(wide, jnp.float32))
  runs = Runs(delta, (Placement(), Placement()))
  own = dataclasses.replace(predictor, runs=runs)
  scorer = scorers.WholeWords("learned")
  rows = dataclasses.replace(asked, run_ids=np.array([1, 1, 0, 1], np.int32))
  scores = rank.word_scores(own, rows, words, scorer)
  weights = np.where(np.array([1, 1, 0, 1])[:, None, None], learned, 0)
  expected = aggregation.aggregate(scores, weights, there, "learned")
  found = rank.classify(own, rows, words, scorer)
  np.testing.assert_allclose(
    [r.scores for r in found], expected, **tolerance["oracle"]
  )
  found, convention = calibrated.classify(
    *(own, rows, context, tuple(LISTS), words, scorer, Calibration())
  )
  of_context = rank.word_scores(own, context, words, scorer)
  likes = calibration.log_prior(of_context, there)
  expected = aggregation.aggregate(
    calibration.calibrate(scores, likes, there), weights, there, "learned"
  )
  np.testing.assert_allclose(
    [r.scores for r in found], expected, **tolerance["oracle"]
  )
  assert "learned over words, calibrated" in convention


def test_bad_settings():
  with pytest.raises(ValueError, match=r"Calibration\.texts"):
    Calibration(texts=0)
  with pytest.raises(ValueError, match="prior 'x': expected one of logits"):
    Calibration(prior="x")
  with pytest.raises(ValueError, match="drop_rare 1: expected 0 to below 1"):
    Calibration(drop_rare=1)


def test_texts_are_chosen_by_a_seed():
  how = Calibration(texts=5)
  assert len(how.choose(3)) == 3
  chosen = how.choose(100)
  assert len(set(chosen.tolist())) == 5
  np.testing.assert_array_equal(chosen, how.choose(100))
  other = dataclasses.replace(how, seed=1).choose(100)
  assert chosen.tolist() != other.tolist()
