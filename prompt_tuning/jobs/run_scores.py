"""Score the runs of a job, during training and after it."""

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence

import jax
from jax.sharding import Mesh

from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core.types import Params
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.infer.batching import Batching
from prompt_tuning.infer.evaluate import EvalSet, Evaluator, Job, Result
from prompt_tuning.infer.predict import Predictor
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import slots
from prompt_tuning.jobs.settings import EvaluationSettings
from prompt_tuning.jobs.setup import Setup
from prompt_tuning.jobs.slots import Slot
from prompt_tuning.jobs.train_job import Run
from prompt_tuning.train import loop


class RunEvaluator:
  """Evaluates every run on its task.

  Attributes:
    sets: task or mixture -> its examples.
  """

  sets: Mapping[str, Sequence[EvalSet]]

  def __init__(
    self,
    settings: EvaluationSettings,
    runs: Sequence[Run],
    setup: Setup,
    backbone: Backbone,
    vocabulary: Vocabulary,
    sets: Mapping[str, Sequence[EvalSet]],
    mesh: Mesh | None,
    loss: Callable[[Params], Sequence[Mapping[str, float]]] | None = None,
    write: Callable[[Run, Sequence[Result], int], None] | None = None,
  ):
    """Prepare.

    Args:
      settings: how to evaluate.
      runs: that are evaluated.
      setup: what trains.
      backbone: the model.
      vocabulary: of the model.
      sets: task or mixture -> its examples.
      mesh: where everything lies.
      loss: computes the training loss too.
      write: writes a run's results of a step to files.

    Raises:
      ValueError: the sets cannot be evaluated in that way.
    """
    self._loss, self._write = loss, write
    self._settings, self._runs = settings, runs
    self._setup = setup
    self._backbone, self._vocabulary, self._mesh = backbone, vocabulary, mesh
    self.sets = sets
    # Errors show now, not when the first evaluation is due.
    jobs = [Job(dataset) for of_task in sets.values() for dataset in of_task]
    for k, run in enumerate(runs):
      for dataset in sets.get(run.task, ()):  # `compare` evaluates its own jobs
        self._slot(k, dataset)
    if jobs:
      self._evaluator(Runs(), backbone.params, jobs)

  def __call__(self, trainable: Params) -> list[loop.RunEvaluation]:
    """Score all runs, see `loop.Evaluator`."""
    results = self.results(trainable)
    evaluations = list(map(summary, results))
    if self._write is not None:
      evaluations = [
        one._replace(write=functools.partial(self._write, run, of_run))
        for one, run, of_run in zip(
          evaluations, self._runs, results, strict=True
        )
      ]
    if self._loss is None:
      return evaluations
    return [
      one._replace(losses=losses)
      for one, losses in zip(evaluations, self._loss(trainable), strict=True)
    ]

  def results(self, trainable: Params) -> list[list[Result]]:
    """Evaluate all runs.

    Args:
      trainable: the trainable part, with a leading run axis.

    Returns:
      For every run one result per task.
    """
    if self._setup.program.tunes_model:
      return [self._one_run(trainable, k) for k in range(len(self._runs))]
    program, frozen = self._setup.program, self._setup.frozen
    params = program.partition.merge(trainable, frozen)
    delta = program.produce(params.get("tuner", {}), None)
    all_slots = self._setup.slots
    jobs = [
      Job(dataset, self._slot(k, dataset), slots.components(all_slots, k))
      for k, run in enumerate(self._runs)
      for dataset in self.sets[run.task]
    ]
    runs = self._setup.runs(delta)
    results = iter(self.evaluate(runs, params["model"], jobs))
    return [[next(results) for _ in self.sets[r.task]] for r in self._runs]

  def evaluate(
    self, runs: Runs, params: Params, jobs: Sequence[Job]
  ) -> list[Result]:
    """Evaluate any runs of the model, with the settings of the job."""
    return self._evaluator(runs, params, jobs)()

  def _evaluator(
    self, runs: Runs, params: Params, jobs: Sequence[Job]
  ) -> Evaluator:
    predictor = Predictor(
      self._backbone.config,
      params,
      self._vocabulary,
      runs=runs,
      batching=Batching(self._settings.dataset.batch_size),
      mesh=self._mesh,
    )
    return Evaluator(
      predictor,
      jobs,
      by=self._settings.ways,
      length=self._settings.max_decode_length,
      method=self._settings.decoder,
      scorer=self._settings.scorer,
      calibration=self._settings.calibration,
    )

  def _one_run(self, trainable: Params, run: int) -> list[Result]:
    """Evaluate one run whose backbone is its own."""
    program, frozen = self._setup.program, self._setup.frozen
    model = jax.tree.map(lambda a: a[run], trainable["model"])
    rest = {k: v for k, v in trainable.items() if k != "model"}
    banked = jax.tree.map(lambda a: a[run : run + 1], rest)
    params = program.partition.merge({"model": model, **banked}, frozen)
    delta = program.produce(params.get("tuner", {}), None)
    first = self._setup.slots.index(self._own_slots(run)[0])
    members = slots.components(self._setup.slots, run)
    mixture = tuple(number - first for number in members)
    jobs = [
      Job(dataset, self._slot(run, dataset) - first, mixture)
      for dataset in self.sets[self._runs[run].task]
    ]
    own, tuners = self._own_slots(run), self._setup.tuners
    runs = slots.runs(delta, tuners, own) if tuners else Runs(delta)
    return self.evaluate(runs, params["model"], jobs)

  def _slot(self, run: int, dataset: EvalSet) -> int:
    """Find the row of the delta that a run has for a task."""
    return slots.find(self._setup.slots, run, dataset.task.name)

  def _own_slots(self, run: int) -> list[Slot]:
    return [slot for slot in self._setup.slots if slot.run == run]


def summary(results: Sequence[Result]) -> loop.RunEvaluation:
  """Summarise a run's results; the mean of its tasks' scores selects."""
  return loop.RunEvaluation(
    statistics.fmean(result.score for result in results),
    {
      f"{result.job.dataset.task.name}/{name}": value
      for result in results
      for name, value in result.metrics.items()
    },
  )
