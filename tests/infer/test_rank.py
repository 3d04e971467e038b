"""Scores of whole targets against brute force, one candidate at a time."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.types import EOS_ID
from prompt_tuning.infer import rank
from prompt_tuning.infer.batching import Batching
from prompt_tuning.train.objectives import CrossEntropy

RUN_IDS = [0, 1, 2, 1, 0, 2, 2, 0, 1, 1]
# As in COPA's label words, the first piece says nothing.
LABELS = ("choice 1", "choice 2")
RAGGED = [["cat", "dog runs 1"], ["red"], list(LABELS), ["", "bird", "1 2 3"]]


@pytest.fixture(scope="module")
def asked(predictor, texts):
  return predictor.encode(texts, RUN_IDS)


@pytest.fixture(scope="module")
def rankings(predictor, asked):
  return rank.rank(predictor, asked, LABELS)


def test_scores_equal_one_candidate_at_a_time(
  predictor, texts, rankings, brute_score, tolerance
):
  expected = [
    [brute_score(predictor, run, text, label) for label in LABELS]
    for text, run in zip(texts, RUN_IDS, strict=True)
  ]
  np.testing.assert_allclose(
    [ranking.scores for ranking in rankings], expected, **tolerance["oracle"]
  )
  best = np.argmax(expected, axis=1).tolist()
  assert [ranking.best for ranking in rankings] == best
  assert set(best) == {0, 1}


def test_scores_equal_the_negative_training_loss(
  predictor, texts, rankings, teacher_forced, tolerance
):
  objective = CrossEntropy(z_loss=0.0)
  for number in (0, 1, 2):
    for label, found in zip(LABELS, rankings[number].scores, strict=True):
      ids = [*predictor.vocabulary.encode_batch([label])[0], EOS_ID]
      logits = teacher_forced(predictor, RUN_IDS[number], texts[number], ids)
      batch = {"decoder_target_tokens": jnp.array([ids])}
      outputs = Outputs(jnp.asarray(logits)[None])
      loss = objective(outputs, batch)["loss"][0]
      np.testing.assert_allclose(found, -loss, **tolerance["oracle"])


def test_each_input_may_have_its_own_candidates(
  predictor, texts, brute_score, tolerance
):
  own = [RAGGED[i % 4] for i in range(len(texts))]
  found = rank.rank(predictor, predictor.encode(texts, RUN_IDS), own)
  for text, run, candidates, ranking in zip(
    texts, RUN_IDS, own, found, strict=True
  ):
    expected = [brute_score(predictor, run, text, c) for c in candidates]
    np.testing.assert_allclose(ranking.scores, expected, **tolerance["oracle"])
    assert ranking.best == int(np.argmax(expected))


def test_mean_divides_by_the_tokens_with_eos(predictor, asked, tolerance):
  candidates = ("cat", "cat dog bird")
  total = rank.rank(predictor, asked, candidates)
  mean = rank.rank(predictor, asked, candidates, "mean")
  expected = np.array([r.scores for r in total]) / np.array([2, 4])
  np.testing.assert_allclose(
    [r.scores for r in mean], expected, **tolerance["same"]
  )
  assert [r.best for r in mean] == expected.argmax(1).tolist()
  assert [r.best for r in mean] != [r.best for r in total]


def test_score_is_the_rank_of_one(predictor, asked, rankings, tolerance):
  targets = [LABELS[i % 2] for i in range(len(asked))]
  found = rank.score(predictor, asked, targets)
  expected = [r.scores[i % 2] for i, r in enumerate(rankings)]
  np.testing.assert_allclose(found, expected, **tolerance["same"])


def test_targets_of_any_length(predictor, brute_score, tolerance):
  targets = ["", "cat", "red green blue cat dog bird sings runs sleeps 1 2 3"]
  asked = predictor.encode(["dog runs"] * 3, 2)
  expected = [brute_score(predictor, 2, "dog runs", t) for t in targets]
  np.testing.assert_allclose(
    rank.score(predictor, asked, targets), expected, **tolerance["oracle"]
  )


def test_what_the_vocabulary_lacks_is_said(predictor, asked, caplog):
  """`ocelot` and `otter` are both the unknown word."""
  rank.score(predictor, asked, ["cat"] * len(asked))
  assert not caplog.text
  rank.score(predictor, asked, ["otter", *["cat"] * (len(asked) - 1)])
  assert "Some targets have characters that the" in caplog.text
  with pytest.raises(
    ValueError, match="'otter' and 'ocelot' have the same ids"
  ):
    rank.rank(predictor, asked, ["cat", "otter", "ocelot"])


def test_equal_candidates_tie_and_the_first_wins(predictor, asked):
  for ranking in rank.rank(predictor, asked, ["cat", "cat"]):
    assert ranking.scores[0] == ranking.scores[1]
    assert ranking.best == 0


def test_batch_shapes_do_not_matter(predictor, asked, rankings, tolerance):
  other = dataclasses.replace(predictor, batching=Batching(10, 1))
  found = rank.rank(other, asked, LABELS)
  np.testing.assert_allclose(
    [r.scores for r in found],
    [r.scores for r in rankings],
    **tolerance["same"],
  )


@pytest.mark.parametrize(
  ("candidates", "message"),
  [
    ([], "at least one text"),
    ([["a"], []], r"Input 1 has candidates \[\]"),
    ([["a"]], "1 lists of candidates for 2 inputs"),
    ([["a"], "b"], "Input 1 has candidates 'b'"),
  ],
)
def test_candidates_that_are_none(candidates, message, predictor):
  with pytest.raises(ValueError, match=message):
    rank.rank(predictor, predictor.encode(["cat", "dog"]), candidates)


def test_other_mistakes(predictor):
  asked = predictor.encode(["cat", "dog"])
  with pytest.raises(ValueError, match="expected 'sum' or 'mean'"):
    rank.rank(predictor, asked, LABELS, "max")
  with pytest.raises(ValueError, match="1 targets for 2 inputs"):
    rank.score(predictor, asked, ["cat"])


def test_real_label_words_do_not_tie(predictor, shared_data):
  """With T5's pieces, choice1 and choice2 differ in their second only."""
  from prompt_tuning.data import vocabulary as vocabularies

  vocabulary = vocabularies.load(
    str(shared_data / "t5_vocab/sentencepiece.model")
  )
  real = dataclasses.replace(predictor, vocabulary=vocabulary)
  rows = rank.encode_candidates(real, ["choice1", "choice2", "entailment"], 1)
  assert [row.tolist() for row in rows[0]] == [
    [1160, 536, 1],
    [1160, 357, 1],
    [3, 35, 5756, 297, 1],
  ]
