"""Arrays that TensorStore reads: zarr directories, and OCDBT databases.

This module builds every spec itself, and takes none from a checkpoint: a spec
may name any driver and any path on the machine.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from prompt_tuning.checkpoints.errors import Mismatch, describe
from prompt_tuning.checkpoints.source import Box, Leaf, dtype_named
from prompt_tuning.core import files

# TensorStore decodes a whole chunk to read any part of it. T5X's chunks have at
# most 64 MiB (or are one shard, if JAX writes them). A chunk far larger than
# its array means damage.
_SLACK_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class StoreLeaf(Leaf):
  """An array in a TensorStore.

  Attributes:
    store: the opened `tensorstore.TensorStore`.
  """

  store: Any

  def read_into(self, box: Box, out: np.ndarray) -> None:
    """See `Leaf.read_into`; decodes the chunks that the box touches."""
    part = self.store[box] if box else self.store
    if out.dtype != self.dtype:
      part = ts.cast(part, out.dtype)
    # The box has the coordinates of the array; `out` starts at the origin.
    ts.array(out).write(part.translate_to[0] if box else part).result()


@dataclasses.dataclass(frozen=True)
class GzipLeaf(StoreLeaf):
  """An array in a zarr folder of gzip files, as T5X writes them.

  TensorStore accepts a gzip file that lacks its last bytes, and cannot check
  the checksum, which is in those bytes. So `read_into` first checks the last
  four bytes, which give the length of the contents.

  Attributes:
    folder: where the chunk files are.
    separator: text between the numbers in their names.
  """

  folder: str
  separator: str

  def read_into(self, box: Box, out: np.ndarray) -> None:
    """See `Leaf.read_into`."""
    chunk = self.store.chunk_layout.read_chunk.shape or ()
    length = math.prod(chunk) * self.dtype.itemsize
    touched = (
      range(cut.start // size, -(-cut.stop // size))
      for cut, size in zip(box, chunk, strict=True)
    )
    for numbers in itertools.product(*touched):
      name = self.separator.join(map(str, numbers)) or "0"
      _check_gzip_end(os.path.join(self.folder, name), length)
    super().read_into(box, out)


def _check_gzip_end(file: str, length: int) -> None:
  """Insist that a gzip file ends with the length of its contents."""
  with files.open_file(file) as stream:
    stream.seek(0, os.SEEK_END)
    stream.seek(-min(4, stream.tell()), os.SEEK_END)
    end = stream.read()
  if end != (length % 2**32).to_bytes(4, "little"):
    raise ValueError(f"the chunk {os.path.basename(file)} is truncated")


def directory(folder: str, driver: str = "zarr") -> Mapping[str, Any]:
  """Spec of an array that is a directory of chunk files."""
  return {"driver": driver, "kvstore": files.kvstore(folder)}


def database(folder: str, name: str, driver: str = "zarr") -> Mapping[str, Any]:
  """Spec of an array inside an OCDBT database."""
  base = files.kvstore(folder)
  kvstore = {"driver": "ocdbt", "base": base, "path": name + "/"}
  return {"driver": driver, "kvstore": kvstore}


def _pipes(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Mismatch]:
  """List arrays whose folders have pipes; TensorStore would wait for ever.

  Args:
    specs: see `open_leaves`.

  Returns:
    Leaf path -> what is wrong.
  """
  pipes: dict[str, str] = {}  # of folders
  mismatches = {}
  for name, spec in specs.items():
    kvstore = spec["kvstore"]
    store = kvstore.get("base", kvstore)
    if store["driver"] != "file":
      continue
    folder = store["path"]
    if folder not in pipes:
      pipes[folder] = _pipe_in(folder) or _pipe_in(f"{folder}/d")
    if pipes[folder]:
      content = f"{pipes[folder]}, a pipe or a device"
      mismatches[name] = Mismatch(name, "an array in files", content)
  return mismatches


def _pipe_in(folder: str) -> str:
  """Name the first entry of a folder that is a pipe or a device, if any."""
  if not os.path.isdir(folder):
    return ""
  with os.scandir(folder) as entries:
    for entry in entries:
      if os.path.exists(entry) and not (entry.is_file() or entry.is_dir()):
        return entry.name
  return ""


def open_leaves(
  specs: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Leaf], list[Mismatch]]:
  """Open arrays, reading their metadata only.

  Args:
    specs: leaf path -> spec from `directory` or `database`.

  Returns:
    Leaf path -> leaf, and every array that is missing, damaged, or of a dtype
    that no checkpoint holds. A missing chunk gives an error, not zeros: T5X and
    Orbax write every chunk, also one of zeros.
  """
  pipes = _pipes(specs)
  mismatches = list(pipes.values())
  specs = {name: spec for name, spec in specs.items() if name not in pipes}
  context = ts.Context()  # shared, so that a database's index is read once
  strict = {"fill_missing_data_reads": False}
  opening = [
    ts.open({**spec, **strict}, open=True, read=True, context=context)
    for spec in specs.values()
  ]
  leaves: dict[str, Leaf] = {}
  for name, future in zip(specs, opening, strict=True):
    if error := future.exception():
      mismatches.append(Mismatch(name, "an array", describe(error)))
      continue
    store = future.result()
    dtype = dtype_named(store.dtype.name)
    if dtype is None:
      mismatches.append(unsupported(name, store.dtype.name))
    elif problem := _oversized_chunks(store) or _reversed_axes(store):
      mismatches.append(Mismatch(name, "an array", problem))
    else:
      leaves[name] = _leaf(name, dtype, store)
  return leaves, mismatches


def _leaf(name: str, dtype: np.dtype, store: Any) -> Leaf:
  """Wrap an opened store."""
  shape = tuple(store.shape)
  spec = store.spec().to_json()
  metadata = spec.get("metadata", {})
  compressor = metadata.get("compressor") or {}
  if compressor.get("id") == "gzip" and spec["kvstore"]["driver"] == "file":
    separator = metadata.get("dimension_separator", ".")
    folder = spec["kvstore"]["path"]
    return GzipLeaf(name, shape, dtype, store, folder, separator)
  return StoreLeaf(name, shape, dtype, store)


def unsupported(name: str, dtype: str) -> Mismatch:
  """Describe an array of a dtype that no checkpoint holds."""
  hint = ""
  if dtype == "uint16":
    hint = "T5X version 2 stored bfloat16 so; rewrite it with a newer T5X."
  return Mismatch(name, "float32 or bfloat16", f"dtype {dtype}", hint)


def _oversized_chunks(store: Any) -> str:
  """Say what is wrong with a store's chunks, or nothing."""
  if min(store.domain.origin, default=0) != 0:
    return f"an array that starts at {store.domain.origin}"
  itemsize = store.dtype.numpy_dtype.itemsize
  nbytes = math.prod(store.shape) * itemsize
  chunk_bytes = math.prod(store.chunk_layout.read_chunk.shape or ()) * itemsize
  if chunk_bytes > 2 * nbytes + _SLACK_BYTES:
    return f"chunks of {chunk_bytes} bytes for an array of {nbytes}"
  return ""


def _reversed_axes(store: Any) -> str:
  """Say whether the values of a chunk have another order than row by row.

  TensorStore could read such chunks, but neither T5X nor Orbax writes them. So
  such metadata are damaged, and a square kernel would be transposed without
  notice.
  """
  order = list(store.chunk_layout.inner_order or ())
  if order != sorted(order):
    return f"axes in the order {order} (zarr's order F)"
  return ""
