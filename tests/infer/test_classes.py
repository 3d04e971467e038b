"""Scores of classes against one word at a time, by numpy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from prompt_tuning.infer import rank
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.models import scorers
from prompt_tuning.models.scorers import ClassTable
from prompt_tuning.prompting import aggregation
from prompt_tuning.prompting.label_words import LabelWords, Word, WordPieces
from prompt_tuning.prompting.rules import RulePieces

# Of one to three pieces; `choice 1` and `choice 2` begin alike.
LISTS = {
  "animal": {"cat": 1.0, "choice 1": 2.0, "dog runs 1": 0.5},
  "colour": {"red": 1.0, "choice 2": 0.25},
}
RUN_IDS = [0, 1, 2, 2]


@pytest.fixture(scope="module")
def words(predictor):
  def encode(text):
    return predictor.vocabulary.encode_batch([text])[0]

  return WordPieces.of(LabelWords.of(LISTS), encode)


@pytest.fixture(scope="module")
def asked(predictor, texts):
  return predictor.encode(texts[3:7], RUN_IDS)


def by_class(value):
  """Compute [class, word] of a function of the word."""
  return [[value(text) for text in texts] for texts in LISTS.values()]


def aggregated(values, how):
  """Make a class's score of its words', in the words of the paper."""
  scores = []
  for of_words, texts in zip(values, LISTS.values(), strict=True):
    w, x = np.array([*texts.values()]), np.asarray(of_words, np.float64)
    if how == "learned":  # and nothing is
      scores.append(x.mean())
    elif how == "log_mean":
      scores.append((w * x).sum() / w.sum())
    else:
      total = logsumexp(x, b=w)
      scores.append(total - (np.log(w.sum()) if how == "mean" else 0))
  return scores


def test_whole_words_equal_one_word_at_a_time(
  predictor, texts, asked, words, brute_score, tolerance
):
  """Words of all runs at once, of which one has a prompt in the decoder."""
  found = rank.classify(predictor, asked, words, scorers.WholeWords())
  expected = [
    aggregated(by_class(lambda w: brute_score(predictor, run, text, w)), "sum")  # noqa: B023
    for text, run in zip(texts[3:7], RUN_IDS, strict=True)
  ]
  np.testing.assert_allclose(
    [r.scores for r in found], expected, **tolerance["oracle"]
  )
  assert [r.best for r in found] == np.argmax(expected, axis=1).tolist()


@pytest.mark.parametrize("kind", ["first", "mean"])
def test_pieces_are_read_at_the_first_position(
  predictor, texts, asked, words, teacher_forced, tolerance, kind
):
  scorer = {"first": scorers.FirstPiece, "mean": scorers.MeanPiece}[kind]()
  found = rank.classify(predictor, asked, words, scorer)
  expected = []
  for text, run in zip(texts[3:7], RUN_IDS, strict=True):
    at_start = log_softmax(
      teacher_forced(predictor, run, text, [3]).astype(np.float64)[0]
    )

    def value(word, at_start=at_start):
      ids = predictor.vocabulary.encode_batch([word])[0]
      return at_start[ids[0]] if kind == "first" else at_start[ids].mean()

    expected.append(aggregated(by_class(value), "sum"))
  np.testing.assert_allclose(
    [r.scores for r in found], expected, **tolerance["oracle"]
  )


@pytest.mark.parametrize("kind", ["whole", "first"])
def test_words_stand_behind_a_templates_sentinel(
  predictor, texts, asked, words, teacher_forced, tolerance, kind
):
  """Given what the decoder has read before, sentinel included."""
  before = (7, 5)
  behind = dataclasses.replace(words, start=before)
  scorer = scorers.WholeWords() if kind == "whole" else scorers.FirstPiece()
  found = rank.classify(predictor, asked, behind, scorer)
  expected = []
  for text, run in zip(texts[3:7], RUN_IDS, strict=True):

    def value(word, text=text, run=run):
      ids = [*predictor.vocabulary.encode_batch([word])[0], 1]
      ids = ids if kind == "whole" else ids[:1]
      logits = teacher_forced(predictor, run, text, [*before, *ids])
      log_probs = log_softmax(logits.astype(np.float64), axis=-1)
      return log_probs[len(before) + np.arange(len(ids)), ids].sum()

    expected.append(aggregated(by_class(value), "sum"))
  np.testing.assert_allclose(
    [r.scores for r in found], expected, **tolerance["oracle"]
  )


def test_rows_that_are_the_heads_own_score_as_its_pieces(
  predictor, asked, words, tolerance
):
  """WARP before it is trained is the verbaliser that it starts from."""
  first = WordPieces(words.pieces[:, :1, :1], words.weights[:, :1])
  kernel = predictor.params["decoder"]["logits_dense"]["kernel"]
  rows = jnp.asarray(kernel)[:, first.pieces[:, 0, 0]].T
  runs = predictor.runs
  delta = dataclasses.replace(
    runs.delta, head_rows=jnp.broadcast_to(rows, (3, *rows.shape))
  )
  warp = dataclasses.replace(predictor, runs=Runs(delta, runs.placements))
  ours = rank.classify(warp, asked, first, scorers.OutputRows())
  theirs = rank.classify(predictor, asked, first, scorers.FirstPiece())
  np.testing.assert_allclose(
    [r.scores for r in ours], [r.scores for r in theirs], **tolerance["same"]
  )
  assert [r.best for r in ours] == [r.best for r in theirs]


def test_an_output_row_is_the_text_that_it_stands_for(
  predictor, solo_runs, texts, tolerance
):
  """In the answers of its run, and among the candidates of a ranking."""
  row = 90 * jnp.eye(1, predictor.config.emb_dim)
  rows = jnp.stack([row[0], -row[0]])[None]  # of which one wins
  delta = dataclasses.replace(solo_runs[0].delta, head_rows=rows)
  own = Runs(delta, solo_runs[0].placements, (("cat", "bird runs"),))
  both = dataclasses.replace(predictor, runs=join([own, solo_runs[1]]))
  asked = both.encode([texts[4]] * 4, [0, 1, 0, 1])
  predicted = both.predict(asked, length=2)
  assert predicted[0].text in ("cat", "bird runs")
  assert predicted[1].text not in ("cat", "bird runs")
  rankings = rank.rank(both, asked, ("cat", "bird runs", "dog"))
  best = ("cat", "bird runs", "dog")[rankings[0].best]
  assert best == predicted[0].text
  np.testing.assert_allclose(
    rankings[0].scores[rankings[0].best],
    predicted[0].score,
    **tolerance["same"],
  )
  plain = rank.rank(predictor, predictor.encode([texts[4]], 1), ("cat", "dog"))
  np.testing.assert_allclose(
    [rankings[1].scores[k] for k in (0, 2)],
    plain[0].scores,
    **tolerance["same"],
  )


def rule_pieces(at_masks, sentinels, several=()):
  """Make rules of ids, as `RulePieces.of_rules` does of words."""
  rows = [
    [x for pair in zip(sentinels, ids, strict=True) for x in pair][1:]
    for ids in at_masks
  ]
  return RulePieces(
    np.array(rows, np.int32)[:, None],
    np.ones((len(rows), 1), np.float32),
    sentinels[:1],
    at_masks=np.array(at_masks, np.int32),
    sentinels=sentinels,
    several=several,
  )


RULES = rule_pieces([[6, 7], [6, 8], [5, 7]], (15, 14))


def test_sentinels_are_read_side_by_side(
  predictor, texts, asked, teacher_forced, tolerance
):
  """Id 15 stands for the first sentinel, 14 for the second."""
  found = rank.classify(predictor, asked, RULES, scorers.Sentinels())
  expected = []
  for text, run in zip(texts[3:7], RUN_IDS, strict=True):
    logits = teacher_forced(predictor, run, text, [15, 14, 1])
    p = log_softmax(logits.astype(np.float64)[1:3], axis=-1)
    expected.append([p[0, a] + p[1, b] for a, b in RULES.at_masks.tolist()])
  np.testing.assert_allclose(
    [r.scores for r in found], expected, **tolerance["oracle"]
  )


def test_whole_targets_score_rules_word_by_word(
  predictor, texts, asked, teacher_forced, tolerance
):
  """Each word given those before it, behind the first sentinel."""
  found = rank.classify(predictor, asked, RULES, scorers.WholeWords())
  expected = []
  for text, run in zip(texts[3:7], RUN_IDS, strict=True):
    scores = []
    for a, b in RULES.at_masks.tolist():
      target = [15, a, 14, b, 1]
      logits = teacher_forced(predictor, run, text, target)
      log_probs = log_softmax(logits.astype(np.float64), axis=-1)
      scores.append(log_probs[np.arange(1, 5), target[1:]].sum())
    expected.append(scores)
  np.testing.assert_allclose(
    [r.scores for r in found], expected, **tolerance["oracle"]
  )


def test_scorers_refuse_other_numbers_of_masks(words):
  one = ClassTable(("a", "b"), np.zeros((2, 1), np.int32), words)
  two = dataclasses.replace(one, words=RULES)
  with pytest.raises(ValueError, match="have label words of one mask: give"):
    scorers.Sentinels().insist_reads(one)
  for scorer in (scorers.FirstPiece(), scorers.MeanPiece()):
    scorer.insist_reads(one)
    with pytest.raises(ValueError, match=r"first of 2 masks.*Sentinels"):
      scorer.insist_reads(two)
  scorers.Sentinels().insist_reads(two)
  scorers.WholeWords().insist_reads(two)
  several = (Word("b", "unhappily"), Word("c", "'s"))
  lost = dataclasses.replace(RULES, several=several)
  with pytest.raises(
    ValueError, match=r"unhappily \(b\), 's \(c\)\. .*WholeWords.*substitutes"
  ):
    scorers.Sentinels().insist_reads(dataclasses.replace(two, words=lost))


def test_no_rows_for_the_classes_is_an_error(words):
  with pytest.raises(ValueError, match="0 learned output rows for 2 classes"):
    scorers.OutputRows()(jnp.zeros((1, 1, 7)), words, 7)


@pytest.mark.parametrize("length", scorers.LENGTHS)
@pytest.mark.parametrize("how", aggregation.AGGREGATIONS)
def test_words_make_a_class(words, how, length, tolerance):
  """Without a model: logits of every position are drawn."""
  scorer = scorers.WholeWords(how, length)
  targets = scorers._targets(words)
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, sum(map(len, targets)) + 2 * 5, 16))
  found = scorer(jnp.asarray(logits, jnp.float32), words, 16)
  # Learned rows behind the vocabulary's have no share in it.
  rows = np.concatenate([logits, np.full((*logits.shape[:2], 3), 9.0)], -1)
  np.testing.assert_array_equal(
    scorer(jnp.asarray(rows, jnp.float32), words, 16), found
  )
  expected = []
  for row in log_softmax(logits, axis=-1):
    values, begin = [], 0
    for ids in targets:
      begin += 2  # a virtual token, and the start token but for its target
      values.append(row[begin + np.arange(len(ids)), ids].sum())
      values[-1] /= len(ids) if length == "mean" else 1
      begin += len(ids)
    expected.append(aggregated([values[:3], values[3:]], how))
  np.testing.assert_allclose(found, expected, **tolerance["oracle"])
  assert how in scorer.convention


@pytest.mark.parametrize("scorer", [scorers.WholeWords, scorers.MeanPiece])
def test_malformed_settings(scorer):
  with pytest.raises(ValueError, match="'average': expected one of sum, mean"):
    scorer(aggregate="average")


def test_words_are_keys_of_programs(words):
  again = WordPieces(words.pieces.copy(), words.weights.copy())
  other = WordPieces(words.pieces, words.weights * 2)
  key = rank.programs.Words
  assert key(words) == key(again)
  assert key(words) != key(other)
  behind = dataclasses.replace(words, start=(3,))
  assert key(words) != key(behind)
  assert key(behind).words.start == (3,)
  other = rule_pieces([[6, 7], [6, 8], [5, 6]], (15, 14))
  assert key(RULES) != key(other)
  np.testing.assert_array_equal(key(words).words.pieces, words.pieces)
