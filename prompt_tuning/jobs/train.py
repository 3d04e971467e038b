"""Train, for commands and notebooks; this module does not know gin."""

import dataclasses
import functools
import logging
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import flax
import jax
import optax
from jax.sharding import Mesh

import prompt_tuning
from prompt_tuning.checkpoints import (
  backbone,
  bundle,
  fingerprint,
  restore,
  vocabulary_mark,
)
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.checkpoints.source import Checkpoint
from prompt_tuning.core import axes, files
from prompt_tuning.core.partition import Partition
from prompt_tuning.data import cache
from prompt_tuning.data.assembly import NumpyBatch
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.infer import reports
from prompt_tuning.infer.evaluate import EvalSet, Result
from prompt_tuning.jobs import (
  abstract_setup,
  conclusion,
  feed,
  identity,
  model_dir,
  same_vocabulary,
  setup,
  stages,
)
from prompt_tuning.jobs.eval_loss import EvalLoss
from prompt_tuning.jobs.run_scores import RunEvaluator
from prompt_tuning.jobs.setup import Setup
from prompt_tuning.jobs.train_job import (
  Duration,
  EvaluationPlan,
  Experiment,
  ModelSource,
  Output,
  Run,
  TrainJob,
)
from prompt_tuning.models.t5 import cost
from prompt_tuning.train import loop
from prompt_tuning.train.compiled_step import Compiling, Jitted
from prompt_tuning.train.objectives import Objective
from prompt_tuning.tuners.method import Method

if TYPE_CHECKING:
  import grain

logger = logging.getLogger(__name__)

NO_CONFIGURATION: Mapping[str, str] = types.MappingProxyType({})


def train(
  job: TrainJob,
  data_dir: str | None = None,
  model: Backbone | None = None,
  evaluator: Callable[[Setup, Mesh | None], loop.Evaluator] | None = None,
  *,
  configuration: Mapping[str, str] = NO_CONFIGURATION,
  say: Callable[[str], None] = logger.info,
) -> conclusion.Outcome:
  """Train from the start, or resume from MODEL_DIR.

  Args:
    job: the job.
    data_dir: TFDS's data directory.
    model: the model; None restores that of `initial_checkpoint_path`.
    evaluator: makes an evaluation that replaces the job's own.
    configuration: name of a file -> the job's configuration as text; written to
      MODEL_DIR and into every bundle.
    say: prints for people what trains and what does not.

  Returns:
    How it ended.

  Raises:
    ValueError: the job cannot be done, or MODEL_DIR holds another run.
    CheckpointError: a checkpoint cannot be read or written.
    OSError: another file cannot.
  """
  *before, last = stages.of(job)
  with model_dir.held(job.output.model_dir):
    for stage in before:
      if stages.has_ended(stage):
        _insist_on_same_stage(stage, model)
        continue
      say(f"Stage in {stage.output.model_dir}:")
      with model_dir.held(stage.output.model_dir):
        outcome = _train(stage, data_dir, model, None, configuration, say)
      if outcome.result.reason == "preempted":
        return outcome
      model = outcome.model
    return _train(last, data_dir, model, evaluator, configuration, say)


class _Checked(NamedTuple):
  """What a job trains on, checked before the model is read.

  Attributes:
    mesh: where everything lies.
    vocabulary: of the model.
    source: the model, or its checkpoint, of which no array is read yet.
    start_step: first step of the optimizer.
    num_steps: steps to train.
    batches: the training data.
    sets: task or mixture -> its examples for evaluation.
  """

  mesh: Mesh | None
  vocabulary: Vocabulary
  source: Backbone | Checkpoint
  start_step: int
  num_steps: int
  batches: "grain.DatasetIterator[NumpyBatch]"
  sets: Mapping[str, Sequence[EvalSet]]


class _Built(NamedTuple):
  """What trains.

  Attributes:
    experiment: with the configuration of the model that was read.
    model: the backbone.
    setup: program, initial state, frozen part and tuners.
    step: the step, compiled or to be compiled when it first runs.
  """

  experiment: Experiment
  model: Backbone
  setup: Setup
  step: Compiling | Jitted


def _train(
  job: TrainJob,
  data_dir: str | None,
  model: Backbone | None,
  evaluator: Callable[[Setup, Mesh | None], loop.Evaluator] | None,
  configuration: Mapping[str, str],
  say: Callable[[str], None],
) -> conclusion.Outcome:
  """Train as the only writer of MODEL_DIR, see `train`."""
  # Errors show before gigabytes are read.
  checked = _check(job, data_dir, model)
  built = _build(job, checked)
  say(_opening(job.experiment.runs, checked, built.setup.program.partition))
  logger.debug("%s", built.setup.program.partition.report())
  checksum = None
  if job.output.controls:
    checksum = fingerprint.checksum(built.setup.frozen)
  run_evaluator = _run_evaluator(job, checked, built, data_dir)
  manifest = _manifest(job, checked, built)
  _insist_on_same_model(built.experiment.after, manifest)
  _write_configuration(job.output.model_dir, manifest, configuration)
  result = _run(
    job,
    checked,
    built,
    evaluator(built.setup, checked.mesh) if evaluator else run_evaluator,
    manifest,
    configuration,
  )
  return conclusion.Outcome(
    result,
    job.experiment.runs,
    job.output,
    built.model,
    built.setup,
    checked.vocabulary,
    run_evaluator,
    checked.start_step,
    checked.mesh,
    checksum,
  )


def _check(
  job: TrainJob, data_dir: str | None, model: Backbone | None
) -> _Checked:
  """Check a job against its data, its model's checkpoint and MODEL_DIR."""
  experiment = job.experiment
  runs, tuners = experiment.runs, experiment.tuners
  mesh = job.source.mesh.build()
  vocabulary = feed.open_vocabulary(
    experiment.dataset, experiment.model.vocab_size
  )
  source = model or open_model(job.source.initial_checkpoint_path)
  if isinstance(source, Checkpoint):
    same_vocabulary.insist_of_model(source.path, vocabulary)
  start_step = find_start(job.duration, source)
  num_steps = job.duration.num_steps(start_step)
  _insist_on_same_run(job, tuners, vocabulary, start_step)
  batches = feed.train_batches(
    experiment.dataset,
    runs,
    identity.placements_of(tuners, len(runs)),
    experiment.model,
    data_dir,
    mesh,
    tuners,
  )
  _insist_on_same_rows(job, batches, data_dir)
  sets = feed.sets_by_task(job.evaluations.evaluation, runs, data_dir)
  return _Checked(
    mesh, vocabulary, source, start_step, num_steps, batches, sets
  )


def _build(job: TrainJob, checked: _Checked) -> _Built:
  """Read the model if it is not in memory, and build what trains."""
  model, compiling = _read(job, checked)
  experiment = dataclasses.replace(job.experiment, model=model.config)
  built = setup.build(
    experiment,
    model.params,
    setup.initialise(experiment, model, checked.vocabulary, checked.mesh),
    checked.start_step,
    checked.mesh,
    job.source.mesh.rules,
    compiling.program if compiling else None,
  )
  step = compiling or Jitted(built.program)
  return _Built(experiment, model, built, step)


def _read(
  job: TrainJob, checked: _Checked
) -> tuple[Backbone, Compiling | None]:
  """Read the model; a model in memory needs no reading and no compiling."""
  if not isinstance(checked.source, Checkpoint):
    return checked.source, None
  next_batch = functools.partial(
    _next_batch, job.output.model_dir, checked.num_steps, checked.batches
  )
  return _restore(
    job.experiment,
    job.source,
    checked.source,
    checked.start_step,
    checked.mesh,
    next_batch,
  )


def _run_evaluator(
  job: TrainJob, checked: _Checked, built: _Built, data_dir: str | None
) -> RunEvaluator | None:
  """Prepare the job's evaluation, if it has one."""
  if job.evaluations.evaluation is None:
    return None
  loss = _eval_loss(
    job.evaluations,
    built.experiment,
    built.setup,
    data_dir,
    checked.mesh,
    job.source.mesh.rules,
  )
  return RunEvaluator(
    job.evaluations.evaluation,
    built.experiment.runs,
    built.setup,
    built.model,
    checked.vocabulary,
    checked.sets,
    checked.mesh,
    loss,
    functools.partial(_write_reports, job.output),
  )


def _manifest(
  job: TrainJob, checked: _Checked, built: _Built
) -> dict[str, Any]:
  """Identify the run by everything that decides its numbers."""
  return identity.identity(
    built.experiment,
    built.setup.tuners,
    built.model,
    checked.vocabulary.sha256,
    checked.start_step,
    job.evaluations.evaluation,
    job.output.keep_best,
  )


def _run(
  job: TrainJob,
  checked: _Checked,
  built: _Built,
  evaluate: loop.Evaluator | None,
  manifest: Mapping[str, Any],
  configuration: Mapping[str, str],
) -> loop.Result:
  """Train from the newest bundle on, see `loop.train`."""
  program = built.setup.program
  return loop.train(
    built.step,
    built.setup.state,
    built.setup.frozen,
    checked.batches,
    settings=_settings(job, checked, built),
    folder=job.output.model_dir,
    manifest=manifest,
    about=about(configuration, built.model, checked.vocabulary),
    summarise=cast(loop.Summarise, program.summarise),
    shard=axes.batch_sharder(checked.mesh, job.source.mesh.rules),
    evaluate=evaluate,
    peak_bytes=lambda: built.step.peak_bytes,
  )


def _opening(
  runs: Sequence[Run], checked: _Checked, partition: Partition
) -> str:
  """Say what will be trained."""
  start_step, num_steps = checked.start_step, checked.num_steps
  after = f" after the checkpoint's {start_step:,}" if start_step else ""
  opening = f"Training for {num_steps:,} steps{after}"
  if len(runs) > 1:
    opening += f", {len(runs)} runs side by side. Each of them:"
  return f"{opening}\n{partition.summary()}"


def _insist_on_same_stage(job: TrainJob, model: Backbone | None) -> None:
  """Refuse parameters from a stage with other settings."""
  experiment = job.experiment
  vocabulary = feed.open_vocabulary(
    experiment.dataset, experiment.model.vocab_size
  )
  source = model or open_model(job.source.initial_checkpoint_path)
  start_step = find_start(job.duration, source)
  _insist_on_same_run(job, experiment.tuners, vocabulary, start_step)


def _insist_on_same_model(after: str | None, manifest: dict[str, Any]) -> None:
  """Refuse parameters that the stage before learned with another model."""
  if after is None:
    return
  saved = bundle.latest_manifest(files.path(after) / loop.BUNDLES)
  if saved is not None:
    key = "backbone"
    theirs = bundle.Bundle({"run": {key: saved["run"][key]}}, {})
    theirs.insist_run({key: manifest[key]}, after)


def _insist_on_same_run(
  job: TrainJob,
  tuners: Sequence[Method],
  vocabulary: Vocabulary,
  start_step: int,
) -> None:
  """Refuse to continue with other settings, before the model is read."""
  folder = job.output.model_dir
  saved = bundle.latest_manifest(files.path(folder) / loop.BUNDLES)
  if saved is None:
    return
  ours = identity.settings(
    job.experiment,
    tuners,
    vocabulary.sha256,
    start_step,
    job.evaluations.evaluation,
    job.output.keep_best,
  )
  theirs = {key: saved["run"][key] for key in ours if key in saved["run"]}
  notes = {
    key: f"{file} has changed since the bundle was written"
    for key, file in identity.data_files(
      job.experiment, job.evaluations.evaluation
    ).items()
  }
  described = saved.get(vocabulary_mark.KEY)
  notes["vocabulary"] = same_vocabulary.change(described, vocabulary)
  bundle.Bundle({"run": theirs}, {}).insist_run(ours, folder, notes)


def _insist_on_same_rows(
  job: TrainJob,
  batches: "grain.DatasetIterator[NumpyBatch]",
  data_dir: str | None,
) -> None:
  """Refuse to continue with other data under the same settings."""
  folder = job.output.model_dir
  saved = bundle.latest_manifest(files.path(folder) / loop.BUNDLES)
  if saved is None:
    return
  try:
    batches.set_state(saved["data"])
  except (KeyError, TypeError):  # damaged; the loop raises a full error
    return
  except ValueError as error:
    sources = ", ".join(identity.data_sources(job.experiment))
    place = data_dir or cache.default_data_dir()
    raise ValueError(
      f"{folder} holds a run on other rows of "
      f"{', '.join(job.experiment.dataset.names)}: "
      + (
        f"{sources} in {place} was prepared again (prepared.json there names "
        "the files), or "
        if sources
        else ""
      )
      + "PACKED_LENGTHS or the project's version changed. Restore them, or "
      "choose another MODEL_DIR."
    ) from error


def open_model(path: str | None) -> Checkpoint:
  """Look into the checkpoint of the backbone, without reading arrays.

  Args:
    path: `ModelSource.initial_checkpoint_path`.

  Returns:
    Names, shapes, dtypes and step.

  Raises:
    ValueError: no path.
    CheckpointError: it is not a checkpoint, or a damaged one.
  """
  if path is None:
    raise ValueError("No model: set INITIAL_CHECKPOINT_PATH.")
  return restore.open_checkpoint(path, whole=False)


def _restore(
  experiment: Experiment,
  source: ModelSource,
  checkpoint: Checkpoint,
  start_step: int,
  mesh: Mesh | None,
  next_batch: Callable[[], NumpyBatch | None],
) -> tuple[Backbone, Compiling | None]:
  """Read the model; meanwhile compile the step, if there are steps to take."""
  config = backbone.for_machine(experiment.model, mesh)
  target = (config, mesh, source.mesh.rules, source.restore_dtype)
  backbone.check(checkpoint, *target)
  first = next_batch()
  compiling = None
  if first is not None:
    batch = axes.describe_batch(
      mesh, source.mesh.rules, first, axes.data_shard(mesh)[1]
    )
    suited = dataclasses.replace(experiment, model=config)
    try:
      compiling = Compiling(
        abstract_setup.describe(suited, source, mesh, start_step, batch)
      )
    except abstract_setup.UnknownShapesError as error:
      logger.debug("The step will be compiled at its first run. %s", error)
  return backbone.load(checkpoint, *target), compiling


def _next_batch(
  model_dir: str,
  num_steps: int,
  batches: "grain.DatasetIterator[NumpyBatch]",
) -> NumpyBatch | None:
  """Return the first batch of this training; None if no step is left."""
  saved = bundle.latest_manifest(files.path(model_dir) / loop.BUNDLES)
  if saved is not None:
    if saved["step"] >= num_steps:
      return None
    try:
      batches.set_state(saved.get("data", {}))
    except ValueError:  # another run's; the loop raises a full error
      return None
  return feed.peek(batches)


def _eval_loss(
  plan: EvaluationPlan,
  experiment: Experiment,
  built: Setup,
  data_dir: str | None,
  mesh: Mesh | None,
  rules: axes.AxisRules,
) -> EvalLoss | None:
  """Prepare the training loss on the evaluation split, if it is wanted."""
  if not plan.eval_steps or plan.evaluation is None:
    return None
  split = plan.evaluation.dataset.split
  return EvalLoss(
    dataclasses.replace(experiment.dataset, split=split),
    experiment.runs,
    built,
    plan.eval_steps,
    experiment.model.vocab_size,
    data_dir,
    mesh,
    rules,
  )


def _write_reports(
  output: Output, run: Run, results: Sequence[Result], step: int
) -> None:
  """Write T5X's files of metrics and predictions."""
  root = files.path(output.model_dir) / reports.FOLDER
  folder = files.below(root, run.name, "A run's name")
  for result in results:
    reports.write(folder, step, result, output.json_write_n_results)


def find_start(duration: Duration, source: Backbone | Checkpoint) -> int:
  """Find the step from which the optimizer continues, as in T5X.

  Args:
    duration: may set another step.
    source: source of the model.

  Returns:
    The step.
  """
  if duration.restored_step is not None:
    return duration.restored_step
  if source.step is None:
    logger.warning(
      "%s does not say its step, so Adafactor starts at step 0. The public "
      "runs started at 1,100,000; to do the same, set RESTORED_STEP.",
      source.path if isinstance(source, Checkpoint) else "The model",
    )
  return source.step or 0


def _settings(job: TrainJob, checked: _Checked, built: _Built) -> loop.Settings:
  plan, output, experiment = job.evaluations, job.output, built.experiment
  return loop.Settings(
    num_steps=checked.num_steps,
    start_step=checked.start_step,
    log_period=output.log_period,
    eval_period=plan.eval_period,
    save_period=output.checkpoint_period,
    keep=output.keep_checkpoints,
    keep_best=output.keep_best,
    eval_at_start=plan.eval_at_start,
    flops_per_token=cost.flops_per_token(
      experiment.model, bool(experiment.tuners)
    ),
    patience=plan.patience,
    progress_bar=output.progress_bar,
    run_names=[run.name for run in experiment.runs],
    tensorboard=output.tensorboard,
    insist_on_gradients=_insists_on_gradients(
      experiment, built.setup.program.objective
    ),
  )


def _insists_on_gradients(experiment: Experiment, objective: Objective) -> bool:
  """Say whether first steps without a gradient must be a mistake."""
  is_new = experiment.start_from is None and experiment.after is None
  return is_new and not objective.can_be_flat


def about(
  configuration: Mapping[str, str], model: Backbone, vocabulary: Vocabulary
) -> dict[str, Any]:
  """Describe how a bundle was made; this may change when a run resumes.

  Args:
    configuration: see `train`.
    model: that is trained.
    vocabulary: of the model.

  Returns:
    JSON values for its manifest.
  """
  packages = (prompt_tuning, jax, flax, optax)
  versions = {package.__name__: package.__version__ for package in packages}
  about: dict[str, Any] = {"gin": dict(configuration), "versions": versions}
  about[vocabulary_mark.KEY] = same_vocabulary.mark(vocabulary).described
  if model.base_model is not None:
    about["base_model"] = model.base_model
  return about


def _write_configuration(
  folder: str, manifest: dict[str, Any], texts: Mapping[str, str]
) -> None:
  """Write the configuration, unless the folder belongs to another run."""
  latest = bundle.read_latest(files.path(folder) / loop.BUNDLES)
  is_ours = latest is None or latest[1].is_run(manifest)
  if is_ours and jax.process_index() == 0:
    files.write_texts(folder, texts)
