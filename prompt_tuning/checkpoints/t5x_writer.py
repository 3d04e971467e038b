"""Write T5X's native format, so that T5X itself can restore it.

Kernels and embedding tables become zarr folders, as T5X does for partitioned
arrays. Norm scales, relative biases, optimizer statistics of rank below two and
the step go into the msgpack file. Source: t5x/checkpoints.py.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np
import tensorstore as ts

from prompt_tuning.checkpoints import paths, t5x
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  Mismatch,
  parsing,
)
from prompt_tuning.checkpoints.flax_msgpack import CHUNKED, NDARRAY
from prompt_tuning.checkpoints.source import (
  BFLOAT16,
  Leaf,
  is_floating,
)
from prompt_tuning.core import tree

CHUNK_BYTES = 64 * 2**20  # T5X's own
_INLINE_LIMIT = 2**30  # Flax's: one msgpack object stays below 2 GiB
_INLINE_NAMES = ("scale", "rel_embedding")
SAVE_DTYPES = (np.dtype(np.float32), BFLOAT16)


def write_t5x(
  path: str | os.PathLike[str],
  params: Mapping[str, Leaf],
  *,
  step: int = 0,
  dtype: np.dtype | None = None,
  state: Mapping[str, Leaf] | None = None,
  overwrite: paths.Overwrite = False,
) -> None:
  """Write a native T5X checkpoint, one array at a time.

  Args:
    path: the folder to make; T5X wants it called `checkpoint_<step>`.
    params: T5X's path -> leaf, unstacked.
    step: training step.
    dtype: of `target`, float32 or bfloat16; by default each leaf keeps its own.
    state: optimizer state, path below `state/` (`param_states/...`) -> leaf;
      it always keeps its dtype, as in T5X.
    overwrite: whether a native T5X checkpoint may be replaced, or what else.

  Raises:
    CheckpointError: T5X cannot read a leaf back, or the folder cannot be
      written.
  """
  mismatches = [
    Mismatch(name, "floating point", str(leaf))
    for name, leaf in params.items()
    if not is_floating(leaf.dtype)
  ]
  if mismatches:
    raise CheckpointError(path, mismatches)
  if dtype is not None and dtype not in SAVE_DTYPES:
    raise CheckpointError(
      path, [Mismatch("dtype", "float32 or bfloat16", dtype.name)]
    )
  flat: dict[str, Any] = {"state/step": np.asarray(step, np.int32)}
  with paths.replacing(path, overwrite, t5x.is_t5x, t5x.FILE) as folder:
    os.mkdir(folder)
    for name, leaf in params.items():
      saved_as = dtype or leaf.dtype
      flat[f"target/{name}"] = _write(folder, f"target/{name}", leaf, saved_as)
    for name, leaf in (state or {}).items():
      flat[f"state/{name}"] = _write(folder, f"state/{name}", leaf, leaf.dtype)
    # Without optimizer state there is no `param_states`, as in checkpoints that
    # T5X saves for inference; its loader fails on an empty one.
    contents = {"version": t5x.VERSION, "optimizer": tree.unflatten(flat)}
    with open(os.path.join(folder, t5x.FILE), "wb") as file:
      file.write(msgpack.packb(contents, default=pack, strict_types=True))


def _write(folder: str, name: str, leaf: Leaf, dtype: np.dtype) -> Any:
  """Write one leaf, and return what stands for it in the msgpack file."""
  array = leaf.read(dtype)
  if array.ndim < 2 or name.endswith(_INLINE_NAMES):
    return _chunked(array) if array.nbytes > _INLINE_LIMIT else array
  relative = name.replace("/", ".")
  spec: dict[str, Any] = {
    "driver": "zarr",
    "dtype": dtype.name,
    "kvstore": {"driver": "file", "path": relative},
    "metadata": {
      "compressor": {"id": "gzip", "level": 1},
      "shape": list(array.shape),
      "chunks": chunk_shape(array.shape, CHUNK_BYTES // dtype.itemsize),
    },
  }
  # The stored spec is relative, so that the folder can be moved.
  kvstore = {"driver": "file", "path": os.path.join(folder, relative)}
  with parsing(kvstore["path"], "a place to write to"):
    store = ts.open({**spec, "kvstore": kvstore}, create=True).result()
    store.write(array).result()
  return spec


def chunk_shape(shape: Sequence[int], limit: int) -> list[int]:
  """Choose a chunk that divides an array evenly, as T5X does.

  Args:
    shape: of the array.
    limit: most elements in a chunk.

  Returns:
    The chunk. It starts as the whole array; its largest dimension steps down
    through its divisors until the chunk is small enough.
  """
  chunk = [max(size, 1) for size in shape]
  while int(np.prod(chunk, dtype=np.int64)) > max(limit, 1):
    axis = chunk.index(max(chunk))
    chunk[axis] = next(
      d for d in range(chunk[axis] - 1, 0, -1) if shape[axis] % d == 0
    )
  return chunk


def pack(value: Any) -> msgpack.ExtType:
  """Pack an array as Flax does: (shape, dtype name, bytes in C order)."""
  if not isinstance(value, np.ndarray):
    raise TypeError(f"not an array: {type(value).__name__}")
  triple = (value.shape, value.dtype.name, value.tobytes("C"))
  return msgpack.ExtType(NDARRAY, msgpack.packb(triple, use_bin_type=True))


def _chunked(array: np.ndarray) -> dict[str, Any]:
  """Cut an array above msgpack's limits into flat pieces, as Flax does."""
  flat, length = array.reshape(-1), _INLINE_LIMIT // array.dtype.itemsize
  pieces = [flat[i : i + length] for i in range(0, flat.size, length)]
  return {
    CHUNKED: True,
    "shape": {str(i): size for i, size in enumerate(array.shape)},
    "chunks": {str(i): piece for i, piece in enumerate(pieces)},
  }
