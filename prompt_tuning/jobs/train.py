"""Training as a command or a notebook asks for it; knows nothing of gin."""

import dataclasses
import functools
import logging
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import flax
import grain
import jax
import optax
from jax.sharding import Mesh

import prompt_tuning
from prompt_tuning.checkpoints import backbone, bundle, fingerprint, restore
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.checkpoints.source import Checkpoint
from prompt_tuning.core import axes, files
from prompt_tuning.data.assembly import NumpyBatch
from prompt_tuning.infer import reports
from prompt_tuning.infer.evaluate import Result
from prompt_tuning.jobs import (
  abstract_setup,
  conclusion,
  feed,
  identity,
  setup,
)
from prompt_tuning.jobs.eval_loss import EvalLoss
from prompt_tuning.jobs.run_scores import Scorer
from prompt_tuning.jobs.setup import Setup
from prompt_tuning.jobs.train_job import Run, TrainJob
from prompt_tuning.models.t5 import cost
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.train import loop
from prompt_tuning.train.compiled_step import Compiling, Jitted

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
  """Train from the start, or from where MODEL_DIR stands.

  Args:
    job: what to do.
    data_dir: TFDS's data directory.
    model: the model; None restores that of `initial_checkpoint_path`.
    evaluator: makes what evaluates in place of the job's own evaluation.
    configuration: name of a file -> what the job was made from, as text; goes
      to MODEL_DIR, and into every bundle.
    say: gets the table of what trains and what does not.

  Returns:
    How it ended.

  Raises:
    ValueError: the job cannot be done, or MODEL_DIR holds another run.
    CheckpointError: a checkpoint cannot be read or written.
    OSError: another file cannot.
  """
  # What can be wrong shows before gigabytes are read.
  files.ensure_writable(job.model_dir, "MODEL_DIR")
  mesh, rules = job.mesh.build(), job.mesh.rules
  vocabulary = feed.open_vocabulary(job.dataset)
  source = model or _open(job.initial_checkpoint_path)
  start_step = _start_step(job, source.step)
  num_steps = job.num_steps(start_step)
  batches = feed.train_batches(
    job.dataset,
    job.runs,
    identity.placements_of(job.tuners, len(job.runs)),
    job.model.vocab_size,
    data_dir,
    mesh,
  )
  sets = feed.sets_by_task(job.evaluation, job.runs, data_dir)

  compiling = None
  if isinstance(source, Checkpoint):
    model, compiling = _restore(job, source, start_step, mesh, batches)
  else:
    model = source
  program = compiling.program if compiling else None
  methods = setup.initialise(job, model, vocabulary, mesh)
  parts = setup.build(
    *(job, model.config, model.params, methods, start_step, mesh), program
  )
  say(parts.program.partition.report())
  checksum = fingerprint.checksum(parts.frozen) if job.controls else None

  scorer = None
  if job.evaluation is not None:
    loss = _eval_loss(job, parts, data_dir, mesh)
    write = functools.partial(_write_reports, job)
    scorer = Scorer(job, parts, model, vocabulary, sets, mesh, loss, write)
  manifest = identity.identity(
    job, parts.tuners, model, vocabulary.sha256, start_step
  )
  _write_configuration(job.model_dir, manifest, configuration)
  result = loop.train(
    compiling or Jitted(parts.program),
    parts.state,
    parts.frozen,
    batches,
    settings=_settings(job, num_steps, start_step),
    folder=job.model_dir,
    manifest=manifest,
    about=_about(configuration),
    summarise=cast(loop.Summarise, job.objective.summarise),
    place=axes.batch_sharder(mesh, rules),
    evaluate=evaluator(parts, mesh) if evaluator else scorer,
  )
  return conclusion.Outcome(
    result, job, model, parts, vocabulary, scorer, start_step, mesh, checksum
  )


def _open(path: str | None) -> Checkpoint:
  """Look into the checkpoint of the backbone."""
  if path is None:
    raise ValueError("No model to train: set INITIAL_CHECKPOINT_PATH.")
  return restore.open_checkpoint(path, whole=False)


def _restore(
  job: TrainJob,
  checkpoint: Checkpoint,
  start_step: int,
  mesh: Mesh | None,
  batches: grain.DatasetIterator[NumpyBatch],
) -> tuple[Backbone, Compiling | None]:
  """Read the model; meanwhile, if there is one to take, compile the step."""
  config = backbone.for_machine(job.model, mesh)
  where = (config, mesh, job.mesh.rules, job.restore_dtype)
  backbone.check(checkpoint, *where)
  first = _next_batch(job, job.num_steps(start_step), batches)
  compiling = None
  if first is not None:
    try:
      compiling = _compile_ahead(job, config, start_step, mesh, first)
    except abstract_setup.UnknownShapesError as error:
      logger.info("The step is compiled when it runs. %s", error)
  return backbone.load(checkpoint, *where), compiling


def _next_batch(
  job: TrainJob,
  num_steps: int,
  batches: grain.DatasetIterator[NumpyBatch],
) -> NumpyBatch | None:
  """Look at what training begins or goes on with; None if nothing is to do."""
  saved = bundle.latest_manifest(pathlib.Path(job.model_dir) / loop.BUNDLES)
  if saved is not None:
    if saved["step"] >= num_steps:
      return None
    try:
      batches.set_state(saved["data"])
    except ValueError:  # another run's, of which the loop says more
      return None
  return feed.peek(batches)


def _compile_ahead(
  job: TrainJob,
  config: T5Config,
  start_step: int,
  mesh: Mesh | None,
  first: NumpyBatch,
) -> Compiling:
  """Compile the step for a batch while the model is read."""
  batch = axes.describe_batch(
    mesh, job.mesh.rules, first, axes.data_shard(mesh)[1]
  )
  suited = dataclasses.replace(job, model=config)
  return Compiling(abstract_setup.describe(suited, mesh, start_step, batch))


def _eval_loss(
  job: TrainJob, parts: Setup, data_dir: str | None, mesh: Mesh | None
) -> EvalLoss | None:
  """Prepare the training loss on the evaluation split, if it is wanted."""
  if not job.eval_steps or job.evaluation is None:
    return None
  return EvalLoss(
    dataclasses.replace(job.dataset, split=job.evaluation.dataset.split),
    job.runs,
    parts,
    job.eval_steps,
    job.model.vocab_size,
    data_dir,
    mesh,
    job.mesh.rules,
  )


def _write_reports(
  job: TrainJob, run: Run, results: Sequence[Result], step: int
) -> None:
  """Write T5X's files of metrics and predictions."""
  folder = pathlib.Path(job.model_dir, "inference_eval", run.name)
  for result in results:
    reports.write(folder, step, result, job.json_write_n_results)


def _start_step(job: TrainJob, restored: int | None) -> int:
  """Find the step that the optimizer goes on from, as T5X restores it."""
  if job.restored_step is not None:
    return job.restored_step
  if restored is None:
    logger.warning(
      "%s does not say at which step it is; Adafactor starts at 0. The public "
      "runs started at 1,100,000: set RESTORED_STEP for that.",
      job.initial_checkpoint_path or "The model",
    )
  return restored or 0


def _settings(job: TrainJob, num_steps: int, start_step: int) -> loop.Settings:
  return loop.Settings(
    num_steps=num_steps,
    start_step=start_step,
    log_period=job.log_period,
    eval_period=job.eval_period,
    save_period=job.checkpoint_period,
    keep=job.keep_checkpoints,
    keep_best=job.keep_best,
    eval_at_start=job.eval_at_start,
    flops_per_token=cost.flops_per_token(job.model, bool(job.tuners)),
    patience=job.patience,
    progress_bar=job.progress_bar,
    tensorboard=job.tensorboard,
  )


def _about(configuration: Mapping[str, str]) -> dict[str, Any]:
  """Say how a bundle was made; a run may go on in another way."""
  packages = (prompt_tuning, jax, flax, optax)
  versions = {package.__name__: package.__version__ for package in packages}
  return {"gin": dict(configuration), "versions": versions}


def _write_configuration(
  folder: str, manifest: dict[str, Any], texts: Mapping[str, str]
) -> None:
  """Write the configuration down, unless the folder is another run's."""
  latest = bundle.read_latest(pathlib.Path(folder) / loop.BUNDLES)
  is_ours = latest is None or latest[1].manifest["run"] == manifest
  if is_ours and jax.process_index() == 0:
    files.write_texts(folder, texts)
