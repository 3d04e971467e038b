"""Stages: trainings in turn, each of which starts with the last one's values.

A stage is an ordinary training in `MODEL_DIR/stages/<name>`, and resumes like
any other. The last training is that of MODEL_DIR itself. The rules of a stage
may freeze what an earlier one trained.
"""

import dataclasses

from prompt_tuning.checkpoints import bundle
from prompt_tuning.core import files
from prompt_tuning.core.partition import TRAIN, Rule
from prompt_tuning.jobs.settings import listed
from prompt_tuning.jobs.train_job import TrainingStage, TrainJob
from prompt_tuning.train import loop

FOLDER = "stages"


def of(job: TrainJob) -> list[TrainJob]:
  """List the trainings of a job in order.

  Args:
    job: the job.

  Returns:
    The stages, and last the job itself.

  Raises:
    ValueError: a stage trains the model, but the next training starts with the
      method's parameters only; or it has one learning rate, and the runs have
      several.
  """
  jobs: list[TrainJob] = []
  before: str | None = None
  earlier: list[TrainingStage] = []
  for stage in job.experiment.run_stages:
    _insist_on_method(stage)
    jobs.append(_job(job, stage, earlier, before))
    before = jobs[-1].output.model_dir
    earlier.append(stage)
  experiment = dataclasses.replace(job.experiment, after=before)
  return [*jobs, dataclasses.replace(job, experiment=experiment)]


def has_ended(job: TrainJob) -> bool:
  """Whether a stage has done all of its steps.

  Raises:
    ValueError: it has done more.
  """
  folder = files.path(job.output.model_dir) / loop.BUNDLES
  saved = bundle.latest_manifest(folder)
  steps = job.duration.relative_steps
  if saved is None or steps is None:
    return False
  if saved["step"] > steps:
    raise ValueError(
      f"The stage in {job.output.model_dir} was trained for {saved['step']} "
      f"steps, but now has {steps}. Give it {saved['step']} steps, or choose "
      "another MODEL_DIR."
    )
  return bool(saved["step"] == steps)


def _job(
  job: TrainJob,
  stage: TrainingStage,
  earlier: list[TrainingStage],
  before: str | None,
) -> TrainJob:
  """Build the job of one stage."""
  experiment = job.experiment
  rates = experiment.learning_rates
  if stage.learning_rate is not None:
    if len(listed(rates)) > 1:
      raise ValueError(
        f"Stage {stage.name} sets a learning rate, but the runs have different "
        "ones (LEARNING_RATES): set only one of the two."
      )
    rates = (stage.learning_rate,)
  own = dataclasses.replace(
    experiment,
    rules=stage.rules,
    optimizer=stage.optimizer or experiment.optimizer,
    schedule=stage.schedule or experiment.schedule,
    objective=stage.objective or experiment.objective,
    learning_rates=rates,
    stages=tuple(earlier),
    after=before,
  )
  folder = files.path(job.output.model_dir) / FOLDER / stage.name
  return dataclasses.replace(
    job,
    experiment=own,
    duration=dataclasses.replace(
      job.duration, total_steps=None, relative_steps=stage.steps
    ),
    output=dataclasses.replace(job.output, model_dir=str(folder)),
  )


def _insist_on_method(stage: TrainingStage) -> None:
  """Refuse a stage that trains the model."""
  for rule in stage.rules:
    pattern, mode = (
      (rule.pattern, rule.mode) if isinstance(rule, Rule) else rule
    )
    if mode == TRAIN and not pattern.startswith("tuner/"):
      raise ValueError(
        f"Stage {stage.name} trains {pattern!r}; expected parameters of the "
        "tuning method ('tuner/...'). Only the last training can train others."
      )
