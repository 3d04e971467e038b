"""Pre-train a T5 on text, so that prompts can be tuned for it.

Every stage is a training of the whole model, with the same step, loop and
bundles as everywhere. So a killed run resumes, with the same bits.
"""

import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from prompt_tuning.checkpoints import (
  backbone,
  bundle,
  hf,
  restore,
  t5x_writer,
)
from prompt_tuning.core import files, tree
from prompt_tuning.data import vocabulary
from prompt_tuning.jobs import (
  conclusion,
  feed,
  identity,
  model_dir,
  pretrain_report,
  same_vocabulary,
  train,
)
from prompt_tuning.jobs.held_out import HeldOut, sentinel_share
from prompt_tuning.jobs.pretrain_job import (
  PretrainJob,
  Stage,
  check_fills_a_batch,
)
from prompt_tuning.jobs.setup import Setup
from prompt_tuning.train import loop

logger = logging.getLogger(__name__)

VOCABULARY, HUGGING_FACE = "sentencepiece.model", "hf"


def pretrain(
  job: PretrainJob,
  *,
  configuration: Mapping[str, str] = train.NO_CONFIGURATION,
  say: Callable[[str], None] = logger.info,
) -> list[dict[str, Any]]:
  """Pre-train from the start, or resume from MODEL_DIR.

  Args:
    job: what to do.
    configuration: see `train.train`.
    say: see `train.train`.

  Returns:
    The report of every stage, see `pretrain_report`.

  Raises:
    StoppedError: it was told to stop on the way.
    ValueError: the job cannot be done, or MODEL_DIR holds another run.
    CheckpointError: a checkpoint cannot be read or written.
    OSError: another file cannot.
  """
  with model_dir.held(job.model_dir):
    return _pretrain(job, configuration, say)


def _pretrain(
  job: PretrainJob,
  configuration: Mapping[str, str],
  say: Callable[[str], None],
) -> list[dict[str, Any]]:
  if job.initial_checkpoint_path is not None:
    words = vocabulary.load(job.vocabulary_file)
    same_vocabulary.insist_of_model(job.initial_checkpoint_path, words)
  for stage in job.stages:
    _check(job, stage)
  reports = []
  path = job.initial_checkpoint_path
  for stage in job.stages:
    report = pretrain_report.read(job, stage)
    if report is None:
      report = _run(job, stage, path, configuration, say)
    reports.append(report)
    path = str(checkpoint_path(job, stage))
  if jax.process_index() == 0:
    source = vocabulary.load(job.vocabulary_file).path
    target = files.path(job.model_dir) / VOCABULARY
    files.write_bytes(target, files.path(source).read_bytes())
  return reports


def checkpoint_path(job: PretrainJob, stage: Stage) -> pathlib.Path:
  """Return the path of a stage's model, in T5X's native layout."""
  return job.folder(stage) / f"checkpoint_{job.steps_after(stage)}"


def _check(job: PretrainJob, stage: Stage) -> None:
  """Tokenise a stage's text; refuse text that could not be trained on."""
  experiment = job.train_job(stage).experiment
  dataset = experiment.dataset
  feed.open_vocabulary(dataset, job.model.vocab_size)
  check_fills_a_batch(stage, feed.load(dataset, dataset.names[0], None))
  # This fails if examples do not fit into rows, or rows onto the devices.
  nowhere = identity.placements_of((), 1)
  mesh = job.mesh.build()
  feed.train_batches(
    dataset, experiment.runs, nowhere, experiment.model, None, mesh
  )


def _run(
  job: PretrainJob,
  stage: Stage,
  path: str | None,
  configuration: Mapping[str, str],
  say: Callable[[str], None],
) -> dict[str, Any]:
  """Run one stage and write its model."""
  mesh, rules = job.mesh.build(), job.mesh.rules
  if path is None:
    model = backbone.fresh(job.model, mesh, rules, job.seed, job.relpos_scale)
  else:
    model = backbone.load(path, job.model, mesh, rules, "float32")
  say(f"{stage.name}:")

  def evaluator(built: Setup, mesh: Mesh | None) -> loop.Evaluator:
    return HeldOut(job, stage, built, mesh)

  outcome = train.train(
    job.train_job(stage),
    model=model,
    evaluator=evaluator,
    configuration=configuration,
    say=say,
  )
  outcome.insist_on_an_end()
  report = _export(job, stage, outcome)
  if jax.process_index() == 0:
    files.write_texts(job.model_dir, configuration)
    # Write the report last: a stage with a report is done.
    pretrain_report.write(job.folder(stage), report)
  _wait(f"{stage.name} is written")
  return report


def _export(
  job: PretrainJob, stage: Stage, outcome: conclusion.Outcome
) -> dict[str, Any]:
  """Write the model in both layouts, with its facts."""
  params = jax.tree.map(lambda a: a[0], outcome.result.state.trainable["model"])
  model = outcome.model._replace(params=params)
  share = sentinel_share(job, model, outcome.vocabulary, outcome.mesh)
  report = pretrain_report.describe(job, stage, outcome.result, share)
  params = tree.unflatten(bundle.to_host(tree.flatten(params)))
  if jax.process_index() == 0:
    leaves = restore.leaves_of(params)
    dtype = np.dtype(job.save_dtype)
    steps = job.steps_after(stage)
    path = checkpoint_path(job, stage)
    t5x_writer.write_t5x(path, leaves, step=steps, dtype=dtype, overwrite=True)
    folder = job.folder(stage) / HUGGING_FACE
    hf.write_hf(folder, leaves, job.model, dtype=dtype, overwrite=True)
  return report


def _wait(what: str) -> None:
  """Wait until all hosts are here."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(what)
