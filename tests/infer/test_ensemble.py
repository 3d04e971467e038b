"""Majority votes: the rule, ties, and one batch instead of N."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.metrics import classification
from prompt_tuning.infer import ensemble, rank
from prompt_tuning.infer.evaluate import EvalSet, Evaluator, Job, Result

scores = st.floats(-50, 0)
ballots = st.lists(
  st.tuples(st.sampled_from(["a", "b", "c"]), scores), min_size=1, max_size=7
)


@given(ballots)
def test_the_winner_by_the_stated_rule(ballot):
  """Votes, then summed scores, then the first member; by exhaustion."""
  answers, values = zip(*ballot, strict=True)
  outcome = ensemble.vote(answers, values)
  counts = collections.Counter(answers)
  tied = [a for a in counts if counts[a] == max(counts.values())]
  support = {a: sum(sorted(v for b, v in ballot if b == a)) for a in tied}
  best = max(support.values())
  assert outcome.answer in tied
  assert support[outcome.answer] == pytest.approx(best)
  assert outcome.num_votes == max(counts.values())
  assert (outcome.answers, outcome.scores) == (answers, values)


@given(ballots, st.randoms(use_true_random=False))
def test_only_exact_ties_depend_on_the_order(ballot, random):
  answers, values = zip(*ballot, strict=True)
  shuffled = random.sample(ballot, len(ballot))
  other = ensemble.vote(*zip(*shuffled, strict=True))
  first = ensemble.vote(answers, values)
  if first.answer != other.answer:
    exact = [
      sorted(v for a, v in ballot if a == answer)
      for answer in (first.answer, other.answer)
    ]
    assert len(exact[0]) == len(exact[1])
    assert sum(exact[0]) == pytest.approx(sum(exact[1]))


@pytest.mark.parametrize(
  ("answers", "scores", "winner"),
  [
    (["a", "b", "b"], [-0.1, -9, -9], "b"),  # majority, however unsure
    (["a", "b"], [-2, -1], "b"),  # tie: the likelier
    (["a", "b", "b", "a"], [-1, -1, -2, -3], "b"),  # -3 against -4
    (["b", "a"], [-1, -1], "b"),  # equal: the first member's
    (["c", "a", "b"], [-3, -1, -1], "a"),
    (["a"], [-7], "a"),
  ],
)
def test_examples(answers, scores, winner):
  assert ensemble.vote(answers, scores).answer == winner


def test_no_vote_without_members():
  with pytest.raises(ValueError, match="needs members"):
    ensemble.vote([], [])
  with pytest.raises(ValueError, match="2 answers and 1 scores"):
    ensemble.vote(["a", "b"], [-1.0])


MEMBERS = [2, 0, 1]


def test_one_batch_equals_one_forward_per_member(
  predictor, solo, texts, tolerance
):
  votes = ensemble.predict(predictor, texts[:4], MEMBERS, length=4)
  for place, run in enumerate(MEMBERS):
    alone = solo(run)
    said = alone.predict(alone.encode(texts[:4]), length=4)
    assert [vote.answers[place] for vote in votes] == [p.text for p in said]
    np.testing.assert_allclose(
      [vote.scores[place] for vote in votes],
      [p.score for p in said],
      **tolerance["same"],
    )
  for vote in votes:
    assert vote == ensemble.vote(vote.answers, vote.scores)


def test_members_choose_among_candidates(predictor, texts, tolerance):
  candidates = ("choice 1", "choice 2", "cat")
  votes = ensemble.classify(predictor, texts[:4], candidates, MEMBERS)
  for place, run in enumerate(MEMBERS):
    asked = predictor.encode(texts[:4], run)
    rankings = rank.rank(predictor, asked, candidates)
    for vote, ranking in zip(votes, rankings, strict=True):
      assert vote.answers[place] == candidates[ranking.best]
      np.testing.assert_allclose(
        vote.scores[place], max(ranking.scores), **tolerance["same"]
      )


WORDS = ("no", "yes")
TASK = spec.TaskSpec(
  name="invented",
  benchmark="custom",
  dataset="invented",
  module="",
  source="file",
  splits={"validation": "validation"},
  label_words=WORDS,
  postprocess=postprocessors.LabelId(WORDS),
  metrics=(classification.accuracy,),
)


def fixed_results():
  """Three members on four examples; the answers are given, not computed."""
  gold = ["yes", "yes", "no", "no"]
  examples = [
    {"inputs_pretokenized": str(i), "targets_pretokenized": text}
    for i, text in enumerate(gold)
  ]
  dataset = EvalSet(TASK, [[1]] * 4, examples)
  answers = [
    ["yes", "yes", "no", "yes"],  # 75
    ["yes", "no", "no", "yes"],  # 50
    ["no", "yes", "no", "no"],  # 75
  ]
  return [
    Result(
      Job(dataset, run),
      ("generation",),
      {"accuracy": accuracy},
      {"prediction": said, "score": [-1.0] * 4},
    )
    for run, (said, accuracy) in enumerate(
      zip(answers, (75.0, 50.0, 75.0), strict=True)
    )
  ]


def test_the_papers_table_average_best_and_ensemble():
  compared = ensemble.compare(fixed_results())
  # Votes: yes, yes, no, yes.
  assert compared.vote == {"accuracy": 75.0}
  assert compared.best == {"accuracy": 75.0}
  assert compared.mean == {"accuracy": pytest.approx(200 / 3)}
  votes = [vote.num_votes for vote in compared.votes["generation"]]
  assert votes == [2, 2, 3, 2]


def test_compare_real_results(predictor, texts):
  targets = ["choice 1", "choice 2", "choice 1", "choice 1"]
  words = ("choice 1", "choice 2")
  task = spec.TaskSpec(
    **{
      **{f: getattr(TASK, f) for f in ("benchmark", "dataset", "module")},
      **{"name": "t", "source": "file", "splits": TASK.splits},
      **{"label_words": words, "metrics": TASK.metrics},
      "postprocess": postprocessors.LabelId(words),
    }
  )
  examples = [
    {"inputs_pretokenized": text, "targets_pretokenized": target}
    for text, target in zip(texts, targets, strict=False)
  ]
  dataset = EvalSet(task, predictor.encode(texts[:4]).rows, examples)
  jobs = [Job(dataset, run) for run in MEMBERS]
  results = Evaluator(predictor, jobs, ("rank", "generation"), length=4)()
  compared = ensemble.compare(results)
  chosen = ensemble.classify(predictor, texts[:4], words, MEMBERS)
  assert [v.answer for v in compared.votes["rank"]] == [
    v.answer for v in chosen
  ]
  correct = [v.answer == t for v, t in zip(chosen, targets, strict=True)]
  assert compared.vote["accuracy"] == 100 * sum(correct) / 4
  spoken = ensemble.predict(predictor, texts[:4], MEMBERS, length=4)
  assert [v.answer for v in compared.votes["generation"]] == [
    v.answer for v in spoken
  ]


def test_only_runs_on_the_same_examples_can_be_compared():
  with pytest.raises(ValueError, match="0 results"):
    ensemble.compare([])
  with pytest.raises(ValueError, match="same examples"):
    ensemble.compare([fixed_results()[0], fixed_results()[1]])
