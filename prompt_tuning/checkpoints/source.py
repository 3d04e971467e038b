"""The form that every format is read into: named leaves, read lazily.

A reader makes a `Checkpoint` without reading any array. A `Leaf` knows its
shape and dtype, and reads only the box that is needed.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import ml_dtypes
import numpy as np

from prompt_tuning.checkpoints.errors import (
  ABSENT,
  DamagedLeafError,
  Mismatch,
  describe,
)
from prompt_tuning.core.types import Shape

Box = tuple[slice, ...]  # one slice(start, stop) per dimension, no step

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# All dtypes that a checkpoint may have. Not `object`, because that would be a
# pickle. Not uint16: T5X's version 2 stored bfloat16 bits under that name, and
# later readers refuse to guess which of the two it is.
_DTYPES = {
  np.dtype(d).name: np.dtype(d)
  for d in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u4", "u8", "?")
} | {"bfloat16": BFLOAT16}


def dtype_named(name: str) -> np.dtype | None:
  """Look up a dtype that a checkpoint may hold; None for any other.

  Args:
    name: NumPy's name (`float32`), a zarr type string (`<f4`) or `bfloat16`.
      `V2` is bfloat16 too: that is how NumPy files hold it.
  """
  if name in _DTYPES:
    return _DTYPES[name]
  if name.lstrip("|<") == "V2":
    return BFLOAT16
  try:
    parsed = np.dtype(name).newbyteorder("=")
  except (TypeError, ValueError, SyntaxError):
    return None
  return _DTYPES.get(parsed.name)


def is_floating(dtype: np.dtype) -> bool:
  """Say whether a dtype is a floating point one, bfloat16 included."""
  return dtype == BFLOAT16 or np.issubdtype(dtype, np.floating)


def spelled(shape: Sequence[int], dtype: np.dtype) -> str:
  """Write a shape and dtype as in error messages and tables."""
  return f"{dtype.name}[{', '.join(map(str, shape))}]"


def whole(shape: Sequence[int]) -> Box:
  """The box that covers an array."""
  return tuple(slice(0, size) for size in shape)


def box_shape(box: Box) -> Shape:
  """The shape of a box."""
  return tuple(s.stop - s.start for s in box)


@dataclasses.dataclass(frozen=True)
class Leaf(abc.ABC):
  """One array on disk.

  Attributes:
    name: its name in the format, for messages.
    shape: its shape.
    dtype: its dtype on disk.
  """

  name: str
  shape: Shape
  dtype: np.dtype

  @abc.abstractmethod
  def read_into(self, box: Box, out: np.ndarray) -> None:
    """Read a box, converting to the dtype of `out`.

    Args:
      box: inside this leaf's shape.
      out: array of the box's shape, overwritten.

    Raises:
      Exception: any error of the format's library on damaged bytes; the callers
        (`read`, `loading.load`) make it a `CheckpointError`.
    """

  def read(self, dtype: np.dtype | None = None) -> np.ndarray:
    """Read the whole leaf.

    Args:
      dtype: of the result; by default the dtype on disk.

    Returns:
      A new array.

    Raises:
      DamagedLeafError: damaged or missing bytes.
    """
    out = np.empty(self.shape, dtype or self.dtype)
    try:
      self.read_into(whole(self.shape), out)
    except Exception as error:
      mismatch = damaged(self.name, self, error)
      raise DamagedLeafError(self.name, [mismatch]) from error
    return out

  @property
  def size(self) -> int:
    """Number of elements."""
    return math.prod(self.shape)

  @property
  def nbytes(self) -> int:
    """Bytes of the array, uncompressed."""
    return self.size * self.dtype.itemsize

  def __str__(self) -> str:
    return spelled(self.shape, self.dtype)


def all_damage(leaves: Mapping[str, Leaf]) -> list[Mismatch]:
  """Read all leaves and keep none, to list all the damage at once.

  Args:
    leaves: path -> leaf.

  Returns:
    Every leaf whose bytes are damaged or missing, under its path.
  """
  mismatches: list[Mismatch] = []
  for path, leaf in leaves.items():
    try:
      leaf.read()
    except DamagedLeafError as error:
      mismatches += error.named(path)
  return mismatches


def damaged(path: str, leaf: Leaf, error: BaseException) -> Mismatch:
  """Describe a leaf with correct metadata and damaged bytes."""
  if isinstance(error, DamagedLeafError):
    problem = "; ".join(m.found for m in error.mismatches)
  else:
    problem = describe(error)
  return Mismatch(path, f"{leaf}, readable", problem)


@dataclasses.dataclass(frozen=True)
class ArrayLeaf(Leaf):
  """An array in memory, so that writers see arrays and files alike.

  Attributes:
    array: NumPy or JAX array; only the box asked for is copied to the host.
    layer: for a stacked array, the index into its leading axis.
  """

  array: object
  layer: int | None = None

  def read_into(self, box: Box, out: np.ndarray) -> None:
    """See `Leaf.read_into`."""
    index = box if self.layer is None else (self.layer, *box)
    out[...] = np.asarray(self.array[index]).astype(out.dtype)  # type: ignore[index]


@dataclasses.dataclass(frozen=True)
class StackedLeaf(Leaf):
  """Per-layer leaves seen as one array with a leading layer axis.

  Attributes:
    layers: the leaves, layer 0 first, equal in shape.
  """

  layers: tuple[Leaf, ...]

  def read_into(self, box: Box, out: np.ndarray) -> None:
    """See `Leaf.read_into`."""
    for row, layer in enumerate(range(box[0].start, box[0].stop)):
      self.layers[layer].read_into(box[1:], out[row])


@dataclasses.dataclass(frozen=True)
class TransposedLeaf(Leaf):
  """A leaf whose axes are stored in reverse, as torch's `Linear` does.

  Attributes:
    stored: the leaf as it is on disk.
  """

  stored: Leaf

  def read_into(self, box: Box, out: np.ndarray) -> None:
    """See `Leaf.read_into`."""
    self.stored.read_into(box[::-1], out.T)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint, opened: every name, shape and dtype, and no array yet.

  Attributes:
    path: where it is.
    format: `t5x`, `orbax` or `hf`.
    params: T5X's parameter path -> leaf, layers unstacked.
    step: training step, or None where the format has none.
    open_state: opens the optimizer state: path below `state/` -> leaf, empty if
      there is none. Separate, because a model is usable without it.
    config: the format's own description of the model (HF's config.json).
    notes: remarks for the user about how this was read.
    broken: leaves that cannot be opened or contradict each other, a damaged
      step, and settings that contradict the leaves. Kept, so that one error can
      list them with the leaves that do not fit a model.
  """

  path: str
  format: str
  params: Mapping[str, Leaf]
  step: int | None = None
  open_state: Callable[[], Mapping[str, Leaf]] = dict
  config: Mapping[str, object] | None = None
  notes: tuple[str, ...] = ()
  broken: tuple[Mismatch, ...] = ()


def missing(path: str, expected: str, hint: str = "") -> Mismatch:
  """Describe a missing leaf."""
  return Mismatch(path, expected, ABSENT, hint)


def surplus(path: str, found: str, hint: str = "") -> Mismatch:
  """Describe a surplus leaf."""
  return Mismatch(path, ABSENT, found, hint)
