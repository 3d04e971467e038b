"""An ensemble of runs that vote on one task (Lester et al. 2021, section 6).

All members answer in one batch with the frozen model; the answer with most
votes wins. The paper states no rule for ties. Here, the tied answer with the
highest score wins, summed over its voters. If these sums are equal too, the
answer of the earliest member wins.
"""

import collections
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_tuning.infer import evaluate, rank
from prompt_tuning.infer.evaluate import Result
from prompt_tuning.infer.inputs import Inputs
from prompt_tuning.infer.predict import Predictor


class Vote(NamedTuple):
  """The result of the vote on one input.

  Attributes:
    answer: the answer that wins.
    num_votes: number of its votes.
    answers: the answer of every member, in order.
    scores: the score of every member's answer.
  """

  answer: str
  num_votes: int
  answers: tuple[str, ...]
  scores: tuple[float, ...]


class OverTemplates(NamedTuple):
  """Results of several templates of one task, alone and together.

  Attributes:
    mean: mean of the templates' metrics.
    deviation: sample standard deviation of these metrics.
    together: metrics of the class with the highest mean probability over the
      templates; None if the templates do not rank classes.
  """

  mean: dict[str, float]
  deviation: dict[str, float]
  together: dict[str, float] | None


class Comparison(NamedTuple):
  """An ensemble compared with its members, as in table 3 of the paper.

  Attributes:
    members: every member's metrics.
    mean: mean of the members' metrics.
    best: the highest value among the members, for each metric.
    vote: the ensemble's metrics.
    votes: `generation` or `rank` -> one per example.
  """

  members: Sequence[dict[str, float]]
  mean: dict[str, float]
  best: dict[str, float]
  vote: dict[str, float]
  votes: dict[str, list[Vote]]


def vote(answers: Sequence[str], scores: Sequence[float]) -> Vote:
  """Count the votes; see the module docstring for ties.

  Args:
    answers: one answer per member, in the order of the members.
    scores: log-likelihood of each answer under its member.

  Returns:
    The result of the vote.

  Raises:
    ValueError: no members, or the numbers of scores and answers differ.
  """
  if not answers or len(answers) != len(scores):
    raise ValueError(
      f"A vote needs members, and a score for each answer; got {len(answers)} "
      f"answers and {len(scores)} scores."
    )
  counts = collections.Counter(answers)
  # Exactly rounded sums: the order of the members must not matter.
  support = {
    answer: math.fsum(
      s for a, s in zip(answers, scores, strict=True) if a == answer
    )
    for answer in counts
  }
  # A counter keeps the order of first occurrence, and max takes the first.
  winner = max(counts, key=lambda answer: (counts[answer], support[answer]))
  return Vote(winner, counts[winner], tuple(answers), tuple(scores))


def predict(
  predictor: Predictor,
  texts: Sequence[str],
  members: Sequence[int],
  **decoding: Any,
) -> list[Vote]:
  """Let several runs answer every text in one batch, and count the votes.

  Args:
    predictor: the model and its runs.
    texts: n texts.
    members: indices of the runs that vote.
    **decoding: see `Predictor.predict`; with several decodes per input, the
      best one is a member's vote.

  Returns:
    n votes.

  Raises:
    ValueError: no members.
  """
  predicted = predictor.predict(_expand(predictor, texts, members), **decoding)
  answers = [prediction.text for prediction in predicted]
  scores = [prediction.score for prediction in predicted]
  return _count(answers, scores, len(members))


def classify(
  predictor: Predictor,
  texts: Sequence[str],
  candidates: Sequence[str],
  members: Sequence[int],
  normalise: rank.Normalise = "sum",
) -> list[Vote]:
  """Let several runs choose among candidates, and count the votes.

  Args:
    predictor: the model and its runs.
    texts: n texts.
    candidates: answers to choose from.
    members: indices of the runs that vote.
    normalise: see `rank.rank`.

  Returns:
    n votes.

  Raises:
    ValueError: no members.
  """
  asked = _expand(predictor, texts, members)
  rankings = rank.rank(predictor, asked, candidates, normalise)
  answers = [candidates[ranking.best] for ranking in rankings]
  scores = [ranking.scores[ranking.best] for ranking in rankings]
  return _count(answers, scores, len(members))


def compare(results: Sequence[Result]) -> Comparison:
  """Compare an ensemble with its members.

  Args:
    results: results of several runs on one task, from one `Evaluator`.

  Returns:
    The members' metrics and the ensemble's.

  Raises:
    ValueError: no results, or results of different examples.
  """
  if not results or len({id(r.job.dataset) for r in results}) > 1:
    raise ValueError(
      f"An ensemble is made of several runs on the same examples; got "
      f"{len(results)} results of "
      f"{sorted({r.job.dataset.task.name for r in results})}."
    )
  dataset = results[0].job.dataset
  by = results[0].by
  votes = {way: _vote_on(results, way) for way in by}
  answers = {
    evaluate.PREDICTION[way]: [outcome.answer for outcome in outcomes]
    for way, outcomes in votes.items()
  }
  members = [dict(result.metrics) for result in results]
  return Comparison(
    members,
    _over(members, statistics.fmean),
    _over(members, max),
    evaluate.metrics(dataset, answers, by),
    votes,
  )


def over_templates(results: Sequence[Result]) -> OverTemplates:
  """Combine the results of several templates of one task.

  Args:
    results: one result for each template, at least two, of tasks with the same
      examples and classes.

  Returns:
    Mean, deviation, and the metrics of their combined answers.

  Raises:
    ValueError: the results are of different examples.

  Source: KPT for the mean over templates; PET (Schick and Schuetze 2021),
  section 3.1, for the mean of distributions, here with equal weights.
  """
  first, *others = (result.job.dataset for result in results)
  if any(other.targets != first.targets for other in others):
    raise ValueError(
      f"{first.task.name} and {others[0].task.name} have different examples; "
      "expected templates of the same task, which have the same examples."
    )
  members = [dict(result.metrics) for result in results]
  together = None
  if all("rank_scores" in result.outputs for result in results):
    scores = np.array([result.outputs["rank_scores"] for result in results])
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares = (shares / shares.sum(-1, keepdims=True)).mean(axis=0)
    names = [first.label_words[k] for k in shares.argmax(-1).tolist()]
    answers = {evaluate.PREDICTION[evaluate.RANKING]: names}
    together = evaluate.metrics(first, answers, (evaluate.RANKING,))
  return OverTemplates(
    _over(members, statistics.fmean),
    _over(members, statistics.stdev),
    together,
  )


def _expand(
  predictor: Predictor, texts: Sequence[str], members: Sequence[int]
) -> Inputs:
  """Pair every text with every member; a text's members are adjacent."""
  if not members:
    raise ValueError(
      "There is no prompt to vote; expected at least one. Give the model "
      "prompts (with_tuned), or name members."
    )
  encoded = predictor.encode(texts, members[0])
  rows = [encoded.rows[i] for i in range(len(texts)) for _ in members]
  run_ids = np.tile(np.asarray(members, np.int32), len(texts))
  return Inputs(rows, run_ids, encoded.truncated)


def _count(
  answers: Sequence[str], scores: Sequence[float], members: int
) -> list[Vote]:
  return [
    vote(answers[start : start + members], scores[start : start + members])
    for start in range(0, len(answers), members)
  ]


def _vote_on(results: Sequence[Result], way: str) -> list[Vote]:
  """Count the members' votes on every example."""
  outcomes = []
  for number in range(len(results[0].job.dataset.examples)):
    answers = [r.outputs[evaluate.PREDICTION[way]][number] for r in results]
    if way == evaluate.RANKING:
      scores = [max(r.outputs["rank_scores"][number]) for r in results]
    else:
      scores = [r.outputs["score"][number] for r in results]
    outcomes.append(vote(answers, scores))
  return outcomes


def _over(
  members: Sequence[dict[str, float]], fn: Callable[[list[float]], float]
) -> dict[str, float]:
  """Reduce the members' metrics one by one."""
  return {name: fn([m[name] for m in members]) for name in members[0]}
