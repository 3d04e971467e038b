"""Train, for commands and notebooks; this module does not know gin."""

import dataclasses
import functools
import logging
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

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
from prompt_tuning.infer.evaluate import Result
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


def _train(
  job: TrainJob,
  data_dir: str | None,
  model: Backbone | None,
  evaluator: Callable[[Setup, Mesh | None], loop.Evaluator] | None,
  configuration: Mapping[str, str],
  say: Callable[[str], None],
) -> conclusion.Outcome:
  """Train as the only writer of MODEL_DIR, see `train`."""
  # What can be wrong shows before gigabytes are read.
  experiment, output = job.experiment, job.output
  runs, tuners = experiment.runs, experiment.tuners
  mesh, rules = job.source.mesh.build(), job.source.mesh.rules
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

  compiling = None
  if isinstance(source, Checkpoint):
    next_batch = functools.partial(
      _next_batch, output.model_dir, num_steps, batches
    )
    model, compiling = _restore(
      experiment, job.source, source, start_step, mesh, next_batch
    )
  else:
    model = source
  experiment = dataclasses.replace(experiment, model=model.config)
  built = setup.build(
    experiment,
    model.params,
    setup.initialise(experiment, model, vocabulary, mesh),
    start_step,
    mesh,
    rules,
    compiling.program if compiling else None,
  )
  say(_opening(runs, start_step, num_steps, built.program.partition))
  logger.debug("%s", built.program.partition.report())
  checksum = fingerprint.checksum(built.frozen) if output.controls else None

  run_evaluator = None
  if job.evaluations.evaluation is not None:
    run_evaluator = RunEvaluator(
      job.evaluations.evaluation,
      runs,
      built,
      model,
      vocabulary,
      sets,
      mesh,
      _eval_loss(job.evaluations, experiment, built, data_dir, mesh, rules),
      functools.partial(_write_reports, output),
    )
  manifest = identity.identity(
    experiment,
    built.tuners,
    model,
    vocabulary.sha256,
    start_step,
    job.evaluations.evaluation,
    output.keep_best,
  )
  _insist_on_same_model(experiment.after, manifest)
  _write_configuration(output.model_dir, manifest, configuration)
  step = compiling or Jitted(built.program)
  result = loop.train(
    step,
    built.state,
    built.frozen,
    batches,
    settings=_settings(
      job.evaluations,
      output,
      num_steps,
      start_step,
      cost.flops_per_token(experiment.model, bool(tuners)),
      runs,
      _insists_on_gradients(experiment, built.program.objective),
    ),
    folder=output.model_dir,
    manifest=manifest,
    about=about(configuration, model, vocabulary),
    summarise=cast(loop.Summarise, built.program.summarise),
    shard=axes.batch_sharder(mesh, rules),
    evaluate=evaluator(built, mesh) if evaluator else run_evaluator,
    peak_bytes=lambda: step.peak_bytes,
  )
  return conclusion.Outcome(
    result,
    runs,
    output,
    model,
    built,
    vocabulary,
    run_evaluator,
    start_step,
    mesh,
    checksum,
  )


def _opening(
  runs: Sequence[Run], start_step: int, num_steps: int, partition: Partition
) -> str:
  """Say what is going to happen."""
  after = f" after the checkpoint's {start_step:,}" if start_step else ""
  opening = f"Training for {num_steps:,} steps{after}"
  if len(runs) > 1:
    opening += f", {len(runs)} runs side by side. Each of them:"
  return f"{opening}\n{partition.summary()}"


def _insist_on_same_stage(job: TrainJob, model: Backbone | None) -> None:
  """Refuse what a stage with other settings has learned."""
  experiment = job.experiment
  vocabulary = feed.open_vocabulary(
    experiment.dataset, experiment.model.vocab_size
  )
  source = model or open_model(job.source.initial_checkpoint_path)
  start_step = find_start(job.duration, source)
  _insist_on_same_run(job, experiment.tuners, vocabulary, start_step)


def _insist_on_same_model(after: str | None, manifest: dict[str, Any]) -> None:
  """Refuse what the stage before has learned of another model."""
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
  """Refuse to go on with other settings, before the model is read."""
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
    key: f"{file} has changed since"
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
  """Refuse to go on with other data under the same settings."""
  folder = job.output.model_dir
  saved = bundle.latest_manifest(files.path(folder) / loop.BUNDLES)
  if saved is None:
    return
  try:
    batches.set_state(saved["data"])
  except (KeyError, TypeError):  # a damaged one, of which the loop says more
    return
  except ValueError as error:
    sources = ", ".join(identity.data_sources(job.experiment))
    place = data_dir or cache.default_data_dir()
    raise ValueError(
      f"{folder} holds a run on other rows of "
      f"{', '.join(job.experiment.dataset.names)}: "
      + (
        f"{sources} in {place} was made anew (prepared.json there names the "
        "files), or "
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
    raise ValueError("No model to train: set INITIAL_CHECKPOINT_PATH.")
  return restore.open_checkpoint(path, whole=False)


def _restore(
  experiment: Experiment,
  source: ModelSource,
  checkpoint: Checkpoint,
  start_step: int,
  mesh: Mesh | None,
  next_batch: Callable[[], NumpyBatch | None],
) -> tuple[Backbone, Compiling | None]:
  """Read the model; meanwhile, if there is one to take, compile the step."""
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
      logger.debug("The step is compiled when it runs. %s", error)
  return backbone.load(checkpoint, *target), compiling


def _next_batch(
  model_dir: str,
  num_steps: int,
  batches: "grain.DatasetIterator[NumpyBatch]",
) -> NumpyBatch | None:
  """Look at what training begins or goes on with; None if nothing is to do."""
  saved = bundle.latest_manifest(files.path(model_dir) / loop.BUNDLES)
  if saved is not None:
    if saved["step"] >= num_steps:
      return None
    try:
      batches.set_state(saved.get("data", {}))
    except ValueError:  # another run's, of which the loop says more
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
      "%s does not say at which step it is; Adafactor starts at 0. The public "
      "runs started at 1,100,000: set RESTORED_STEP for that.",
      source.path if isinstance(source, Checkpoint) else "The model",
    )
  return source.step or 0


def _settings(
  plan: EvaluationPlan,
  output: Output,
  num_steps: int,
  start_step: int,
  flops_per_token: tuple[float, float],
  runs: Sequence[Run],
  insist_on_gradients: bool,
) -> loop.Settings:
  return loop.Settings(
    num_steps=num_steps,
    start_step=start_step,
    log_period=output.log_period,
    eval_period=plan.eval_period,
    save_period=output.checkpoint_period,
    keep=output.keep_checkpoints,
    keep_best=output.keep_best,
    eval_at_start=plan.eval_at_start,
    flops_per_token=flops_per_token,
    patience=plan.patience,
    progress_bar=output.progress_bar,
    run_names=[run.name for run in runs],
    tensorboard=output.tensorboard,
    insist_on_gradients=insist_on_gradients,
  )


def _insists_on_gradients(experiment: Experiment, objective: Objective) -> bool:
  """Say whether first steps without any gradient can only be a mistake."""
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
  """Write the configuration down, unless the folder is another run's."""
  latest = bundle.read_latest(files.path(folder) / loop.BUNDLES)
  is_ours = latest is None or latest[1].is_run(manifest)
  if is_ours and jax.process_index() == 0:
    files.write_texts(folder, texts)
