"""Score prompts on tasks, alone and as an ensemble."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from prompt_tuning.core import algebra, files
from prompt_tuning.data import score, several_templates
from prompt_tuning.infer import ensemble, rank, reports
from prompt_tuning.infer.evaluate import (
  GENERATION,
  RANKING,
  Evaluator,
  Job,
  Result,
)
from prompt_tuning.jobs import (
  classes,
  comparison,
  feed,
  identity,
  inference,
  summary,
)
from prompt_tuning.jobs.eval_job import EvalJob
from prompt_tuning.jobs.inference import Ready
from prompt_tuning.jobs.load import Tuned
from prompt_tuning.jobs.settings import EvaluationSettings
from prompt_tuning.tuners.method import noun_of

logger = logging.getLogger(__name__)


def evaluate(job: EvalJob, data_dir: str | None = None) -> str:
  """Evaluate, and write T5X's files.

  Args:
    job: what to do.
    data_dir: TFDS's data directory.

  Returns:
    A table of the scores.

  Raises:
    ValueError: the job cannot be done.
    CheckpointError: a checkpoint cannot be read or written.
    OSError: another file cannot.
  """
  files.ensure_writable(job.output_dir, "EVAL_OUTPUT_DIR")
  settings = job.evaluation
  _warn_of_idle_scorer(settings)
  ready = inference.prepare(job, settings.dataset)
  model, prompts, predictor = ready
  results = Evaluator(
    predictor,
    _jobs(settings, prompts, data_dir),
    by=settings.ways,
    length=settings.max_decode_length,
    method=settings.decoder,
    scorer=settings.scorer,
    calibration=settings.calibration,
  )()
  if jax.process_index() == 0:
    for result in results:
      folder = files.path(job.output_dir) / reports.FOLDER
      run = result.job.run
      name, steps = prompts.names[run], (prompts.steps[run], model.step, 0)
      step = next(step for step in steps if step is not None)
      target = files.below(folder, name, "PROMPT_FILE")
      made_of = _settings(job, ready, run)
      limit = job.json_write_n_results
      reports.write(target, step, result, limit, made_of)
  names = [label(prompts, k) for k in range(len(prompts.names))]
  for run, members in _answering(prompts):
    if members:
      names[run] = f"{names[run]} and {len(members) - 1} more, mixed"
  if settings.context is not None:
    title = settings.context.title
    names = [title if n == comparison.PLAIN else f"{n}, {title}" for n in names]
  return table(results, names, prompts.steps)


def _warn_of_idle_scorer(settings: EvaluationSettings) -> None:
  """Warn that a scorer is not used, because of the order of the gin files."""
  if settings.scorer is not None and RANKING not in settings.ways:
    logger.warning(
      "EVALUATE_BY is %s, so the scorer %s is not used: give "
      "objectives/classes.gin after runs/prompt_eval.gin, or set EVALUATE_BY "
      "to 'rank'.",
      " and ".join(map(repr, settings.ways)),
      type(settings.scorer).__name__,
    )


def _settings(job: EvalJob, ready: Ready, run: int) -> dict[str, Any]:
  """Describe what decides the answers of one run."""
  settings, one = job.evaluation, ready.prompts.runs.one(run)
  decodes = GENERATION in settings.ways
  described = identity.describe(
    {
      **inference.settings(job, ready),
      "placement": one.placements[0],
      "delta": one.delta,
      "by": settings.ways,
      "decoder": settings.decoder if decodes else None,
      "length": settings.max_decode_length if decodes else None,
      "batch_size": settings.dataset.batch_size,
      "input_lengths": settings.dataset.lengths,
      "context": settings.context,
      "ranked_by": _convention(settings),
    }
  )
  return dict(described)


def _convention(settings: EvaluationSettings) -> str | None:
  """Say how ranking computes scores; None if nothing is ranked."""
  if RANKING not in settings.ways:
    return None
  scorer = settings.scorer
  return scorer.convention if scorer else rank.CONVENTION


def label(prompts: Tuned, run: int) -> str:
  """Return the label of a run in a table: its name, or its kind."""
  if prompts.names[run]:
    return prompts.names[run]
  method = prompts.methods[run]
  if method is not None:
    return noun_of(type(method))
  if prompts.weights:
    return "tuned model"
  return (
    "delta" if algebra.named_leaves(prompts.runs.delta) else comparison.PLAIN
  )


def _jobs(
  settings: EvaluationSettings, prompts: Tuned, data_dir: str | None
) -> list[Job]:
  """Pair tasks with prompts: each prompt with its own task, or all with all."""
  tasks = settings.dataset.names
  task_of_run = _own_tasks(tasks, prompts)
  for run in range(len(prompts.runs)):
    for task in tasks:
      if task_of_run is None or task_of_run[run] == task:
        asked = (task, settings.label_words, settings.scorer)
        classes.insist_on_weighed(*asked, prompts.runs.weighed_words_of(run))
        classes.insist_on_answers(*asked, prompts.runs.answers_of(run))
  jobs = [
    Job(dataset, run, members)
    for task in tasks
    for dataset in feed.eval_sets(
      settings.dataset,
      task,
      data_dir,
      settings.num_examples,
      feed.scored_classes(settings),
      settings.context,
      settings.calibration,
    )
    for run, members in _answering(prompts)
    if task_of_run is None or task_of_run[run] == task
  ]
  _warn_of_other_tasks(jobs, prompts)
  return jobs


def _warn_of_other_tasks(jobs: Sequence[Job], prompts: Tuned) -> None:
  """Warn of tasks for which a run has no delta."""
  others: dict[tuple[str, str], None] = {}
  for job in jobs:
    method, task = prompts.methods[job.run], _plain(job.dataset.task.name)
    known = [*map(_plain, method.conditions)] if method else []
    if known and task not in known:
      others[task, ", ".join(known)] = None
  for other in others:
    logger.warning(
      "The run was not trained on %s, only on %s. The run has no delta for "
      "it, so every score uses the delta of another task.",
      *other,
    )


def _answering(prompts: Tuned) -> list[tuple[int, tuple[int, ...]]]:
  """List the runs that answer, and the components of each mixture.

  Components that were loaded together answer as a mixture; a single component,
  such as an export, answers alone.
  """
  answering: list[tuple[int, tuple[int, ...]]] = []
  run = 0
  while run < len(prompts.names):
    method = prompts.methods[run]
    count = method.components if method else 1
    members = tuple(range(run, run + count))
    together = [m is method for m in prompts.methods[run : run + count]]
    if count > 1 and len(together) == count and all(together):
      answering.append((run, members))
      run += count
    else:
      answering.append((run, ()))
      run += 1
  return answering


def _own_tasks(
  tasks: Sequence[str], prompts: Tuned
) -> Sequence[str | None] | None:
  """Find the one task that each prompt is to be scored on.

  Args:
    tasks: that are evaluated.
    prompts: to score.

  Returns:
    For every prompt the task that the user named it after. Where they named
    none, the task that it was trained on, if that is so for all tasks. None
    where every prompt is to be scored on every task.
  """
  if set(prompts.keys) == set(tasks):
    for key, trained in zip(prompts.keys, prompts.tasks, strict=True):
      if trained is not None and _plain(trained) != _plain(str(key)):
        logger.warning(
          "PROMPT_FILE gives the name %r to a run that was trained on %r. It "
          "is scored on %s.",
          *(key, trained, key),
        )
    return prompts.keys
  known = {_plain(task): task for task in tasks}
  task_of_run = [known.get(_plain(task or "")) for task in prompts.tasks]
  if not any(prompts.keys) and set(task_of_run) == set(tasks) and tasks[1:]:
    logger.info("Every run is scored on the task that it was trained on.")
    return task_of_run
  return None


def _plain(task: str) -> str:
  """Remove the ending that only asks for texts in the log."""
  return task.removesuffix("_examples")


def table(
  results: Sequence[Result],
  names: Sequence[str],
  steps: Sequence[int | None],
) -> str:
  """Format the scores of every prompt, of their vote and of the benchmark.

  Args:
    results: of every task and prompt.
    names: what to call the runs.
    steps: at which they were saved, where that is known.

  Returns:
    A table.
  """
  by_task: dict[str, list[Result]] = {}
  for result in results:
    by_task.setdefault(result.job.dataset.task.name, []).append(result)
  lines = []
  for task, of_task in by_task.items():
    runs = [result.job.run for result in of_task]
    rows = [
      summary.Row(names[run], steps[run], result.metrics)
      for run, result in zip(runs, of_task, strict=True)
    ]
    if len(of_task) > 1:
      compared = ensemble.compare(of_task)
      rows += [
        summary.Row("mean", None, compared.mean),
        summary.Row("vote", None, compared.vote),
      ]
    lines += [task, summary.scores(rows)]
  lines += _of_templates(by_task, names)
  if all(len(of_task) == 1 for of_task in by_task.values()):
    lines += _benchmarks(
      {t: of_task[0].metrics for t, of_task in by_task.items()}
    )
  return "\n".join(lines)


def _of_templates(
  by_task: Mapping[str, Sequence[Result]], names: Sequence[str]
) -> list[str]:
  """Summarise tasks that differ only in their templates."""
  lines = []
  for group, tasks in several_templates.groups(by_task).items():
    columns = [by_task[task] for task in tasks]
    if len({len(column) for column in columns}) > 1:
      continue
    rows = []
    for of_run in zip(*columns, strict=True):
      found = ensemble.over_templates(of_run)
      runs = {result.job.run for result in of_run}
      run = names[runs.pop()] if len(runs) == 1 else ""
      rows.append(summary.Row(f"{run} mean".strip(), None, found.mean))
      rows.append(summary.Row(f"{run} sd".strip(), None, found.deviation))
      if found.together is not None:
        row = summary.Row(f"{run} together".strip(), None, found.together)
        rows.append(row)
    lines += [f"{group}, {len(tasks)} templates", summary.scores(rows)]
  return lines


def _benchmarks(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
  """Average the benchmarks that are complete."""
  lines = []
  for benchmark in score.GROUPS:
    try:
      average = score.aggregate(metrics, benchmark)
    except ValueError:  # incomplete, as most evaluations are
      continue
    lines.append(f"{benchmark} score: {average:.2f}")
  return lines
