"""The results and costs of a pre-training stage, on disk and as a table."""

import json
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_tuning.checkpoints import bundle, json_files, sizes
from prompt_tuning.core import files
from prompt_tuning.core.schema import (
  ANY,
  FINITE,
  NUMBER,
  TEXT,
  WHOLE,
  Each,
  Kind,
  Maybe,
)
from prompt_tuning.data import corpus, spec, vocabulary
from prompt_tuning.jobs import identity
from prompt_tuning.jobs.pretrain_job import PretrainJob, Stage
from prompt_tuning.models.t5 import cost
from prompt_tuning.train import logs, loop

FILE = "stage.json"
_SECONDS = "train/timing/seconds"
_SPEED = "train/timing/tokens_per_second"
_EVAL, _PER_TOKEN = "training_eval/", "/loss_per_nonpadding_target_token"

_LOSS = Kind(
  "a step and a loss",
  lambda value: (
    isinstance(value, list)
    and len(value) == 2
    and all(map(NUMBER.accepts, value))
  ),
)
# The parts of a report that are read.
_SCHEMA = {
  "stage": TEXT,
  "held_out": Each([_LOSS]),
  "sentinel_share": Maybe(FINITE),
  "run?": Each(ANY),
} | dict.fromkeys(
  (
    *("steps", "encoder_tokens", "decoder_tokens"),
    *("parameters", "non_embedding_parameters"),
  ),
  WHOLE,
)
_SCHEMA |= dict.fromkeys(
  ("seconds", "tokens_per_second", "flops_per_second"), FINITE
)


def describe(
  job: PretrainJob, stage: Stage, result: loop.Result, share: float | None
) -> dict[str, Any]:
  """Summarise a finished stage.

  Args:
    job: the whole job.
    stage: the finished stage.
    result: how it ended.
    share: share of continuations with a sentinel; None if it was not measured.

  Returns:
    JSON values. `held_out` has, for each corpus, (step, loss per target token)
    of every evaluation. `seconds` and the numbers computed from it count only
    training steps, in all processes of the stage. Steps that a killed process
    did not log count as fast as the others. If the log was lost, all of these
    are 0.
  """
  lines = logs.read(job.folder(stage))
  encoder, decoder = result.tokens
  timed = [(e[_SECONDS], e[_SPEED]) for e in lines if _SECONDS in e]
  logged = sum(seconds for seconds, _ in timed)
  share_logged = sum(s * v for s, v in timed) / (encoder + decoder)
  seconds = _ratio(logged, share_logged)
  flops = cost.flops_per_token(job.model)
  counts = cost.count_parameters(job.model)
  return {
    "stage": stage.name,
    "objective": stage.denoising.objective,
    "steps": stage.steps,
    "encoder_tokens": encoder,
    "decoder_tokens": decoder,
    "seconds": seconds,
    "tokens_per_second": _ratio(encoder + decoder, seconds),
    "flops_per_second": _ratio(
      encoder * flops[0] + decoder * flops[1], seconds
    ),
    "held_out": _held_out(lines),
    "sentinel_share": share,
    "parameters": sum(counts.values()),
    "non_embedding_parameters": counts["encoder"] + counts["decoder"],
    "hardware": _hardware(),
    "run": settings(job, stage),
  }


def _ratio(amount: float, by: float) -> float:
  return amount / by if by else 0.0


def settings(job: PretrainJob, stage: Stage) -> dict[str, Any]:
  """Describe everything that decides a stage's model, as JSON values.

  Args:
    job: the whole job.
    stage: one of its stages.

  Returns:
    The settings; for files, their contents.
  """
  (name,) = job.train_job(stage).experiment.dataset.names
  tasks = spec.get(name).components(corpus.TRAIN)
  described = identity.describe(stage) | {
    "tasks": [(task.identity(), rate) for task, rate in tasks],
    "vocabulary": vocabulary.load(job.vocabulary_file).sha256,
    "model": sizes.described(job.model),
    "dtype": str(np.dtype(job.model.dtype)),
    "dropout_rate": job.model.dropout_rate,
    "initial_checkpoint_path": job.initial_checkpoint_path,
    "seed": job.seed,
    "relpos_scale": job.relpos_scale,
    "objective": identity.describe(job.objective),
    "num_microbatches": job.num_microbatches,
    "save_dtype": job.save_dtype,
  }
  return dict(json.loads(json.dumps(described)))


def write(folder: pathlib.Path, report: Mapping[str, Any]) -> None:
  """Write a stage's report; it says that the stage is done."""
  files.write_texts(folder, {FILE: json.dumps(report, indent=2) + "\n"})


def read(job: PretrainJob, stage: Stage) -> dict[str, Any] | None:
  """Read a stage's report.

  Args:
    job: the whole job.
    stage: one of its stages.

  Returns:
    The report; None if the stage is not done.

  Raises:
    ValueError: the stage was done with other settings.
    CheckpointError: the report is damaged.
  """
  folder = job.folder(stage)
  path = folder / FILE
  if not path.is_file():
    return None
  report: dict[str, Any] = json_files.read(path, "a stage's report")
  json_files.check(path, report, _SCHEMA)
  if "run" in report:  # reports of the first runs did not say
    bundle.Bundle(report, {}).insist_run(settings(job, stage), folder)
  return report


def table(reports: Sequence[Mapping[str, Any]]) -> str:
  """Format the reports of a model's stages for people.

  Args:
    reports: of the stages, in order.

  Returns:
    Lines of text.
  """
  first = reports[0]
  lines = [
    f"{first['parameters']:,} parameters, "
    f"{first['non_embedding_parameters']:,} without embeddings"
  ]
  for report in reports:
    tokens = report["encoder_tokens"] + report["decoder_tokens"]
    lines.append(
      f"{report['stage']}: {report['steps']:,} steps, {tokens:,} tokens, "
      f"{report['seconds'] / 60:.1f} min, "
      f"{report['tokens_per_second']:,.0f} tokens/s, "
      f"{report['flops_per_second'] / 1e9:.1f} GFLOP/s"
    )
    for name, losses in report["held_out"].items():
      lines.append(
        f"  held-out loss, {name}: {losses[0][1]:.3f} -> {losses[-1][1]:.3f}"
      )
    if report["sentinel_share"] is not None:
      share = report["sentinel_share"]
      lines.append(f"  continuations with a sentinel: {share:.1%}")
  return "\n".join(lines)


def _held_out(
  lines: Sequence[Mapping[str, Any]],
) -> dict[str, list[tuple[int, float]]]:
  """Collect the losses per target token that the loop logged."""
  losses: dict[str, list[tuple[int, float]]] = {}
  for line in lines:
    for tag, value in line.items():
      if tag.startswith(_EVAL) and tag.endswith(_PER_TOKEN):
        name = tag.removeprefix(_EVAL).removesuffix(_PER_TOKEN)
        losses.setdefault(name, []).append((line["step"], value))
  return losses


def _hardware() -> str:
  device = jax.devices()[0]
  cores = os.cpu_count() if device.platform == "cpu" else jax.device_count()
  return f"{cores} x {device.device_kind} ({platform.machine()})"
