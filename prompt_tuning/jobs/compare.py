"""Compare tuning methods with the frozen model, instructions and model tuning.

Each method trains as with `train`. The model is read once. The final scores are
on a split that no training saw.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from prompt_tuning.checkpoints import fingerprint
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import files
from prompt_tuning.core.types import Params
from prompt_tuning.data.in_context import InContext
from prompt_tuning.infer.evaluate import EvalSet, Job, Result
from prompt_tuning.infer.outputs import InputsDigest
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.jobs import (
  comparison,
  comparison_report,
  conclusion,
  costs,
  feed,
  identity,
  model_dir,
  run_scores,
  slots,
  train,
)
from prompt_tuning.jobs.compare_job import CompareJob
from prompt_tuning.jobs.comparison import Comparison, Score
from prompt_tuning.jobs.conclusion import SUMMARY, Outcome
from prompt_tuning.jobs.costs import Cost
from prompt_tuning.jobs.settings import listed
from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.models.t5 import cost
from prompt_tuning.tuners.method import noun_of

logger = logging.getLogger(__name__)


class _Trained(NamedTuple):
  """One of the trainings.

  Attributes:
    outcome: how it ended.
    trainable: the best of every run.
    titles: what reports call its runs.
    cost: what it took, of all processes that it took.
    disk_bytes: of one run.
  """

  outcome: Outcome
  trainable: Params
  titles: tuple[str, ...]
  cost: Cost
  disk_bytes: int


def compare(
  job: CompareJob,
  data_dir: str | None = None,
  model: Backbone | None = None,
  *,
  configuration: Mapping[str, str] = train.NO_CONFIGURATION,
  say: Callable[[str], None] = logger.info,
) -> Comparison:
  """Train, and score every method on the test split.

  Args:
    job: the comparison.
    data_dir: TFDS's data directory.
    model: see `train.train`.
    configuration: see `train.train`.
    say: see `train.train`.

  Returns:
    The comparison; it is also written to MODEL_DIR.

  Raises:
    StoppedError: something asked it to stop.
    ValueError: the job cannot be done.
    CheckpointError: a checkpoint cannot be read or written.
    OSError: another file cannot.
  """
  with model_dir.held(job.model_dir):
    return _compare(job, data_dir, model, configuration, say)


def _compare(
  job: CompareJob,
  data_dir: str | None,
  model: Backbone | None,
  configuration: Mapping[str, str],
  say: Callable[[str], None],
) -> Comparison:
  fit = functools.partial(
    _train, job, data_dir=data_dir, configuration=configuration, say=say
  )
  tuned: list[_Trained] = []
  for training in job.trainings:
    done = fit(training, model=_shared(job, training, model))
    tuned.append(done)
    model = model or done.outcome.model
  sets = {
    name: _eval_sets(job, name, data_dir)
    for task in job.trainings[0].experiment.dataset.names
    for name in (task, job.instructed.get(task, task))
  }
  in_context = {
    _InContext(context, task): _eval_sets(job, task, data_dir, context)
    for context in listed(job.contexts)
    for task in job.trainings[0].experiment.dataset.names
  }
  scores = _frozen_scores(job, tuned, sets, in_context)
  trained = list(tuned)
  if job.models is not None:
    models = fit(job.models, model=_shared(job, job.models, model))
    trained.append(models)
    scores += _model_scores(job, models, sets)
  if job.multitask is not None:
    (mixture,) = job.multitask.experiment.dataset.names
    sets[mixture] = _eval_sets(job, mixture, data_dir)
    done = fit(job.multitask, model=_shared(job, job.multitask, model))
    trained.append(done)
    scores += _multitask_scores(job, done, sets)
  counts = cost.count_parameters(tuned[0].outcome.model.config)
  compared = Comparison(
    scores=tuple(scores),
    seconds=_by_method(trained, lambda done: done.cost.seconds),
    steps=_by_method(trained, lambda done: int(done.outcome.result.state.step)),
    parameters=sum(counts.values()),
    trained=_by_method(trained, _count_trained),
    frozen=all(_is_frozen(done.outcome) for done in tuned),
    made_of=_made_of(job, trained, sets, in_context),
    runs=_by_method(trained, lambda done: len(done.outcome.runs)),
    step_seconds=_by_method(trained, lambda done: done.cost.step_seconds),
    step_bytes=_by_method(trained, lambda done: done.cost.step_bytes),
    disk_bytes=_by_method(trained, lambda done: done.disk_bytes),
  )
  if jax.process_index() == 0:
    comparison.write(job.model_dir, compared)
    comparison_report.write(job.model_dir, compared)
  return compared


class _InContext(NamedTuple):
  """A task whose inputs stand in a context."""

  context: InContext
  task: str


def _eval_sets(
  job: CompareJob,
  name: str,
  data_dir: str | None,
  context: InContext | None = None,
) -> list[EvalSet]:
  """Read what is scored in the end, see `feed.eval_sets`."""
  return feed.eval_sets(
    job.test.dataset,
    name,
    data_dir,
    job.test.num_examples,
    feed.scored_classes(job.test),
    context,
    job.test.calibration,
  )


def _by_method(
  trained: Sequence[_Trained], ask: Callable[[_Trained], Any]
) -> dict[str, Any]:
  """Ask every training, and record the answer under every title of its runs."""
  answers = [(done.titles, ask(done)) for done in trained]
  return {
    title: answer
    for titles, answer in answers
    if answer is not None
    for title in titles
  }


def _made_of(
  job: CompareJob,
  trained: Sequence[_Trained],
  sets: Mapping[str, Sequence[EvalSet]],
  in_context: Mapping[_InContext, Sequence[EvalSet]],
) -> dict[str, Any]:
  """Describe all that decides the scores; inputs and weights as digests."""
  first = trained[0].outcome
  inputs = {
    one.task.name: InputsDigest(one.examples).value
    for of_task in sets.values()
    for one in of_task
  }
  contexts = [
    {"context": asked.context, "task": one.task.name}
    | InputsDigest(one.examples).value
    for asked, of_task in in_context.items()
    for one in of_task
  ]
  described = identity.describe(
    {
      "backbone": first.model.fingerprint,
      "vocabulary": first.vocabulary.sha256,
      "by": job.test.ways,
      "decoder": job.test.decoder,
      "length": job.test.max_decode_length,
      "inputs": inputs,
      "contexts": contexts,
    }
  )
  learned = _by_method(trained, lambda d: fingerprint.checksum(d.trainable))
  return {**described, "learned": learned}


def places(job: CompareJob) -> str:
  """Return the paths of the results, to print with the table."""
  folder = files.path(job.model_dir)
  trainings = filter(None, [*job.trainings, job.models, job.multitask])
  lines = [f"as JSON: {folder / comparison.FILE}"]
  names = ", ".join(comparison_report.FILES)
  lines.append(f"as {names}: beside it")
  for training in trainings:
    name = job.folder(training)
    lines.append(f"{name}: {folder / name}, beginning with {SUMMARY}")
  return "\n".join(lines)


def _shared(
  job: CompareJob, training: TrainJob, model: Backbone | None
) -> Backbone | None:
  """Give the first training's model to a training that reads the same one."""
  first = job.trainings[0]
  wanted = (training.source, training.experiment.model)
  return model if wanted == (first.source, first.experiment.model) else None


def _is_frozen(outcome: Outcome) -> bool:
  """Whether frozen weights have the same bits as before."""
  return fingerprint.checksum(outcome.setup.frozen) == outcome.checksum


def _train(
  job: CompareJob,
  training: TrainJob,
  data_dir: str | None,
  model: Backbone | None,
  configuration: Mapping[str, str],
  say: Callable[[str], None],
) -> _Trained:
  say(f"{job.title(training)}:")
  outcome = train.train(
    job.placed(training),
    data_dir,
    model,
    configuration=configuration,
    say=say,
  )
  outcome.insist_on_an_end()
  if outcome.result.reason != "finished":
    say(outcome.ending)
  best = conclusion.best(outcome)
  conclusion.finish(outcome, best)
  steps = int(outcome.result.state.step)
  return _Trained(
    outcome,
    best[1],
    job.run_titles(training),
    costs.of_training(outcome.output.model_dir, steps, outcome.start_step),
    costs.disk_bytes(outcome, best[1]),
  )


def _count_trained(trained: _Trained) -> int:
  """Count the parameters of one run."""
  leaves = jax.tree.leaves(trained.trainable)
  return sum(leaf.size // leaf.shape[0] for leaf in leaves)


class _Asked(NamedTuple):
  """One evaluation: whose score it is, and of which runs in the batch.

  `runs` gives every task of a mixture the number of a run in the batch; a task
  that it has not gets the plain model. `members` are the runs that it mixes.
  """

  method: str
  task: str
  seed: int | None
  runs: Mapping[str, int]
  members: tuple[int, ...] = ()


def _frozen_scores(
  job: CompareJob,
  tuned: Sequence[_Trained],
  sets: Mapping[str, Sequence[EvalSet]],
  in_context: Mapping[_InContext, Sequence[EvalSet]],
) -> list[Score]:
  """Score everything that does not change the model, in one pass."""
  banks: list[Runs] = [Runs()]
  asked: list[_Asked] = []
  jobs: list[Job] = []
  owners: list[tuple[str, str, int | None]] = []
  for task in job.trainings[0].experiment.dataset.names:
    named = {comparison.PLAIN: task}
    if task in job.instructed:
      named[comparison.INSTRUCTION] = job.instructed[task]
    for title, name in named.items():
      readable = conclusion.without_soft(sets[name])
      jobs += map(Job, readable)
      owners += ((title, task, None) for _ in readable)
  for (context, task), of_task in in_context.items():
    jobs += map(Job, of_task)
    owners += ((context.title, task, context.drawn_by) for _ in of_task)
  nouns = [noun_of(type(done.outcome.setup.tuners[0])) for done in tuned]
  for done, noun in zip(tuned, nouns, strict=True):
    alone = nouns.count(noun) == len(set(done.titles)) == 1 and not job.called
    noun_of_controls = noun if alone else None
    asked += _ask_method(done, noun_of_controls, banks, sets, job.controls)

  for one in asked:
    for dataset in sets[one.task]:
      number = one.runs.get(dataset.task.name, 0)
      jobs.append(Job(dataset, number, one.members))
      owners.append((one.method, one.task, one.seed))
  outcome = tuned[0].outcome
  results = _run_evaluator(job, outcome, {}).evaluate(
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
  done: _Trained,
  noun: str | None,
  banks: list[Runs],
  sets: Mapping[str, Sequence[EvalSet]],
  with_controls: bool,
) -> list[_Asked]:
  """Put a method's runs and their random controls into the batch.

  Args:
    done: its training.
    noun: what no other method of the comparison learns, to call the controls
      by; None calls them by the method.
    banks: runs of the batch; gets more.
    sets: what to score.
    with_controls: whether there are random controls.

  Returns:
    What to ask.
  """
  outcome = done.outcome
  trained = conclusion.runs_of(outcome, done.trainable)
  runs, methods = outcome.runs, outcome.setup.tuners
  first = sum(map(len, banks))
  banks.append(trained)
  asked, controls = [], []
  rows = zip(runs, methods, done.titles, strict=True)
  for k, (run, method, title) in enumerate(rows):
    of_method = {
      dataset.task.name: slots.find(outcome.setup.slots, k, dataset.task.name)
      for dataset in sets[run.task]
    }
    randoms = {}
    for slot in dict.fromkeys(of_method.values() if with_controls else ()):
      key = jax.random.fold_in(jax.random.key(run.seed), slot)
      random = conclusion.random_control(trained, slot, method, key)
      if random is not None:
        randoms[slot] = sum(map(len, banks))
        banks.append(random)
    if randoms:
      label = f"{comparison.RANDOM}{noun or title}"
      numbers = {task: randoms[slot] for task, slot in of_method.items()}
      controls.append(_Asked(label, run.task, run.seed, numbers))
    numbers = {task: first + slot for task, slot in of_method.items()}
    mixed = slots.components(outcome.setup.slots, k)
    members = tuple(first + slot for slot in mixed)
    asked.append(_Asked(title, run.task, run.seed, numbers, members))
  return [*controls, *asked]


def _model_scores(
  job: CompareJob,
  models: _Trained,
  sets: Mapping[str, Sequence[EvalSet]],
) -> list[Score]:
  """Score the tuned models, one after the other."""
  outcome = models.outcome
  run_evaluator = _run_evaluator(job, outcome, sets)
  results = run_evaluator.results(models.trainable)
  return [
    Score(title, run.task, run.seed, run_scores.summary(of_run).score)
    for title, run, of_run in zip(
      models.titles, outcome.runs, results, strict=True
    )
  ]


def _multitask_scores(
  job: CompareJob, done: _Trained, sets: Mapping[str, Sequence[EvalSet]]
) -> list[Score]:
  """Score one model per seed on every task, under its name in the mixture."""
  outcome = done.outcome
  scores = []
  results = _run_evaluator(job, outcome, sets).results(done.trainable)
  for title, run, of_run in zip(
    done.titles, outcome.runs, results, strict=True
  ):
    by_task = {result.job.dataset.task.name: result for result in of_run}
    for task in job.trainings[0].experiment.dataset.names:
      members = job.members(job.named.get(task, task))
      group = [by_task[name] for name in members]
      score = run_scores.summary(group).score
      scores.append(Score(title, task, run.seed, score))
  return scores


def _run_evaluator(
  job: CompareJob,
  outcome: Outcome,
  sets: Mapping[str, Sequence[EvalSet]],
) -> run_scores.RunEvaluator:
  return run_scores.RunEvaluator(
    job.test,
    outcome.runs,
    outcome.setup,
    outcome.model,
    outcome.vocabulary,
    sets,
    outcome.mesh,
  )
