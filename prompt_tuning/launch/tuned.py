"""Loading what was tuned: a run's folder, a bundle, or a prompt in a file."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints import bundle, restore
from prompt_tuning.checkpoints.bundle import Bundle
from prompt_tuning.core import tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.launch.backbone import Backbone
from prompt_tuning.launch.identity import placement_of, rebuild
from prompt_tuning.train import loop
from prompt_tuning.tuners import bank


class Tuned(NamedTuple):
  """One or more runs, ready to be used.

  Attributes:
    runs: their deltas and placements.
    names: of the runs; empty where there is only one.
    fingerprint: of the backbone that they were tuned with; None where the file
      does not say.
    step: at which they were saved; None where the file does not say.
  """

  runs: Runs
  names: tuple[str, ...]
  fingerprint: str | None = None
  step: int | None = None


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
    ValueError: a tuned model, or an unknown method.
  """
  folder = pathlib.Path(path)
  if bundle.is_bundle(folder):
    return from_bundle(bundle.read(folder))
  best = sorted(
    (folder / loop.BEST).glob("run_*"), key=lambda p: int(p.name[4:])
  )
  latest = bundle.read_latest(folder / loop.BUNDLES)
  found = [bundle.read_latest(run) for run in best]
  if best and all(found):
    parts = [from_bundle(one[1]) for one in found if one is not None]
    runs = join([part.runs for part in parts])
    names = tuple(name for part in parts for name in part.names)
    return Tuned(runs, names, parts[0].fingerprint, parts[0].step)
  if latest is not None:
    return from_bundle(latest[1])
  loaded = restore.open_prompt(path)
  values = jnp.asarray(loaded.values)
  placement = Placement(encoder_prefix=tuple(range(len(values))))
  return Tuned(Runs(Delta(virtual=values[None]), (placement,)), ("",))


def from_bundle(saved: Bundle) -> Tuned:
  """Rebuild the runs of a bundle.

  Args:
    saved: of one run, or of all runs that trained side by side.

  Returns:
    The runs.

  Raises:
    ValueError: a tuned model, or an unknown method.
  """
  described = saved.manifest["run"]
  params = tree.unflatten(
    {path: jnp.asarray(array) for path, array in saved.trainable.items()}
  )
  if "model" in params or not described["tuners"]:
    raise ValueError(
      "This bundle holds a tuned model, not a prompt: its scores are in the "
      "logs of its run."
    )
  number = saved.manifest.get("run_index")
  chosen = range(len(described["runs"])) if number is None else (number,)
  tuners = [rebuild(described["tuners"][k]) for k in chosen]
  delta = bank.apply_bank(tuners[0], params["tuner"])
  placements = tuple(map(placement_of, tuners))
  return Tuned(
    Runs(delta, placements),
    tuple(described["runs"][k]["name"] for k in chosen),
    described["backbone"]["fingerprint"],
    saved.manifest["step"] + described["start_step"],
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
  return Tuned(
    join([part.runs for part in parts.values()]),
    tuple(names),
    model.fingerprint,
    steps.pop() if len(steps) == 1 else None,
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
  tuned = load(path)
  if len(tuned.runs) > 1:
    raise ValueError(
      f"PROMPT_FILE {path} holds {len(tuned.runs)} runs; name the bundle of "
      f"one of them, below {loop.BEST}."
    )
  vectors = prompt_vectors(tuned.runs, 0)
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
