"""A task's metrics for the runs of a bank, by generation and by ranking."""

import dataclasses
import itertools
import logging
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import count_soft
from prompt_tuning.core.types import Params
from prompt_tuning.data import spec
from prompt_tuning.data.metrics import classification
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.infer import calibrated, rank
from prompt_tuning.infer.calibrated import Calibration
from prompt_tuning.infer.inputs import Chained, Inputs, Rows, encode_targets
from prompt_tuning.infer.predict import Predictor
from prompt_tuning.models.scorers import ClassTable, Scorer, WordScorer
from prompt_tuning.models.t5.decoding import DecodingMethod, Greedy

GENERATION, RANKING = "generation", "rank"
# Way to evaluate -> name of its predictions among a result's outputs.
PREDICTION = {GENERATION: "prediction", RANKING: "rank_prediction"}

_LOGGED = 3  # texts of a task whose name asks for them

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EvalSet:
  """The labelled examples of one task.

  Attributes:
    task: its spec.
    inputs: n token rows, with EOS; from `TokenCache.inputs` or `Inputs.rows`.
    examples: n examples with `inputs_pretokenized`, `targets_pretokenized` and
      the spec's `eval_features`; `TokenCache.examples()`.
    classes: classes of the task, needed if a scorer ranks them.
    unlabelled: token rows of other texts, needed if scores are calibrated.

  Raises:
    ValueError: inputs and examples differ in number, there are none, one has no
      gold label, or the task has no metric.
  """

  task: spec.TaskSpec
  inputs: Rows
  examples: Sequence[Mapping[str, Any]]
  classes: ClassTable | None = None
  unlabelled: Rows | None = None

  def __post_init__(self) -> None:
    if len(self.inputs) != len(self.examples):
      raise ValueError(
        f"{self.task.name}: {len(self.inputs)} inputs and "
        f"{len(self.examples)} examples; expected equal numbers."
      )
    # Errors that would stop the metrics after hours of training are raised
    # here.
    if not self.task.evaluate(self.targets, self.examples):
      raise ValueError(
        f"{self.task.name!r} has no metric; choose a task with a metric."
      )

  @property
  def targets(self) -> list[str]:
    """The gold texts."""
    return [str(example[spec.TARGETS]) for example in self.examples]

  @property
  def has_soft(self) -> bool:
    """Whether some texts mark positions for virtual tokens."""
    rows = self.inputs
    return any(count_soft(rows[i]) for i in range(len(rows)))

  @property
  def label_words(self) -> tuple[str, ...]:
    """The answers to choose among; empty for free text."""
    if self.task.label_words or self.classes is None:
      return self.task.label_words
    return self.classes.names


@dataclasses.dataclass(frozen=True)
class Job:
  """One run to evaluate on one task.

  Attributes:
    dataset: the task's examples.
    run: index of the run.
    members: indices of the runs that `Delta.log_weight` mixes, if this is a
      mixture of runs. Ranking uses the mixture; generation uses the member with
      the largest weight. `run` is one of them.
  """

  dataset: EvalSet
  run: int = 0
  members: tuple[int, ...] = ()

  def heaviest(self, delta: Delta) -> "Job":
    """Replace a mixture by its member with the largest weight."""
    if not self.members or delta.log_weight is None:
      return self
    shares = np.asarray(delta.log_weight)[list(self.members)]
    return dataclasses.replace(self, run=self.members[int(shares.argmax())])

  @property
  def parts(self) -> "list[Job]":
    """One job for every member; for a single run, this job."""
    return [Job(self.dataset, run) for run in self.members or (self.run,)]


@dataclasses.dataclass(frozen=True)
class Result:
  """The result of one run on one task.

  Attributes:
    job: the run and the task.
    by: `generation`, `rank`, or both.
    metrics: metrics in percent, under the task's own names. Names of metrics by
      a second way begin with that way, such as `rank/accuracy`.
    outputs: name -> one value per example: `prediction` (text) and `score` by
      generation, `rank_prediction` (text) and `rank_scores` (of every label
      word) by ranking.
  """

  job: Job
  by: Sequence[str]
  metrics: Mapping[str, float]
  outputs: Mapping[str, Sequence[Any]]

  @property
  def score(self) -> float:
    """The mean of the task's metrics by the first way, without label shares."""
    other_ways = tuple(f"{way}/" for way in PREDICTION)
    values = [
      value
      for name, value in self.metrics.items()
      if not (name.startswith(other_ways) or classification.is_statistic(name))
    ]
    return statistics.fmean(values)


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Evaluates all jobs at once: batches mix runs and tasks.

  Attributes:
    predictor: the model, the vocabulary and the runs, which know the positions
      of virtual tokens.
    jobs: the runs and tasks to evaluate.
    by: `generation`, `rank` or both. Ranking chooses the label word that is
      most likely as a whole. Tasks without label words are evaluated by
      generation only; tasks with ranking rules of their own, by ranking only.
    length: maximum number of tokens to decode; None for the length of the
      longest gold answer.
    method: decoding method; greedy by default.
    normalise: `sum` or `mean`, see `rank.rank`.
    scorer: ranks the classes of data sets that have classes; None ranks label
      words as whole targets.
    calibration: how to calibrate the scores of words before they are combined
      into classes; None for no calibration.

  Raises:
    ValueError: no jobs, an unknown way to evaluate, a run that does not exist,
      or ranking alone for a task without label words.
  """

  predictor: Predictor
  jobs: Sequence[Job]
  by: Sequence[str] = (GENERATION,)
  length: int | None = None
  method: DecodingMethod = dataclasses.field(default_factory=Greedy)
  normalise: rank.Normalise = "sum"
  scorer: Scorer | None = None
  calibration: Calibration | None = None

  def __post_init__(self) -> None:
    if not self.jobs:
      raise ValueError("Nothing to evaluate: no jobs.")
    if not self.by or set(self.by) - set(PREDICTION):
      raise ValueError(
        f"EVALUATE_BY {list(self.by)}: expected some of {list(PREDICTION)}."
      )
    for job in self.jobs:
      if not 0 <= job.run < len(self.predictor.runs):
        raise ValueError(
          f"{job.dataset.task.name}: there is no run {job.run}; there are "
          f"{len(self.predictor.runs)}, counted from 0."
        )
      if not self._ways(job):
        raise ValueError(
          f"{job.dataset.task.name!r} has no label words to rank; evaluate it "
          "by generation."
        )

  def __call__(
    self, delta: Delta | None = None, params: Params | None = None
  ) -> list[Result]:
    """Evaluate.

    Args:
      delta: what to use in place of the predictor's; the runs' placements stay.
      params: the same for the model's parameters.

    Returns:
      One result per job, in order.
    """
    predictor = self.predictor
    if delta is not None:
      runs = dataclasses.replace(predictor.runs, delta=delta)
      predictor = dataclasses.replace(predictor, runs=runs)
    if params is not None:
      predictor = dataclasses.replace(predictor, params=params)
    outputs: list[dict[str, Sequence[Any]]] = [{} for _ in self.jobs]
    self._generate(predictor, outputs)
    self._classify(predictor, outputs)
    for normalise in ("sum", "mean"):
      self._rank(predictor, outputs, normalise)
    results = []
    for job, output in zip(self.jobs, outputs, strict=True):
      by = self._ways(job)
      values = metrics(job.dataset, output, by)
      results.append(Result(job, by, values, output))
    for result in results:
      log_texts(result)
    return results

  def _ways(self, job: Job) -> tuple[str, ...]:
    """Return the ways in which a job is evaluated."""
    task = job.dataset.task
    if task.ranked:
      return (RANKING,)
    words = job.dataset.label_words
    return tuple(w for w in self.by if w == GENERATION or words)

  def _generate(
    self, predictor: Predictor, outputs: list[dict[str, Sequence[Any]]]
  ) -> None:
    generated = [
      (job, output)
      for job, output in zip(self.jobs, outputs, strict=True)
      if GENERATION in self._ways(job)
    ]
    if not generated:
      return
    delta = predictor.runs.delta
    jobs = [job.heaviest(delta) for job, _ in generated]
    length = self.length or _longest_target(predictor, jobs)
    predicted = predictor.predict(
      _inputs_of(jobs), length=length, method=self.method
    )
    by_job = _split(predicted, jobs)
    for (job, output), used, part in zip(generated, jobs, by_job, strict=True):
      output["prediction"] = [prediction.text for prediction in part]
      output["score"] = [prediction.score for prediction in part]
      if job.members:
        number = job.members.index(used.run)
        by = f"component {number}, the heaviest of {len(job.members)}"
        output["generated_by"] = [by] * len(part)

  def _rank(
    self,
    predictor: Predictor,
    outputs: list[dict[str, Sequence[Any]]],
    normalise: rank.Normalise,
  ) -> None:
    """Rank for the jobs that compare sums, or means."""
    ranked = [
      (job, output)
      for job, output in zip(self.jobs, outputs, strict=True)
      if RANKING in self._ways(job)
      and self._scorer(predictor, job) is None
      and (job.dataset.task.ranked or self.normalise) == normalise
    ]
    if not ranked:
      return
    jobs = [part for job, _ in ranked for part in job.parts]
    candidates = [
      words
      for job in jobs
      for words in _candidates(job.dataset, predictor.vocabulary)
    ]
    rankings = rank.rank(predictor, _inputs_of(jobs), candidates, normalise)
    by_job = iter(
      zip(_split(candidates, jobs), _split(rankings, jobs), strict=True)
    )
    for job, output in ranked:
      parts = [next(by_job) for _ in job.parts]
      mixed = _mixed([part for _, part in parts], job, predictor.runs.delta)
      output["rank_prediction"] = [
        words[ranking.best]
        for words, ranking in zip(parts[0][0], mixed, strict=True)
      ]
      output["rank_scores"] = [list(ranking.scores) for ranking in mixed]

  def _classify(
    self, predictor: Predictor, outputs: list[dict[str, Sequence[Any]]]
  ) -> None:
    """Rank the classes of the jobs that use a scorer."""
    for job, output in zip(self.jobs, outputs, strict=True):
      scorer, classes = self._scorer(predictor, job), job.dataset.classes
      if scorer is None or classes is None:
        continue
      convention = scorer.convention
      by_part = []
      for part in job.parts:
        rankings, convention = self._rankings(predictor, part, scorer)
        by_part.append(rankings)
      rankings = _mixed(by_part, job, predictor.runs.delta)
      names = [classes.names[ranking.best] for ranking in rankings]
      output["rank_prediction"] = names
      output["rank_scores"] = [list(ranking.scores) for ranking in rankings]
      output["rank_scorer"] = [convention] * len(rankings)

  def _rankings(
    self, predictor: Predictor, job: Job, scorer: Scorer
  ) -> tuple[Sequence[rank.Ranking], str]:
    """Rank the classes for one run; describe the scores."""
    classes, asked = job.dataset.classes, _inputs_of([job])
    assert classes is not None
    if self.calibration is None:
      rankings = rank.classify(predictor, asked, classes.words, scorer)
      return rankings, scorer.convention
    rows = job.dataset.unlabelled
    if not isinstance(scorer, WordScorer) or rows is None:
      raise ValueError(
        "CALIBRATION corrects scores of words, but the scorer reads "
        f"{scorer.convention}. Change SCORER, or set CALIBRATION to None."
      )
    context = Inputs(rows, np.full(len(rows), job.run, np.int32))
    return calibrated.classify(
      *(predictor, asked, context, classes.names, classes.words),
      *(scorer, self.calibration),
    )

  def _scorer(self, predictor: Predictor, job: Job) -> Scorer | None:
    """Return the scorer of the classes for a run; None for whole targets."""
    classes = job.dataset.classes
    if self.scorer is None or classes is None or RANKING not in self._ways(job):
      return None
    delta, words = predictor.runs.delta, classes.words
    return self.scorer if self.scorer.applies(delta, job.run, words) else None


def _mixed(
  by_part: Sequence[Sequence[rank.Ranking]], job: Job, delta: Delta
) -> Sequence[rank.Ranking]:
  """Rank by a mixture: average a candidate's probability over the members.

  Args:
    by_part: the rankings of every member, or of the one run.
    job: names the members.
    delta: holds the members' weights.

  Returns:
    One ranking per example.
  """
  if not job.members:
    return by_part[0]
  assert delta.log_weight is not None
  shares = np.asarray(delta.log_weight, np.float64)[list(job.members)]
  mixed = []
  for of_members in zip(*by_part, strict=True):
    scores = np.array([ranking.scores for ranking in of_members])
    joint = np.logaddexp.reduce(scores + shares[:, None], axis=0)
    mixed.append(rank.Ranking(int(joint.argmax()), tuple(joint.tolist())))
  return mixed


def metrics(
  dataset: EvalSet, outputs: Mapping[str, Sequence[Any]], by: Sequence[str]
) -> dict[str, float]:
  """Compute a task's metrics for given predictions.

  Args:
    dataset: the examples.
    outputs: see `Result`; only the predictions are needed.
    by: the ways in which they were made.

  Returns:
    Metrics, see `Result`.
  """
  by_name: dict[str, float] = {}
  for number, way in enumerate(by):
    prefix = f"{way}/" if number else ""
    values = dataset.task.evaluate(outputs[PREDICTION[way]], dataset.examples)
    if way == RANKING and dataset.task.by_ranks and "rank_scores" in outputs:
      values |= classification.reciprocal_ranks(
        [dataset.label_words.index(target) for target in dataset.targets],
        outputs["rank_scores"],
      )
    by_name |= {prefix + metric: value for metric, value in values.items()}
  return by_name


def log_texts(result: Result) -> None:
  """Log some texts of a task whose name asks for it (`_examples`)."""
  dataset = result.job.dataset
  if not dataset.task.log_examples:
    return
  predictions = result.outputs[PREDICTION[result.by[0]]]
  for example, target, prediction in itertools.islice(
    zip(dataset.examples, dataset.targets, predictions, strict=True), _LOGGED
  ):
    logger.info(
      "%s, run %d\n  inputs: %s\n  target: %r\n  prediction: %r",
      *(dataset.task.name, result.job.run, example[spec.INPUTS]),
      *(target, prediction),
    )


def _candidates(
  dataset: EvalSet, vocabulary: Vocabulary
) -> list[Sequence[str]]:
  """List the possible answers of every example."""
  task = dataset.task
  if not task.candidates:
    return [dataset.label_words] * len(dataset.examples)
  return [_distinct(e[task.candidates], vocabulary) for e in dataset.examples]


def _distinct(texts: Sequence[str], vocabulary: Vocabulary) -> list[str]:
  """Keep the first of several texts with the same token ids."""
  by_ids: dict[tuple[int, ...], str] = {}
  for text, ids in zip(texts, vocabulary.encode_batch(texts), strict=True):
    by_ids.setdefault(tuple(ids), text)
  return list(by_ids.values())


def _inputs_of(jobs: Sequence[Job]) -> Inputs:
  """Concatenate the inputs of all jobs."""
  sizes = np.array([len(job.dataset.inputs) for job in jobs], np.int64)
  run_ids = np.repeat(np.array([job.run for job in jobs], np.int32), sizes)
  return Inputs(Chained([job.dataset.inputs for job in jobs]), run_ids)


def _split(values: Sequence[Any], jobs: Sequence[Job]) -> list[Sequence[Any]]:
  """Divide the values among the jobs."""
  ends = np.cumsum([0, *(len(job.dataset.inputs) for job in jobs)]).tolist()
  return [values[a:b] for a, b in itertools.pairwise(ends)]


def _longest_target(predictor: Predictor, jobs: Sequence[Job]) -> int:
  """Count the tokens of the longest gold answer, EOS included."""
  datasets = {id(job.dataset): job.dataset for job in jobs}.values()
  texts = {text for dataset in datasets for text in dataset.targets}
  return max(
    len(row) for row in encode_targets(predictor.vocabulary, list(texts))
  )
