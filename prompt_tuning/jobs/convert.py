"""Write models, prompts and results of tuning in another format."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from prompt_tuning.checkpoints import (
  hf,
  peft,
  prompts,
  restore,
  sizes,
  strict,
  t5x_writer,
)
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  DamagedLeafError,
)
from prompt_tuning.checkpoints.source import Checkpoint, Leaf, all_damage
from prompt_tuning.core import tree
from prompt_tuning.core.adapter import Adapter
from prompt_tuning.jobs import contents, hub
from prompt_tuning.jobs.convert_job import MODELS, PROMPTS, Conversion
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network, site_shapes
from prompt_tuning.models.t5.config import T5Config

DTYPES = {dtype.name: dtype for dtype in t5x_writer.SAVE_DTYPES}
_STEP = re.compile(r"checkpoint_(\d+)")


def convert(job: Conversion) -> tuple[str, ...]:
  """Convert the content of one path to another format at another path.

  Args:
    job: the conversion.

  Returns:
    Notes for the user.

  Raises:
    CheckpointError: the source is wrong, or the destination exists already;
      nothing has been written.
    ValueError: the format cannot hold the source; see also `hub.local`.
  """
  job = dataclasses.replace(job, src=os.fspath(hub.local(job.src)))
  if job.to in MODELS:
    return _convert_model(job)
  if job.dtype not in (None, "float32"):
    raise ValueError(
      f"--dtype {job.dtype}: prompts are always saved as float32. Leave "
      "--dtype out."
    )
  if contents.kind_of(job.src) in (contents.MODEL, contents.PROMPT):
    return _convert_prompt(job)
  return _convert_tuned(job)


def _config(job: Conversion) -> T5Config | None:
  return t5_config.get(job.size) if job.size else None


def _convert_model(job: Conversion) -> tuple[str, ...]:
  """Convert a backbone."""
  source = _open_model(job.src)
  params, config = _whole_model(source, _config(job), job.ignore)
  try:
    return _write_model(job, source, params, config)
  except DamagedLeafError as error:  # one damaged leaf is seldom alone
    everything = dict(params)
    if job.to == "t5x":
      state = source.open_state().items()
      everything |= {f"state/{name}": leaf for name, leaf in state}
    raise CheckpointError(job.src, all_damage(everything)) from error


def _open_model(path: str) -> Checkpoint:
  """Open a checkpoint, or the weights of a model that was tuned here."""
  if contents.kind_of(path) in (contents.MODEL, contents.PROMPT):
    return restore.open_checkpoint(path, whole=False)
  from prompt_tuning.jobs import load  # takes a while to import

  tuned = load.load(path)
  if not tuned.weights:
    raise ValueError(
      f"{path} holds what was tuned for a frozen model, not a model: convert "
      f"it to {' or '.join(PROMPTS)}, or export it."
    )
  params = restore.leaves_of(tree.unflatten(tuned.weights))
  return Checkpoint(path, contents.BUNDLE, params, tuned.step)


def _write_model(
  job: Conversion,
  source: Checkpoint,
  params: Mapping[str, Leaf],
  config: T5Config,
) -> tuple[str, ...]:
  """Write a backbone, and return notes for the user."""
  dtype = DTYPES[job.dtype] if job.dtype else None
  overwrite = job.overwrite and restore.is_ours
  notes = list(source.notes)
  if job.to == "hf":
    unsaid = job.size is None and source.config is None
    if unsaid and not sizes.size_name(config):
      notes.append(
        "the shapes are not those of a published size: "
        "relative_attention_max_distance is set to T5's usual "
        f"{config.relpos_max_distance}, because shapes do not show it"
      )
    hf.write_hf(job.dst, params, config, dtype=dtype, overwrite=overwrite)
    return tuple(notes)
  named = _STEP.fullmatch(os.path.basename(os.path.normpath(job.dst)))
  step = next(
    s
    for s in (job.step, source.step, int(named[1]) if named else None, 0)
    if s is not None
  )
  if named is None or int(named[1]) != step:
    notes.append(
      f"T5X expects step {step} in a folder called checkpoint_{step}"
    )
  t5x_writer.write_t5x(
    job.dst,
    params,
    step=step,
    dtype=dtype,
    state=source.open_state(),
    overwrite=overwrite,
  )
  return tuple(notes)


def _whole_model(
  source: Checkpoint, model: T5Config | None, ignore: Sequence[str]
) -> tuple[Mapping[str, Leaf], T5Config]:
  """Insist that a checkpoint holds all of one T5, and nothing else."""
  config = model or sizes.infer_config(source)
  target = tree.flatten(network.abstract_params(config))
  hint = sizes.hint(source, target)
  params = strict.match(
    source.path, source.params, target, ignore, hint, source.broken
  )
  return params, config


def _convert_prompt(job: Conversion) -> tuple[str, ...]:
  """Convert vectors that stand before the text."""
  prompt = restore.open_prompt(job.src)
  model = _config(job)
  prompts.insist(prompt, width=model.emb_dim if model else None)
  _write_vectors(job, np.asarray(prompt.values))
  return prompt.notes


def _write_vectors(job: Conversion, values: np.ndarray) -> None:
  overwrite = job.overwrite and restore.is_ours
  if job.to == "npy":
    prompts.write_npy(job.dst, values, overwrite=overwrite)
  else:
    peft.write_vectors(
      job.dst,
      values,
      model=_config(job),
      base_model=job.base_model,
      overwrite=overwrite,
    )


def _convert_tuned(job: Conversion) -> tuple[str, ...]:
  """Convert one run of a bundle, an export, a training or an adapter."""
  from prompt_tuning.jobs import card, export, load  # takes a while to import

  model = _config(job)
  tuned = load.load_one(job.src, model.shape if model else None)
  if model:
    site_shapes.check(tuned.runs.delta, model)
  in_template = (card.IN_TEMPLATE,) if any(tuned.runs.in_template) else ()
  if job.to == "npy":
    stacks = load.vectors(tuned.runs, 0)
    if list(stacks) != ["encoder"] or not export.is_only_virtual(tuned.runs):
      raise ValueError(
        f"{job.src} is more than vectors in the encoder, but a NumPy file can "
        "hold only these. Use prompt-tuning export, which writes all of it."
      )
    _write_vectors(job, stacks["encoder"])
    (placement,) = tuned.runs.placements
    is_before = placement.encoder_rows == placement.encoder_prefix
    notes = () if is_before else ("the vectors did not stand before the text",)
    return notes + in_template
  (method,) = tuned.methods
  adapter = method.to_peft(tuned.runs.delta) if method else "unknown method"
  if not isinstance(adapter, Adapter):
    raise ValueError(f"{job.src}: no adapter can be written: {adapter}.")
  peft.write_adapter(
    job.dst,
    adapter,
    model=model,
    base_model=job.base_model,
    overwrite=job.overwrite and restore.is_ours,
  )
  return in_template
