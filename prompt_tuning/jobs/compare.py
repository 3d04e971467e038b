"""Tuning methods beside the model alone, words, and model tuning.

Each trains as `train` trains it, on one model that is read once; the last word
has a split that none of them saw.
"""

import functools
import logging
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from prompt_tuning.checkpoints import fingerprint
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core.types import Params
from prompt_tuning.infer.evaluate import EvalSet, Job, Result
from prompt_tuning.infer.outputs import InputsDigest
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.jobs import (
  comparison,
  conclusion,
  feed,
  identity,
  model_dir,
  run_scores,
  slots,
  train,
)
from prompt_tuning.jobs.compare_job import CompareJob, title_of
from prompt_tuning.jobs.comparison import Comparison, Score
from prompt_tuning.jobs.conclusion import SUMMARY, Outcome
from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.models.t5 import cost
from prompt_tuning.tuners.method import name_of

logger = logging.getLogger(__name__)


class _Trained(NamedTuple):
  """One of the trainings.

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
) -> Comparison:
  """Train, and score every method on the test split.

  Args:
    job: what to compare.
    data_dir: TFDS's data directory.
    configuration: see `train.train`.
    say: see `train.train`.

  Returns:
    The comparison, which is also in MODEL_DIR.

  Raises:
    StoppedError: it was told to stop on the way.
    ValueError: the job cannot be done.
    CheckpointError: a checkpoint cannot be read or written.
    OSError: another file cannot.
  """
  with model_dir.held(job.model_dir):
    return _compare(job, data_dir, configuration, say)


def _compare(
  job: CompareJob,
  data_dir: str | None,
  configuration: Mapping[str, str],
  say: Callable[[str], None],
) -> Comparison:
  fit = functools.partial(
    _train, data_dir=data_dir, configuration=configuration, say=say
  )
  tuned: dict[str, _Trained] = {}
  model: Backbone | None = None
  for training in job.trainings:
    done = fit(job.placed(training), model=_shared(job, training, model))
    tuned[title_of(training)] = done
    model = model or done.outcome.model
  sets = {
    name: feed.eval_sets(
      job.test.dataset, name, data_dir, job.test.num_examples
    )
    for task in job.trainings[0].experiment.dataset.names
    for name in (task, job.instructed.get(task, task))
  }
  scores = _frozen_scores(job, tuned, sets)
  first = next(iter(tuned.values())).outcome
  trained = dict(tuned)
  if job.models is not None:
    models = fit(job.placed(job.models), model=_shared(job, job.models, model))
    trained[comparison.MODEL] = models
    scores += _model_scores(job, models, sets)
  counts = cost.count_parameters(first.model.config)
  compared = Comparison(
    scores=tuple(scores),
    seconds={method: done.seconds for method, done in trained.items()},
    steps={
      method: int(done.outcome.result.state.step)
      for method, done in trained.items()
    },
    parameters=sum(counts.values()),
    trained={method: _count_trained(done) for method, done in trained.items()},
    frozen=all(_is_frozen(done.outcome) for done in tuned.values()),
    made_of=_made_of(job, trained, sets),
  )
  if jax.process_index() == 0:
    comparison.write(job.model_dir, compared)
  return compared


def _made_of(
  job: CompareJob,
  trained: Mapping[str, _Trained],
  sets: Mapping[str, Sequence[EvalSet]],
) -> dict[str, Any]:
  """Describe what decides the scores, of inputs and weights by digests."""
  first = next(iter(trained.values())).outcome
  inputs = {
    one.task.name: InputsDigest(one.examples).value
    for of_task in sets.values()
    for one in of_task
  }
  described = identity.describe(
    {
      "backbone": first.model.fingerprint,
      "vocabulary": first.vocabulary.sha256,
      "by": job.test.ways,
      "decoder": job.test.decoder,
      "length": job.test.max_decode_length,
      "inputs": inputs,
    }
  )
  learned = {m: fingerprint.checksum(d.trainable) for m, d in trained.items()}
  return {**described, "learned": learned}


def places(job: CompareJob) -> str:
  """Say where what came out is, beside the table."""
  folder = pathlib.Path(job.model_dir)
  trainings = [*job.trainings, *([job.models] if job.models else [])]
  lines = [f"as JSON: {folder / comparison.FILE}"]
  for training in trainings:
    name = job.folder(training)
    lines.append(f"{name}: {folder / name}, beginning with {SUMMARY}")
  return "\n".join(lines)


def _shared(
  job: CompareJob, training: TrainJob, model: Backbone | None
) -> Backbone | None:
  """Give the first training's model to one that would read the same."""
  first = job.trainings[0]
  wanted = (training.source, training.experiment.model)
  return model if wanted == (first.source, first.experiment.model) else None


def _is_frozen(outcome: Outcome) -> bool:
  """Whether what should not train is what it was, bit for bit."""
  return fingerprint.checksum(outcome.setup.frozen) == outcome.checksum


def _train(
  job: TrainJob,
  data_dir: str | None,
  model: Backbone | None,
  configuration: Mapping[str, str],
  say: Callable[[str], None],
) -> _Trained:
  started = time.perf_counter()
  tuners = job.experiment.tuners
  say(f"{title_of(job) if tuners else comparison.MODEL}:")
  outcome = train.train(
    job,
    data_dir,
    model,
    configuration=configuration,
    say=say,
  )
  outcome.insist_on_an_end()
  if outcome.result.reason != "finished":
    say(outcome.ending)
  best = conclusion.best(outcome)
  seconds = time.perf_counter() - started
  conclusion.finish(outcome, best)
  return _Trained(outcome, best[1], seconds)


def _count_trained(trained: _Trained) -> int:
  """Count the parameters of one run."""
  leaves = jax.tree.leaves(trained.trainable)
  return sum(leaf.size // leaf.shape[0] for leaf in leaves)


class _Asked(NamedTuple):
  """One evaluation: whose score it is, and what in the batch it is of.

  `runs` gives every task of a mixture the number of a run in the batch; a task
  that it has not gets the plain model.
  """

  method: str
  task: str
  seed: int | None
  runs: Mapping[str, int]


def _frozen_scores(
  job: CompareJob,
  tuned: Mapping[str, _Trained],
  sets: Mapping[str, Sequence[EvalSet]],
) -> list[Score]:
  """Score everything that leaves the model as it is, in one go."""
  banks, asked = [Runs()], []
  for task in job.trainings[0].experiment.dataset.names:
    asked.append(_Asked(comparison.PLAIN, task, None, {}))
    if task in job.instructed:
      asked.append(_Asked(comparison.INSTRUCTION, task, None, {}))
  for done in tuned.values():
    asked += _ask_method(done, banks, sets)

  jobs, owners = [], []
  for one in asked:
    is_instructed = one.method == comparison.INSTRUCTION
    name = job.instructed[one.task] if is_instructed else one.task
    for dataset in sets[name]:
      jobs.append(Job(dataset, run=one.runs.get(dataset.task.name, 0)))
      owners.append((one.method, one.task, one.seed))
  outcome = next(iter(tuned.values())).outcome
  results = _scorer(job, outcome, {}).evaluate(
    join(banks), outcome.model.params, jobs
  )
  by_owner: dict[tuple[str, str, int | None], list[Result]] = {}
  for key, result in zip(owners, results, strict=True):
    by_owner.setdefault(key, []).append(result)
  return [
    Score(*key, run_scores.summary(group).score)
    for key, group in by_owner.items()
  ]


def _ask_method(
  done: _Trained, banks: list[Runs], sets: Mapping[str, Sequence[EvalSet]]
) -> list[_Asked]:
  """Put a method's runs and their random controls into the batch."""
  outcome = done.outcome
  trained = conclusion.runs_of(outcome, done.trainable)
  runs, methods = outcome.runs, outcome.setup.tuners
  first = sum(map(len, banks))
  banks.append(trained)
  asked, controls = [], []
  for k, (run, method) in enumerate(zip(runs, methods, strict=True)):
    of_method = {
      dataset.task.name: slots.find(outcome.setup.slots, k, dataset.task.name)
      for dataset in sets[run.task]
    }
    randoms = {}
    for slot in dict.fromkeys(of_method.values()):
      key = jax.random.fold_in(jax.random.key(run.seed), slot)
      random = conclusion.random_control(trained, slot, method, key)
      if random is not None:
        randoms[slot] = sum(map(len, banks))
        banks.append(random)
    if randoms:
      label = conclusion.random_label(method)
      numbers = {task: randoms[slot] for task, slot in of_method.items()}
      controls.append(_Asked(label, run.task, run.seed, numbers))
    numbers = {task: first + slot for task, slot in of_method.items()}
    asked.append(_Asked(name_of(type(method)), run.task, run.seed, numbers))
  return [*controls, *asked]


def _model_scores(
  job: CompareJob,
  models: _Trained,
  sets: Mapping[str, Sequence[EvalSet]],
) -> list[Score]:
  """Score the tuned models, one after the other."""
  outcome = models.outcome
  scorer = _scorer(job, outcome, sets)
  results = scorer.results(models.trainable)
  return [
    Score(
      comparison.MODEL, run.task, run.seed, run_scores.summary(of_run).score
    )
    for run, of_run in zip(outcome.runs, results, strict=True)
  ]


def _scorer(
  job: CompareJob,
  outcome: Outcome,
  sets: Mapping[str, Sequence[EvalSet]],
) -> run_scores.Scorer:
  return run_scores.Scorer(
    job.test,
    outcome.runs,
    outcome.setup,
    outcome.model,
    outcome.vocabulary,
    sets,
    outcome.mesh,
  )
