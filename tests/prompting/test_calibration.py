"""Calibration and aggregation against OpenPrompt's own, and their algebra."""

import pathlib

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax

from prompt_tuning.prompting import aggregation, calibration
from prompt_tuning.prompting.label_words import LabelWords, WordPieces

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "openprompt"
# As in the script that wrote the file.
WORDS = {
  "a": ["5", "6", "7 8"],
  "b": ["9", "10 11 12"],
  "c": ["13", "14", "15", "16 5"],
}
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def words():
  return WordPieces.of(
    LabelWords.of(WORDS), lambda text: list(map(int, text.split()))
  )


@pytest.fixture(scope="module")
def golden():
  with np.load(GOLDEN / "verbalizers.npz") as arrays:
    return dict(arrays)


def of_pieces(logits, words, handler):
  """Scores of words, OpenPrompt's way: their pieces at one position."""
  picked = logits[:, words.pieces]
  if handler == "first":
    return picked[..., 0]
  there = words.pieces != 0
  return (picked * there).sum(-1) / np.maximum(words.lengths, 1)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("handler", ["first", "mean"])
@pytest.mark.parametrize("kind", ["manual", "knowledge"])
def test_openprompts_verbalizers(
  golden, words, kind, handler, calibrated, tolerance
):
  there = words.weights > 0
  scores = of_pieces(golden["logits"], words, handler)
  found = calibration.normalise(scores, there)
  if calibrated:
    context = of_pieces(golden["context"], words, handler)
    prior = calibration.log_prior(context, there, calibration.LOGITS)
    found = calibration.calibrate(scores, prior, there)
  how = aggregation.LOG_MEAN if kind == "manual" else aggregation.LEARNED
  weights = words.weights if kind == "manual" else np.zeros_like(words.weights)
  classes = aggregation.aggregate(found, weights, there, how)
  expected = golden[f"{kind}/{handler}/{calibrated}"]
  np.testing.assert_allclose(classes, expected, **tolerance["formula"])


@pytest.mark.parametrize("of", calibration.PRIORS)
def test_a_bias_of_a_word(words, of, tolerance):
  """The prior of logits makes up for it exactly, the paper's nearly."""
  there = words.weights > 0
  logits = RNG.normal(size=(6, 30))
  biased = logits.copy()
  biased[:, 9] += 10

  def calibrated(values):
    scores = of_pieces(log_softmax(values, axis=-1), words, "first")
    prior = calibration.log_prior(scores, there, of)
    return np.exp(calibration.calibrate(scores, prior, there))

  before, after = calibrated(logits), calibrated(biased)
  assert np.isfinite(before).all()
  if of == calibration.LOGITS:
    np.testing.assert_allclose(after, before, **tolerance["double"])
  else:
    assert 0.005 < np.abs(after - before).max() < 0.5
  np.testing.assert_allclose(after.sum((1, 2)), 1, **tolerance["double"])


def test_the_papers_prior_is_the_mean_of_probabilities(words, tolerance):
  there = words.weights > 0
  scores = log_softmax(RNG.normal(size=(4, *there.shape)), axis=-1)
  expected = np.exp(scores).mean(0) * there
  np.testing.assert_allclose(
    np.exp(calibration.log_prior(scores, there, calibration.PROBABILITIES)),
    expected / expected.sum(),
    **tolerance["double"],
  )


def test_aggregations_are_what_they_say(words, tolerance):
  there = words.weights > 0
  scores = log_softmax(RNG.normal(size=(2, *there.shape)), axis=-1)
  weights = np.where(there, RNG.uniform(0.5, 2, there.shape), 0)
  for c, count in enumerate(there.sum(-1)):
    x, w = scores[:, c, :count], weights[c, :count]
    expected = {
      "sum": logsumexp(x, b=w, axis=-1),
      "mean": logsumexp(x, b=w / w.sum(), axis=-1),
      "log_mean": (x * w).sum(-1) / w.sum(),
      "learned": (x * softmax(w)).sum(-1),
    }
    for how in aggregation.AGGREGATIONS:
      found = aggregation.aggregate(scores, weights, there, how)
      np.testing.assert_allclose(
        found[:, c], expected[how], **tolerance["double"]
      )


def test_learned_weights_begin_as_the_mean_of_log_probabilities(
  words, tolerance
):
  there = words.weights > 0
  scores = RNG.normal(size=(2, *there.shape))
  zero = np.zeros(there.shape)
  np.testing.assert_allclose(
    aggregation.aggregate(scores, zero, there, aggregation.LEARNED),
    aggregation.aggregate(scores, there, there, aggregation.LOG_MEAN),
    **tolerance["double"],
  )


def test_bad_arguments(words):
  there = words.weights > 0
  scores = np.zeros((1, *there.shape))
  with pytest.raises(ValueError, match="Aggregation 'max': expected one of"):
    aggregation.aggregate(scores, there, there, "max")
  with pytest.raises(ValueError, match="Class 1 has no word with a weight"):
    aggregation.aggregate(scores, [[1] * 4, [0] * 4, [1] * 4], there, "sum")
  with pytest.raises(ValueError, match="Prior of 'x': expected one of"):
    calibration.log_prior(scores, there, "x")
  with pytest.raises(ValueError, match="needs at least one text"):
    calibration.log_prior(scores[:0], there)
