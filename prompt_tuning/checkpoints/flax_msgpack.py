"""Flax's msgpack files, indexed without being read.

`flax.serialization` (and the msgpack library) decode a whole file at once. A
T5X checkpoint may keep every array, optimizer state included, inside one such
file. So this module reads only the headers, notes the offset of each array's
bytes, and reads the bytes later, when an array is needed.

Source: the MessagePack specification, and the extension types and chunked
arrays of flax/serialization.py.
"""

import dataclasses
import math
import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from prompt_tuning.checkpoints.errors import parsing
from prompt_tuning.checkpoints.source import Box, Leaf, dtype_named
from prompt_tuning.core import files

NDARRAY, COMPLEX, NUMPY_SCALAR = 1, 2, 3  # Flax's extension types
CHUNKED = "__msgpack_chunked_array__"

# A T5 XXL with Adafactor state has 4,000 nodes at depth 10. A file with far
# more is not a checkpoint.
_MAX_NODES = 1_000_000
_MAX_DEPTH = 64
_MAX_TEXT = 65_536

_SIZED = {  # type byte -> (struct of the length, what is sized)
  0xC4: (">B", "bin"), 0xC5: (">H", "bin"), 0xC6: (">I", "bin"),
  0xC7: (">B", "ext"), 0xC8: (">H", "ext"), 0xC9: (">I", "ext"),
  0xD9: (">B", "str"), 0xDA: (">H", "str"), 0xDB: (">I", "str"),
  0xDC: (">H", "array"), 0xDD: (">I", "array"),
  0xDE: (">H", "map"), 0xDF: (">I", "map"),
}  # fmt: skip
_NUMBERS = {
  0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
  0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


@dataclasses.dataclass(frozen=True)
class InlineLeaf(Leaf):
  """An array whose bytes lie inside a file, in C order.

  Attributes:
    path: the file.
    pieces: (offset, bytes) of each piece; several only for arrays above 1 GiB,
      which Flax splits.
  """

  path: str
  pieces: tuple[tuple[int, int], ...]

  def read_into(self, box: Box, out: np.ndarray) -> None:
    """See `Leaf.read_into`; reads the leading rows that the box spans."""
    rows = box[0] if box else slice(0, 1)
    row_bytes = self.nbytes // max(self.shape[0], 1) if box else self.nbytes
    if box[1:] == tuple(slice(0, n) for n in self.shape[1:]) and (
      out.dtype == self.dtype and out.flags.c_contiguous
    ):
      flat = out.reshape(-1).view(np.uint8)
      self._read_bytes(rows.start * row_bytes, flat)
      return
    shape = (rows.stop - rows.start, *self.shape[1:]) if box else ()
    full = np.empty(shape, self.dtype)
    self._read_bytes(rows.start * row_bytes, full.reshape(-1).view(np.uint8))
    out[...] = full[(slice(None), *box[1:])] if box else full

  def _read_bytes(self, start: int, out: np.ndarray) -> None:
    """Fill `out` [bytes] with the leaf's bytes from `start` on."""
    with files.open_unbuffered(self.path) as file:
      piece_start, done = 0, 0
      for offset, length in self.pieces:
        skip = start + done - piece_start
        if 0 <= skip < length and done < out.size:
          count = min(length - skip, out.size - done)
          file.seek(offset + skip)
          view = out.data[done : done + count]
          while view.nbytes:
            got = file.readinto(view)
            if not got:
              raise EOFError(f"{self.path} ends within {self.name}")
            view = view[got:]
          done += count
        piece_start += length


def index(path: str | os.PathLike[str]) -> Any:
  """Index a Flax msgpack file.

  Args:
    path: the file.

  Returns:
    Nested dictionaries and lists; an array is an `InlineLeaf`, named by its
    dotted path; anything else is a Python number, string, boolean or None.

  Raises:
    CheckpointError: not such a file, or a damaged one.
  """
  name = os.fspath(path)
  expected = "a msgpack file written by T5X or Flax"
  with parsing(name, expected), files.open_file(name) as file:
    walker = _Walker(name, file)
    tree = walker.node(())
    if file.tell() != walker.end:
      raise ValueError(f"bytes after the end of the tree, at {file.tell()}")
    return tree


class _Walker:
  """Reads the nodes of one file in order, without the bytes of its arrays."""

  def __init__(self, path: str, file: BinaryIO):
    self.path = path
    self.file = file
    self.end = files.size_of(file)
    self.nodes = 0

  def node(self, path: tuple[str, ...]) -> Any:
    """Read one node at the tree path `path`."""
    self.nodes += 1
    if self.nodes > _MAX_NODES or len(path) > _MAX_DEPTH:
      raise ValueError(f"more than {_MAX_NODES} nodes or {_MAX_DEPTH} levels")
    kind, value = self.header()
    match kind:
      case "value":
        return value
      case "str":
        return self.text(value)
      case "ext":
        return self.extension(value, path)
      case "map":
        return self.map(value, path)
      case "array":
        return [self.node((*path, str(i))) for i in range(value)]
    raise ValueError(f"{kind} at {'/'.join(path)!r}")

  def header(self) -> tuple[str, Any]:
    """Read a type byte, and the number or the length that follows it."""
    byte = self.take(1)[0]
    if byte <= 0x7F:
      return "value", byte
    if byte >= 0xE0:
      return "value", byte - 0x100
    if byte <= 0x8F:
      return "map", byte & 0x0F
    if byte <= 0x9F:
      return "array", byte & 0x0F
    if byte <= 0xBF:
      return "str", byte & 0x1F
    if byte in _CONSTANTS:
      return "value", _CONSTANTS[byte]
    if byte in _NUMBERS:
      return "value", self.number(_NUMBERS[byte])
    if 0xD4 <= byte <= 0xD8:
      return "ext", 1 << (byte - 0xD4)
    if byte not in _SIZED:
      raise ValueError(f"type byte {byte:#x} at {self.file.tell() - 1}")
    form, kind = _SIZED[byte]
    return kind, self.number(form)

  def number(self, form: str) -> Any:
    """Read one number of a `struct` format."""
    return struct.unpack(form, self.take(struct.calcsize(form)))[0]

  def take(self, count: int) -> bytes:
    """Read exactly `count` bytes."""
    if count > self.end - self.file.tell():
      raise EOFError(f"truncated: {count} bytes wanted at {self.file.tell()}")
    return self.file.read(count)

  def text(self, count: int) -> str:
    """Read a string of `count` bytes."""
    if count > _MAX_TEXT:
      raise ValueError(f"a string of {count} bytes")
    return self.take(count).decode("utf-8")

  def map(self, count: int, path: tuple[str, ...]) -> Any:
    """Read a map, or the array that a chunked one stands for."""
    mapping: dict[str, Any] = {}
    for _ in range(count):
      kind, value = self.header()
      if kind != "str":
        raise ValueError(f"a key that is not a string below {'/'.join(path)!r}")
      key = self.text(value)
      if key in mapping:
        raise ValueError(f"{'/'.join((*path, key))!r} occurs twice")
      mapping[key] = self.node((*path, key))
    return self.unchunk(mapping, path) if CHUNKED in mapping else mapping

  def extension(self, count: int, path: tuple[str, ...]) -> Any:
    """Read one of Flax's extension types, of `count` bytes."""
    code = self.number(">b")
    end = self.file.tell() + count
    if code == COMPLEX:
      raise ValueError(f"a complex number at {'/'.join(path)!r}")
    if code not in (NDARRAY, NUMPY_SCALAR):
      raise ValueError(f"extension type {code} at {'/'.join(path)!r}")
    leaf = self.array(path)
    if self.file.tell() != end:
      raise ValueError(f"{'/'.join(path)!r} does not fill its {count} bytes")
    return leaf

  def array(self, path: tuple[str, ...]) -> InlineLeaf:
    """Read an array's (shape, dtype, bytes), stepping over the bytes."""
    name = ".".join(path)
    if self.header() != ("array", 3):
      raise ValueError(f"{name!r} is not a triple (shape, dtype, bytes)")
    shape = self.shape(name)
    kind, length = self.header()
    label = self.text(length) if kind in ("str", "bin") else ""
    dtype = dtype_named(label)
    if dtype is None:
      raise ValueError(f"{name!r} has the unsupported dtype {label!r}")
    kind, length = self.header()
    wanted = math.prod(shape) * dtype.itemsize
    if kind not in ("str", "bin") or length != wanted:
      raise ValueError(f"{name!r} has {length} bytes, its shape {wanted}")
    offset = self.file.tell()
    if length > self.end - offset:
      raise EOFError(f"truncated within {name!r}")
    self.file.seek(length, os.SEEK_CUR)
    return InlineLeaf(name, shape, dtype, self.path, ((offset, length),))

  def shape(self, name: str) -> tuple[int, ...]:
    """Read a shape."""
    kind, rank = self.header()
    if kind != "array" or rank > 16:
      raise ValueError(f"{name!r} has no shape")
    sizes = tuple(self.header() for _ in range(rank))
    if any(k != "value" or type(n) is not int or n < 0 for k, n in sizes):
      raise ValueError(f"{name!r} has the shape {sizes}")
    return tuple(n for _, n in sizes)

  def unchunk(self, mapping: Mapping[str, Any], path: tuple[str, ...]) -> Leaf:
    """Join the flat pieces of an array above Flax's 1 GiB limit."""
    name = ".".join(path)
    sizes = _counted(mapping.get("shape"))
    leaves = _counted(mapping.get("chunks"))
    if not leaves or not all(isinstance(x, InlineLeaf) for x in leaves):
      raise ValueError(f"{name!r} has chunks that are not arrays")
    if any(type(n) is not int or n < 0 for n in sizes):
      raise ValueError(f"{name!r} has the shape {sizes}")
    dtype = leaves[0].dtype
    if {x.dtype for x in leaves} != {dtype} or (
      sum(x.size for x in leaves) != math.prod(sizes)
    ):
      raise ValueError(f"the chunks of {name!r} do not make up {sizes}")
    pieces = tuple(piece for x in leaves for piece in x.pieces)
    return InlineLeaf(name, sizes, dtype, self.path, pieces)


def _counted(node: Any) -> tuple[Any, ...]:
  """Read a tuple that Flax wrote as {"0": ..., "1": ...}."""
  if not isinstance(node, dict):
    return ()
  return tuple(node.get(str(i)) for i in range(len(node)))
