"""T5X's native checkpoints: one msgpack file, and zarr folders beside it.

  checkpoint_<step>/
    checkpoint                 msgpack {version, optimizer: {target, state}}
    target.<dotted path>/      .zarray and chunk files of a partitioned array

An array is in the msgpack file, or in a zarr folder whose TensorStore spec is
in that file. Source: t5x/checkpoints.py (versions 2 and 3, with the spec's
older forms), and the checkpoints that it wrote.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prompt_tuning.checkpoints import flax_msgpack, paths, stores
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  Mismatch,
  parsing,
  unreadable,
)
from prompt_tuning.checkpoints.source import (
  ArrayLeaf,
  Checkpoint,
  Leaf,
  dtype_named,
)
from prompt_tuning.core import files

FILE = "checkpoint"
VERSION = 3
OLDEST_VERSION = 2  # older ones name parameters differently
_SPEC_KEYS = {"driver", "kvstore", "metadata"}
_STEP = "state/step"
_MESH_TENSORFLOW = b"model_checkpoint_path"

Opened = tuple[dict[str, Leaf], list[Mismatch]]  # leaves, and what is broken


def open_t5x(path: str) -> Checkpoint:
  """Open a native T5X checkpoint.

  Args:
    path: a `checkpoint_<step>` folder, or the msgpack file itself (a
      checkpoint may be that file alone).

  Returns:
    The checkpoint; arrays that cannot be opened are `broken`.

  Raises:
    CheckpointError: it is not such a checkpoint; lists all reasons.
  """
  file = os.path.join(path, FILE) if files.is_dir(path) else path
  folder = os.path.dirname(files.absolute(file))
  nodes = flat_nodes(_optimizer(file))
  return from_nodes(path, "t5x", nodes, lambda some: _open_nodes(folder, some))


def is_t5x(path: str) -> bool:
  """Say whether a path has T5X's msgpack file; its arrays may be damaged."""
  try:
    _optimizer(os.path.join(path, FILE) if files.is_dir(path) else path)
  except CheckpointError:
    return False
  return True


def _optimizer(file: str) -> Mapping[str, Any]:
  """Index a msgpack file and find the T5X state in it."""
  with parsing(file, "a T5X checkpoint"), files.open_file(file) as start:
    if start.read(len(_MESH_TENSORFLOW)) == _MESH_TENSORFLOW:
      raise unreadable(file, "a T5X checkpoint", "a Mesh TensorFlow one")
  tree = flax_msgpack.index(file)
  if not isinstance(tree, dict) or not isinstance(tree.get("optimizer"), dict):
    keys = sorted(tree)[:8] if isinstance(tree, dict) else type(tree).__name__
    raise unreadable(file, "the keys `version` and `optimizer`", f"{keys}")
  version = tree.get("version")
  if type(version) is not int or version < OLDEST_VERSION:
    raise unreadable(
      file,
      f"T5X checkpoint version {OLDEST_VERSION} or {VERSION}",
      f"version {version!r}",
      "Rewrite it with a newer T5X.",
    )
  return tree["optimizer"]


def _open_nodes(folder: str, nodes: Mapping[str, Any]) -> Opened:
  """Make a leaf of every node; each node should stand for an array."""
  mismatches: list[Mismatch] = []
  leaves, specs = {}, {}
  for name, node in nodes.items():
    if isinstance(node, Leaf):
      leaves[name] = node
    elif isinstance(node, dict):
      specs[name] = node
    elif isinstance(node, int | float):
      array = np.asarray(node)
      leaves[name] = ArrayLeaf(name, (), array.dtype, array)
    else:
      mismatches.append(Mismatch(name, "an array", repr(node)[:80]))
  located = {}
  for name, spec in specs.items():
    try:
      located[name] = stores.directory(_locate(folder, spec), spec["driver"])
    except CheckpointError as error:
      mismatches += error.named(name)
  opened, failed = stores.open_leaves(located)
  mismatches += failed
  for name, leaf in opened.items():
    contradiction = _contradiction(name, specs[name], leaf)
    if contradiction is None:
      leaves[name] = leaf
    else:
      mismatches.append(contradiction)
  return dict(sorted(leaves.items())), mismatches


def flat_nodes(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Flatten an indexed tree; a TensorStore spec is a leaf."""
  flat: dict[str, Any] = {}

  def visit(node: Any, path: tuple[str, ...]) -> None:
    if isinstance(node, dict) and not node.keys() >= _SPEC_KEYS:
      for key, child in node.items():
        visit(child, (*path, key))
    else:
      flat["/".join(path)] = node

  visit(tree, ())
  return flat


def _locate(folder: str, spec: Mapping[str, Any]) -> str:
  """Find the zarr folder of a spec, inside the checkpoint."""
  kvstore = spec["kvstore"]
  path: Any = None
  if isinstance(kvstore, str):  # TensorStore's URL form
    path = kvstore.partition("://")[2] or kvstore
  elif isinstance(kvstore, dict):
    # TensorStore before 0.1.14 wrote the path beside the kvstore.
    path = kvstore.get("path", spec.get("path"))
  if not isinstance(path, str) or not path.strip("/"):
    raise unreadable(folder, "a TensorStore spec with a path", f"{spec}"[:200])
  if spec["driver"] not in ("zarr", "zarr3"):
    raise unreadable(folder, "a zarr array", f"driver {spec['driver']!r}")
  return paths.inside(folder, path)


def _contradiction(
  name: str, spec: Mapping[str, Any], leaf: Leaf
) -> Mismatch | None:
  """Compare what the msgpack file and the array itself say about the array."""
  metadata = spec["metadata"] if isinstance(spec["metadata"], dict) else {}
  shape = metadata.get("shape", list(leaf.shape))
  said = metadata.get("dtype", spec.get("dtype", leaf.dtype.name))
  dtype = dtype_named(said) if isinstance(said, str) else None
  if dtype is None:
    return stores.unsupported(name, "uint16" if said == "<u2" else str(said))
  if shape != list(leaf.shape) or dtype != leaf.dtype:
    return Mismatch(name, f"{dtype.name}{shape}, as {FILE} says", str(leaf))
  return None


def from_nodes(
  path: str,
  kind: str,
  nodes: Mapping[str, Any],
  opener: Callable[[Mapping[str, Any]], Opened],
) -> Checkpoint:
  """Sort the nodes of `{target, state}` into a `Checkpoint`.

  Args:
    path: the checkpoint.
    kind: the format's name.
    nodes: flat path -> the node that stands for an array.
    opener: makes leaves from some of the nodes.

  Returns:
    The checkpoint; arrays that cannot be opened are `broken`.

  Raises:
    CheckpointError: there is no `target`, or the step is not a whole number.
  """
  target = _below("target/", nodes)
  state = _below("state/", nodes)
  step = state.pop("step", None)
  if not target:
    content = f"only {sorted(nodes)[:5]}" if nodes else "an empty tree"
    raise unreadable(path, "model parameters under `target`", content)
  known = ("target/", "state/")
  params, broken = opener(target)
  steps, no_step = opener({} if step is None else {_STEP: step})

  def open_state() -> Mapping[str, Leaf]:
    # None: a parameter that the optimizer did not touch.
    touched = {n: x for n, x in state.items() if x is not None}
    leaves, mismatches = opener(touched)
    if mismatches:
      raise CheckpointError(path, mismatches)
    return leaves

  return Checkpoint(
    path,
    kind,
    params,
    step=_step(path, steps[_STEP]) if steps else None,
    open_state=open_state,
    broken=(*broken, *no_step),
    notes=tuple(
      f"{name} is neither a parameter nor optimizer state; it was left out"
      for name in sorted(nodes)
      if not name.startswith(known)
    ),
  )


def _below(prefix: str, nodes: Mapping[str, Any]) -> dict[str, Any]:
  """Take the nodes under a prefix, and remove the prefix from their names."""
  return {
    n.removeprefix(prefix): x for n, x in nodes.items() if n.startswith(prefix)
  }


def _step(path: str, leaf: Leaf) -> int:
  """Read the training step; in runs that T5X resumed it is a float32 scalar."""
  expected = "a scalar that is a whole number, 0 or more"
  if leaf.shape != () or leaf.dtype == np.bool_:
    raise CheckpointError(path, [Mismatch(_STEP, expected, str(leaf))])
  value = leaf.read().item()
  if not (value >= 0 and value % 1 == 0):  # nor is NaN
    raise CheckpointError(path, [Mismatch(_STEP, expected, f"{value}")])
  return int(value)
