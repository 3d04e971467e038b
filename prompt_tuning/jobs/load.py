"""Loading what was tuned: a run's folder, a bundle, or a prompt in a file."""

import logging
import os
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints import bundle, fingerprint, restore
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.checkpoints.bundle import Bundle
from prompt_tuning.core import tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.jobs.identity import rebuild
from prompt_tuning.models.t5 import quantized
from prompt_tuning.train import loop
from prompt_tuning.tuners import bank

logger = logging.getLogger(__name__)

_MODEL = "model/"  # how paths of the backbone's own parameters begin
_ONE_MODEL = (
  "Models that were tuned cannot be used side by side, as prompts can: name "
  f"the bundle of one of them, {loop.BEST}/run_<number>/step_<step>."
)


class Tuned(NamedTuple):
  """One or more runs, ready to be used.

  Attributes:
    runs: their deltas and placements.
    names: of the runs; empty where there is only one.
    fingerprint: of the backbone that they were tuned with; None where the file
      does not say.
    step: at which they were saved; None where the file does not say.
    weights: of a single run that tuned the backbone itself: path -> array.
  """

  runs: Runs
  names: tuple[str, ...]
  fingerprint: str | None = None
  step: int | None = None
  weights: Mapping[str, np.ndarray] = types.MappingProxyType({})


def load(path: str | os.PathLike[str]) -> Tuned:
  """Load runs.

  Args:
    path: MODEL_DIR of a run (the best of each run; the last where nothing was
      evaluated), a bundle, a `.npy` prompt, a PEFT adapter, or a T5X
      checkpoint with a prompt.

  Returns:
    The runs.

  Raises:
    CheckpointError: nothing that was tuned, or damaged.
    ValueError: several tuned models, or an unknown method.
  """
  folder = pathlib.Path(path)
  if bundle.is_bundle(folder):
    return from_bundle(bundle.read(folder))
  best = sorted(
    (folder / loop.BEST).glob("run_*"), key=lambda p: int(p.name[4:])
  )
  found = [bundle.read_latest(run) for run in best]
  if best and all(found):
    parts = [from_bundle(one[1]) for one in found if one is not None]
    names = tuple(name for part in parts for name in part.names)
    return _side_by_side(parts)._replace(names=names, step=parts[0].step)
  latest = bundle.read_latest(folder / loop.BUNDLES)
  if latest is not None:
    return from_bundle(latest[1])
  loaded = restore.open_prompt(path)
  for note in loaded.notes:
    logger.info("%s: %s", path, note)
  values = jnp.asarray(loaded.values)
  placement = Placement(encoder_prefix=tuple(range(len(values))))
  return Tuned(Runs(Delta(virtual=values[None]), (placement,)), ("",))


def load_one(path: str | os.PathLike[str]) -> Tuned:
  """Load what was tuned, and insist that it is a single prompt, see `load`.

  Raises:
    ValueError: it is several, or a tuned model.
  """
  found = load(path)
  if found.weights:
    raise ValueError(f"{path} holds a tuned model, not a prompt.")
  if len(found.runs) > 1:
    raise ValueError(
      f"{path} holds {len(found.runs)} runs ({', '.join(found.names)}); name "
      f"the bundle of one of them: {loop.BEST}/run_<number>/step_<step>."
    )
  return found


def from_bundle(saved: Bundle) -> Tuned:
  """Rebuild the runs of a bundle.

  Args:
    saved: of one run, or of all runs that trained side by side.

  Returns:
    The runs.

  Raises:
    ValueError: several tuned models, or an unknown method.
  """
  described = saved.manifest["run"]
  number = saved.manifest.get("run_index")
  chosen = range(len(described["runs"])) if number is None else (number,)
  weights = {
    path.removeprefix(_MODEL): array
    for path, array in saved.trainable.items()
    if path.startswith(_MODEL)
  }
  if weights and len(chosen) > 1:
    raise ValueError(_ONE_MODEL)
  runs = Runs()
  if described["tuners"]:
    tuners = [rebuild(described["tuners"][k]) for k in chosen]
    params = tree.unflatten(
      {
        path: jnp.asarray(array)
        for path, array in saved.trainable.items()
        if not path.startswith(_MODEL)
      }
    )
    delta = bank.apply_bank(tuners[0], params["tuner"])
    runs = Runs(delta, tuple(tuner.placement for tuner in tuners))
  return Tuned(
    runs,
    tuple(described["runs"][k]["name"] for k in chosen),
    described["backbone"]["fingerprint"],
    saved.manifest["step"] + described["start_step"],
    {path: array[0] for path, array in weights.items()},
  )


def _side_by_side(parts: Sequence[Tuned]) -> Tuned:
  """Put the runs of several parts side by side; a tuned model stands alone."""
  if len(parts) == 1:
    return parts[0]
  if any(part.weights for part in parts):
    raise ValueError(_ONE_MODEL)
  runs = join([part.runs for part in parts])
  return Tuned(runs, (), parts[0].fingerprint)


def applied(tuned: Tuned, model: Backbone) -> Backbone:
  """Put the weights of a tuned model in the place of the backbone's.

  Args:
    tuned: prompts, or a tuned model.
    model: the backbone that it was tuned from.

  Returns:
    The model, in the backbone's dtypes, where the backbone is; the very same
    one for prompts.

  Raises:
    ValueError: weights that the backbone has not.
  """
  if not tuned.weights:
    return model
  flat = dict(tree.flatten(model.params))
  for path, array in tuned.weights.items():
    old = flat.get(path)
    if old is None or old.shape != array.shape:
      raise ValueError(
        f"The tuned model has {path} {list(array.shape)}, the backbone "
        f"{list(old.shape) if old is not None else 'nothing'} there; set "
        "SCAN_LAYERS as in its training."
      )
    flat |= quantized.requantize(flat, path, array)
  params = tree.unflatten(flat)
  return model._replace(
    params=params, fingerprint=fingerprint.fingerprint(params)
  )


def insist(tuned: Tuned, model: Backbone, path: str) -> Tuned:
  """Insist that runs belong to a model.

  Args:
    tuned: the runs.
    model: the backbone they shall be used with.
    path: where they come from.

  Returns:
    The same runs.

  Raises:
    ValueError: they were tuned with another backbone, or have another width.
  """
  virtual = tuned.runs.delta.virtual
  width = model.config.emb_dim
  if virtual is not None and virtual.shape[-1] != width:
    raise ValueError(
      f"The prompt of {path} has {virtual.shape[-1]} features, the model "
      f"{width}; use the model that it was trained with."
    )
  if tuned.fingerprint not in (None, model.fingerprint):
    raise ValueError(
      f"{path} was tuned with the backbone {tuned.fingerprint}, but the "
      f"checkpoint is {model.fingerprint}: other weights. Use the checkpoint "
      "that it was trained with."
    )
  return tuned


def load_several(
  paths: str | Sequence[str] | Mapping[str, str] | None, model: Backbone
) -> Tuned:
  """Load any number of prompts side by side, of any lengths.

  Args:
    paths: one, several, or name -> path; None for the model without a prompt.
    model: the backbone they shall be used with.

  Returns:
    All of their runs; names tell them apart.

  Raises:
    ValueError: see `insist`.
    CheckpointError: see `load`.
  """
  if paths is None:
    return Tuned(Runs(), ("",))
  if isinstance(paths, str):
    paths = {"": paths}
  elif not isinstance(paths, Mapping):
    paths = {str(number): path for number, path in enumerate(paths)}
  parts = {
    name: insist(load(path), model, path) for name, path in paths.items()
  }
  names = [
    "_".join(filter(None, (name, own)))
    for name, part in parts.items()
    for own in part.names
  ]
  steps = {part.step for part in parts.values()}
  return _side_by_side(list(parts.values()))._replace(
    names=tuple(names),
    fingerprint=model.fingerprint,
    step=steps.pop() if len(steps) == 1 else None,
  )


def encoder_prompt(path: str) -> np.ndarray:
  """Read the vectors of one prompt, to start another one from.

  Args:
    path: see `load`.

  Returns:
    [P, H] float32.

  Raises:
    ValueError: several runs, or none with a prompt in the encoder only.
  """
  vectors = prompt_vectors(load_one(path).runs, 0)
  if list(vectors) != ["encoder"]:
    raise ValueError(
      f"PROMPT_FILE {path} has prompts in {sorted(vectors) or 'no place'}; "
      "expected one in the encoder."
    )
  return vectors["encoder"]


def prompt_vectors(runs: Runs, run: int) -> dict[str, np.ndarray]:
  """Take the vectors of one run's prompts.

  Args:
    runs: any runs.
    run: number of the run.

  Returns:
    `encoder` and `decoder`, where there is such a prompt -> [P, H] float32.
  """
  placement, virtual = runs.placements[run], runs.delta.virtual
  rows = {
    "encoder": (*placement.encoder_prefix, *placement.encoder_suffix),
    "decoder": placement.decoder_prefix,
  }
  if virtual is None:
    return {}
  values = np.asarray(virtual[run], np.float32)
  return {stack: values[list(r)] for stack, r in rows.items() if r}
