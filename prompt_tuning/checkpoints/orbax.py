"""T5X's checkpoints in Orbax's layout, its default since February 2024.

  checkpoint_<step>/state/
    _METADATA                       JSON: the tree, leaf by leaf
    manifest.ocdbt, d/, ...         one OCDBT database with every array, or
    <dotted path>/                  one zarr folder per array

Older Orbax versions have no `_METADATA` but a msgpack file `checkpoint`, whose
leaves are arrays or strings `PLACEHOLDER://<dotted path>`; their files may lie
in `checkpoint_<step>/` itself. TensorStore alone can read all of these, and one
box at a time. Source: t5x/checkpoints.py, orbax/checkpoint (the tree metadata
and type handlers), and the checkpoints that both write.
"""

import os
from collections.abc import Mapping
from typing import Any

from prompt_tuning.checkpoints import (
  flax_msgpack,
  json_files,
  paths,
  stores,
  t5x,
)
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  Mismatch,
  parsing,
  unreadable,
)
from prompt_tuning.checkpoints.source import Checkpoint, Leaf
from prompt_tuning.core import files
from prompt_tuning.core.schema import ANY, TEXT, Each

METADATA = "_METADATA"
MSGPACK = "checkpoint"
MANIFEST = "manifest.ocdbt"
# Orbax writes under such a name, and renames the folder when it is complete.
UNFINISHED = ".orbax-checkpoint-tmp"
PLACEHOLDER = "PLACEHOLDER://"
_ITEMS = ("state", "default", "")  # T5X's item; Orbax's unnamed one; none
_ROOTS = ("optimizer", "_optimizer")  # where older T5X versions put the state
_EMPTY_TYPES = ("Dict", "List", "Tuple", "NamedTuple", "None")

_SCHEMA = {
  "tree_metadata": Each(
    {"key_metadata": [{"key": ANY}], "value_metadata": {"value_type": TEXT}}
  )
}

Spec = Mapping[str, Any]  # of TensorStore, from `stores`


def find(path: str) -> str | None:
  """Find the folder of an Orbax checkpoint's arrays.

  Args:
    path: a `checkpoint_<step>` folder, or its `state`.

  Returns:
    The folder with the tree's metadata; None if this is not Orbax's.
  """
  for item in _ITEMS:
    folder = os.path.join(path, item) if item else path
    if files.is_file(os.path.join(folder, METADATA)):
      return folder
    if item and files.is_file(os.path.join(folder, MSGPACK)):
      return folder
  file = os.path.join(path, MSGPACK)
  return path if files.is_file(file) and _is_orbax(file) else None


def _is_orbax(file: str) -> bool:
  """Tell an Orbax msgpack file from T5X's own, which has a version."""
  try:
    tree = flax_msgpack.index(file)
  except CheckpointError:
    return False  # the reader of T5X's own says what is wrong with it
  return (
    isinstance(tree, dict)
    and "version" not in tree
    and any(map(_is_placeholder, t5x.flat_nodes(tree).values()))
  )


def _is_placeholder(node: Any) -> bool:
  return isinstance(node, str) and node.startswith(PLACEHOLDER)


def open_orbax(path: str, folder: str) -> Checkpoint:
  """Open an Orbax checkpoint that T5X wrote.

  Args:
    path: what the user named.
    folder: what `find` returned for it.

  Returns:
    The checkpoint; arrays that cannot be opened are `broken`.

  Raises:
    CheckpointError: it is not an Orbax checkpoint; lists all reasons.
  """
  if UNFINISHED in files.absolute(folder):
    raise unreadable(path, "a finished checkpoint", "Orbax's temporary name")
  nodes: dict[str, Leaf | Spec] = {}
  if files.is_file(os.path.join(folder, METADATA)):
    nodes.update(_from_metadata(folder))
  if files.is_file(os.path.join(folder, MSGPACK)):
    nodes.update(_from_msgpack(folder))

  def opener(some: Mapping[str, Any]) -> t5x.Opened:
    inline = {n: x for n, x in some.items() if isinstance(x, Leaf)}
    specs = {n: x for n, x in some.items() if n not in inline}
    opened, mismatches = stores.open_leaves(specs)
    return dict(sorted({**inline, **opened}.items())), mismatches

  return t5x.from_nodes(path, "orbax", _below_root(nodes), opener)


def _from_metadata(folder: str) -> dict[str, Spec]:
  """Read the tree from `_METADATA`: flat path -> spec."""
  file = os.path.join(folder, METADATA)
  specs = {}
  metadata = json_files.read(file, "the tree metadata of an Orbax checkpoint")
  json_files.check(file, metadata, _SCHEMA)
  with parsing(file, "the tree metadata of an Orbax checkpoint"):
    driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
    for entry in metadata["tree_metadata"].values():
      value = entry["value_metadata"]
      if value["value_type"] in _EMPTY_TYPES or value.get("skip_deserialize"):
        continue  # an empty subtree, or a value inside the msgpack file
      keys = [str(part["key"]) for part in entry["key_metadata"]]
      specs["/".join(keys)] = _spec(folder, ".".join(keys), driver)
  return specs


def _from_msgpack(folder: str) -> dict[str, Leaf | Spec]:
  """Read the tree from an older Orbax's msgpack file."""
  file = os.path.join(folder, MSGPACK)
  tree = flax_msgpack.index(file)
  if not isinstance(tree, dict):
    raise unreadable(file, "a tree", f"a {type(tree).__name__}")
  nodes: dict[str, Leaf | Spec] = {}
  mismatches = []
  for path, node in t5x.flat_nodes(tree).items():
    if isinstance(node, Leaf):
      nodes[path] = node
    elif _is_placeholder(node):
      nodes[path] = _spec(folder, node.removeprefix(PLACEHOLDER), "zarr")
    elif "target" in path.split("/"):
      mismatches.append(Mismatch(path, "an array", repr(node)[:80]))
  if mismatches:
    raise CheckpointError(file, mismatches)
  return nodes


def _spec(folder: str, name: str, driver: str) -> Spec:
  """Say where one array is stored: in the database, or in its own folder."""
  if files.is_file(os.path.join(folder, MANIFEST)):
    return stores.database(folder, name, driver)
  return stores.directory(paths.inside(folder, name), driver)


def _below_root(nodes: Mapping[str, Any]) -> dict[str, Any]:
  """Remove the `optimizer/` that older trees have above `target`."""
  for root in _ROOTS:
    if any(name.startswith(f"{root}/target/") for name in nodes):
      return {n.removeprefix(f"{root}/"): x for n, x in nodes.items()}
  return dict(nodes)
