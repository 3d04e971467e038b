"""Find out what a path holds: a model, a prompt, or something tuned here."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from prompt_tuning.checkpoints import bundle, peft, restore
from prompt_tuning.checkpoints import delta as deltas
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.checkpoints.source import ArrayLeaf, Leaf
from prompt_tuning.core import embedded, files, tree
from prompt_tuning.jobs import best

MODEL = "model"  # a checkpoint; also what no reader here knows
PROMPT = "prompt"  # vectors before the text: a NumPy file, an adapter
ADAPTER = "adapter"  # PEFT's, of anything else
BUNDLE, EXPORT, RUN = "bundle", "export", "run"


def kind_of(path: str | os.PathLike[str]) -> str:
  """Return the kind of content at a path, without checking that it is whole.

  Raises:
    ValueError: it names a prompt of the package, which has none of that name.
  """
  if embedded.is_prompt(path):
    embedded.prompt(path)
    return EXPORT
  folder = files.path(path)
  if bundle.looks_like_one(folder):
    return BUNDLE
  for candidate in (folder, folder / deltas.FOLDER):
    if (candidate / deltas.MANIFEST).is_file():
      return EXPORT
  if is_run(folder):
    return RUN
  if not restore.holds_prompt(path):
    return MODEL
  if (folder / peft.CONFIG).is_file() and not _is_vectors(path):
    return ADAPTER
  return PROMPT


def is_run(folder: pathlib.Path) -> bool:
  """Say whether a folder is the MODEL_DIR of a training."""
  return bool(bundle.steps(folder / bundle.BUNDLES) or best.run_folders(folder))


def leaves(
  path: str | os.PathLike[str], as_delta: bool = False
) -> Mapping[str, Leaf]:
  """Open the content of a path as named arrays.

  Args:
    path: of any kind.
    as_delta: name a prompt's vectors as a delta does, to compare the two.

  Returns:
    Name -> array. A model's parameters by T5X's paths, which are read when they
    are asked for; so are those of a tuned model. What a delta changes, and
    where its virtual tokens stand, by run where there are several.

  Raises:
    CheckpointError: nothing that can be read, or damaged.
    ValueError: see `load.load`.
  """
  kind = kind_of(path)
  if kind == MODEL:
    return restore.open_checkpoint(path).params
  if kind == PROMPT and not as_delta:
    return of_arrays({"prompt": restore.open_prompt(path).values})
  return of_arrays(_tuned_arrays(path))


def of_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Leaf]:
  """Wrap arrays in memory as leaves of a checkpoint."""
  return {
    name: ArrayLeaf(name, array.shape, array.dtype, array)
    for name, array in arrays.items()
  }


def _tuned_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Name the arrays of something tuned; the loader is slow to import."""
  from prompt_tuning.core import algebra
  from prompt_tuning.jobs import load

  tuned = load.load(path)
  arrays: dict[str, np.ndarray] = {}
  if tuned.weights:
    leaves = restore.leaves_of(tree.unflatten(tuned.weights))
    arrays |= {name: leaf.read() for name, leaf in leaves.items()}
  for run in range(len(tuned.runs)):
    one = tuned.runs.one(run)
    prefix = f"{tuned.names[run]}/" if len(tuned.runs) > 1 else ""
    for name, array in algebra.named_leaves(one.delta).items():
      arrays[prefix + name] = np.asarray(array[0])
    (placement,) = one.placements
    for name, rows in vars(placement).items():
      if rows:
        arrays[f"{prefix}placement/{name}"] = np.asarray(rows, np.int32)
  return arrays


def _is_vectors(path: str | os.PathLike[str]) -> bool:
  try:
    restore.open_prompt(path)
  except CheckpointError:
    return False
  return True
