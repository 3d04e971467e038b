"""`prompt-tuning train`: from a gin configuration to prompts that work.

Also `python -m prompt_tuning.launch.train`, with T5X's flags.
"""

import dataclasses
import logging
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, cast

import jax
from jax.sharding import Mesh

from prompt_tuning.checkpoints import bundle, fingerprint, restore
from prompt_tuning.core import axes
from prompt_tuning.launch import (
  assembly,
  backbone,
  command,
  feeding,
  finish,
  folders,
  gin_config,
  identity,
)
from prompt_tuning.launch.assembly import Assembly
from prompt_tuning.launch.eval_loss import EvalLoss
from prompt_tuning.launch.flags import Flags
from prompt_tuning.launch.job import TrainJob
from prompt_tuning.launch.scoring import Scorer
from prompt_tuning.train import loop

ABOUT = "Train prompts for a frozen T5, evaluate, keep the best, export."

logger = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
  """Train as flags and gin files say.

  Args:
    argv: the words after `prompt-tuning train`.

  Returns:
    The process's exit status.
  """
  return command.run("train", argv, ABOUT, _work)


def _work(job: TrainJob, given: Flags) -> None:
  outcome = train(job, given.tfds_data_dir)
  reason, steps = outcome.result.reason, int(outcome.result.state.step)
  command.say(f"{reason} after {steps:,} steps")
  if reason == "preempted":
    command.say("The same command continues it.")
    return
  command.say(finish.finish(outcome))


def train(job: TrainJob, data_dir: str | None = None) -> finish.Outcome:
  """Train from the start, or from where MODEL_DIR stands.

  Args:
    job: what to do.
    data_dir: TFDS's data directory.

  Returns:
    How it ended.

  Raises:
    ValueError: the job cannot be done, or MODEL_DIR holds another run.
    CheckpointError: something cannot be read or written.
  """
  # What can be wrong shows before gigabytes are read.
  folders.ensure_writable(job.model_dir, "MODEL_DIR")
  mesh, rules = job.mesh.build(), job.mesh.rules
  codec = feeding.open_vocabulary(job.dataset)
  checkpoint = restore.open_checkpoint(job.initial_checkpoint_path)
  start_step = _start_step(job, checkpoint.step)
  num_steps = job.num_steps(start_step)
  batches = feeding.train_batches(
    job.dataset,
    job.runs,
    identity.placements_of(job.tuners, len(job.runs)),
    job.model.vocab_size,
    data_dir,
    mesh,
  )
  sets = feeding.sets_by_task(job.evaluation, job.runs, data_dir)

  model = backbone.load(checkpoint, job.model, mesh, rules, job.restore_dtype)
  parts = assembly.assemble(job, model, codec, start_step, mesh)
  command.say(parts.program.partition.report())
  checksum = fingerprint.checksum(parts.frozen) if job.controls else None

  scorer = None
  if job.evaluation is not None:
    loss = _eval_loss(job, parts, data_dir, mesh)
    scorer = Scorer(
      job.evaluation, job.runs, parts, model, codec, sets, mesh, loss
    )
  manifest = identity.identity(
    job, parts.tuners, model, codec.sha256, start_step
  )
  _write_config(job.model_dir, manifest)
  result = loop.train(
    jax.jit(parts.program.step, donate_argnums=0),
    parts.state,
    parts.frozen,
    batches,
    settings=_settings(job, num_steps, start_step),
    folder=job.model_dir,
    manifest=manifest,
    summarise=cast(loop.Summarise, job.objective.summarise),
    place=axes.batch_placer(mesh, rules),
    evaluate=scorer,
  )
  return finish.Outcome(
    result, job, model, parts, codec, scorer, start_step, mesh, checksum
  )


def _eval_loss(
  job: TrainJob, parts: Assembly, data_dir: str | None, mesh: Mesh | None
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


def _start_step(job: TrainJob, restored: int | None) -> int:
  """Find the step that the optimizer goes on from, as T5X restores it."""
  if job.restored_step is not None:
    return job.restored_step
  if restored is None:
    logger.warning(
      "%s does not say at which step it is; Adafactor starts at 0. The public "
      "runs started at 1,100,000: set RESTORED_STEP for that.",
      job.initial_checkpoint_path,
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
    patience=job.patience,
    progress_bar=job.progress_bar,
    tensorboard=job.tensorboard,
  )


def _write_config(folder: str, manifest: dict[str, Any]) -> None:
  """Write the configuration down, unless the folder is another run's."""
  latest = bundle.read_latest(pathlib.Path(folder) / loop.BUNDLES)
  is_ours = latest is None or latest[1].manifest["run"] == manifest
  if is_ours and jax.process_index() == 0:
    gin_config.write(folder)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
