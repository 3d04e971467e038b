"""A tuning method beside no prompt, words, and model tuning.

Prompts and models train as `train` trains them; the last word has a split that
neither saw.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax

from prompt_tuning.checkpoints import fingerprint
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.types import Params
from prompt_tuning.infer.evaluate import EvalSet, Job, Result
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.jobs import comparison, conclusion, feed, run_scores, train
from prompt_tuning.jobs.compare_job import CompareJob
from prompt_tuning.jobs.comparison import Comparison, Score
from prompt_tuning.jobs.conclusion import Outcome
from prompt_tuning.jobs.train_job import Run, TrainJob
from prompt_tuning.models.t5 import cost
from prompt_tuning.tuners import interpret

logger = logging.getLogger(__name__)


class _Trained(NamedTuple):
  """One of the two trainings.

  Attributes:
    outcome: how it ended.
    trainable: the best of every run.
    seconds: that it took, evaluation included.
  """

  outcome: Outcome
  trainable: Params
  seconds: float


def compare(
  job: CompareJob,
  data_dir: str | None = None,
  *,
  configuration: Mapping[str, str] = train.NO_CONFIGURATION,
  say: Callable[[str], None] = logger.info,
) -> Comparison | None:
  """Train, and score every method on the test split.

  Args:
    job: what to compare.
    data_dir: TFDS's data directory.
    configuration: see `train.train`.
    say: see `train.train`.

  Returns:
    The comparison, which is also in MODEL_DIR; None if it was told to stop on
    the way.

  Raises:
    ValueError: the job cannot be done.
    CheckpointError: a checkpoint cannot be read or written.
    OSError: another file cannot.
  """
  fit = functools.partial(
    _train, data_dir=data_dir, configuration=configuration, say=say
  )
  prompts = fit(job.part(job.prompts, "prompts"))
  if prompts is None:
    return None
  conclusion.finish(prompts.outcome)
  sets = {
    name: feed.eval_sets(
      job.test.dataset, name, data_dir, job.test.num_examples
    )
    for task in dict.fromkeys(run.task for run in job.prompts.runs)
    for name in (task, job.instructed.get(task, task))
  }
  scores = _frozen_scores(job, prompts, sets)
  trained = {comparison.PROMPT: prompts}
  if job.models is not None:
    models = fit(job.part(job.models, "models"))
    if models is None:
      return None
    trained[comparison.MODEL] = models
    scores += _model_scores(job, models, sets)
  model = prompts.outcome.model
  now = fingerprint.checksum(prompts.outcome.parts.frozen)
  counts = cost.count_parameters(model.config)
  found = Comparison(
    scores=tuple(scores),
    seconds={method: own.seconds for method, own in trained.items()},
    steps={m: int(own.outcome.result.state.step) for m, own in trained.items()},
    parameters=sum(counts.values()),
    trained={m: _count_trained(own) for m, own in trained.items()},
    frozen=now == prompts.outcome.checksum,
  )
  if jax.process_index() == 0:
    comparison.write(job.model_dir, found)
  return found


def _train(
  job: TrainJob,
  data_dir: str | None,
  configuration: Mapping[str, str],
  say: Callable[[str], None],
) -> _Trained | None:
  started = time.perf_counter()
  outcome = train.train(
    dataclasses.replace(job, controls=True),
    data_dir,
    configuration=configuration,
    say=say,
  )
  if outcome.result.reason == "preempted":
    return None
  _, trainable = conclusion.best(outcome)
  return _Trained(outcome, trainable, time.perf_counter() - started)


def _count_trained(own: _Trained) -> int:
  """Count the parameters of one run."""
  leaves = jax.tree.leaves(own.trainable)
  return sum(leaf.size // leaf.shape[0] for leaf in leaves)


def _frozen_scores(
  job: CompareJob, prompts: _Trained, sets: dict[str, list[EvalSet]]
) -> list[Score]:
  """Score everything that leaves the model as it is, in one go."""
  outcome = prompts.outcome
  trained = conclusion.runs_of(outcome, prompts.trainable)
  runs = outcome.job.runs
  parts = [Runs(), trained]
  asked: list[tuple[str, Run | None, str, int]] = []
  for k, run in enumerate(runs):
    asked.append((comparison.PROMPT, run, run.task, 1 + k))
  if trained.delta.virtual is not None:
    parts.append(_random_prompts(trained, [run.seed for run in runs]))
    for k, run in enumerate(runs):
      asked.append((comparison.RANDOM_PROMPT, run, run.task, 1 + len(runs) + k))
  for task in dict.fromkeys(run.task for run in runs):
    asked.append((comparison.NO_PROMPT, None, task, 0))
    if task in job.instructed:
      asked.append((comparison.INSTRUCTION, None, task, 0))

  jobs, owners = [], []
  for method, owner, task, number in asked:
    is_asked = method == comparison.INSTRUCTION
    for dataset in sets[job.instructed[task] if is_asked else task]:
      jobs.append(Job(dataset, run=number))
      owners.append((method, task, owner.seed if owner else None))
  scorer = _scorer(job, outcome, {})
  results = scorer.evaluate(join(parts), outcome.model.params, jobs)
  by_owner: dict[tuple[str, str, int | None], list[Result]] = {}
  for key, result in zip(owners, results, strict=True):
    by_owner.setdefault(key, []).append(result)
  return [
    Score(*key, run_scores.summary(own).score) for key, own in by_owner.items()
  ]


def _model_scores(
  job: CompareJob, models: _Trained, sets: dict[str, list[EvalSet]]
) -> list[Score]:
  """Score the tuned models, one after the other."""
  outcome = models.outcome
  scorer = _scorer(job, outcome, sets)
  results = scorer.results(models.trainable)
  return [
    Score(comparison.MODEL, run.task, run.seed, run_scores.summary(own).score)
    for run, own in zip(outcome.job.runs, results, strict=True)
  ]


def _scorer(
  job: CompareJob,
  outcome: Outcome,
  sets: dict[str, list[EvalSet]],
) -> run_scores.Scorer:
  return run_scores.Scorer(
    dataclasses.replace(outcome.job, evaluation=job.test),
    outcome.parts,
    outcome.model,
    outcome.vocabulary,
    sets,
    outcome.mesh,
  )


def _random_prompts(trained: Runs, seeds: Sequence[int]) -> Runs:
  """Replace the vectors of all runs by random ones of the same norms."""
  assert trained.delta.virtual is not None
  noise = [
    interpret.random_control(jax.random.key(seed), own)
    for seed, own in zip(seeds, trained.delta.virtual, strict=True)
  ]
  return Runs(Delta(virtual=jax.numpy.stack(noise)), trained.placements)
