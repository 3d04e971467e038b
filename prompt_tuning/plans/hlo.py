"""A compiled program's text as computations, instructions and shapes.

XLA writes its programs in one textual form for every device. This module reads
the parts that `compiled_cost` counts.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([^\s(]+) .*\{$")
_BITS = re.compile(r"[a-z]+(\d+)")
_NAME = re.compile(r"%([^\s,()]+)")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_ORDER = re.compile(r"\[([\d,]+)\]T\(([\d,]+)\)")


@dataclasses.dataclass(frozen=True)
class Array:
  """An array's type.

  Attributes:
    dtype: such as `bf16`.
    shape: its dimensions.
  """

  dtype: str
  shape: tuple[int, ...]

  @property
  def nbytes(self) -> float:
    """Bytes, without the padding of its layout."""
    bits = _BITS.match(self.dtype)
    width = 8 if bits is None else int(bits[1])
    return math.prod(self.shape) * width / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction.

  Attributes:
    name: unique within its computation.
    opcode: such as `convolution`.
    arrays: its result; several if the result is a tuple.
    operands: names of the instructions that it reads.
    literal: all of the text between its parentheses; a constant's value.
    attributes: the rest of its line.
    is_root: whether it is the result of its computation.
  """

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  literal: str
  attributes: str
  is_root: bool

  def attribute(self, name: str) -> str | None:
    """Return an attribute's text up to the next comma or blank."""
    match = re.search(rf"\b{name}=([^,\s]+)", self.attributes)
    return match[1] if match else None

  def called(self, name: str) -> str | None:
    """Return the computation that an attribute names."""
    match = self.attribute(name)
    return match.removeprefix("%") if match else None


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True)
class HloProgram:
  """A compiled program.

  Attributes:
    entry: name of the computation that runs.
    computations: name -> its instructions by name.
  """

  entry: str
  computations: Mapping[str, Computation]


def parse(text: str) -> HloProgram:
  """Read a program.

  Args:
    text: `compiled.as_text()`.

  Returns:
    The program.

  Raises:
    ValueError: the text has no program.
  """
  computations: dict[str, dict[str, Instruction]] = {}
  entry, current = None, None
  for line in text.splitlines():
    if not line.startswith((" ", "}")):
      header = _HEADER.match(line)
      if header and not line.startswith("HloModule"):
        current = computations.setdefault(header[2], {})
        entry = header[2] if header[1] else entry
    elif current is not None and " = " in line:
      instruction = _instruction(line)
      current[instruction.name] = instruction
  if entry is None:
    raise ValueError(
      "This is not a program as XLA writes it: no line starts with ENTRY."
    )
  return HloProgram(entry, computations)


def _instruction(line: str) -> Instruction:
  left, _, right = line.strip().partition(" = ")
  end = _closing(right) + 1 if right.startswith("(") else right.index(" ")
  opcode, _, rest = right[end:].strip().partition("(")
  close = _closing("(" + rest) - 1
  return Instruction(
    name=left.removeprefix("ROOT ").removeprefix("%"),
    opcode=opcode,
    arrays=arrays(right[:end]),
    operands=tuple(_NAME.findall(rest[:close])),
    literal=rest[:close],
    attributes=rest[close:],
    is_root=left.startswith("ROOT "),
  )


def _closing(text: str) -> int:
  """Find the parenthesis that closes the first one."""
  depth = 0
  for position, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if depth == 0:
      return position
  return len(text)


def arrays(text: str) -> tuple[Array, ...]:
  """Read the arrays of a type; a tuple has several."""
  return tuple(
    Array(dtype, tuple(int(n.lstrip("<=")) for n in shape.split(",") if n))
    for dtype, shape in _ARRAY.findall(text)
  )


def replica_groups(attributes: str, count: int) -> list[list[int]]:
  """Read which devices take part in a collective together.

  Args:
    attributes: of the instruction.
    count: devices of the program.

  Returns:
    Groups of positions in the mesh; one of all devices if it names none.

  Raises:
    ValueError: the text has an unknown form.
  """
  written = re.search(r"replica_groups=(.*?)(?:, [a-z_]+=[^\[(]|$)", attributes)
  text = written[1] if written else "{}"
  if text.startswith("mesh["):
    return _mesh_groups(attributes[attributes.index("mesh[") :])
  if text.startswith("["):
    iota = _IOTA.match(text)
    if iota is not None:
      sizes, dims, order = (_numbers(part) for part in iota.groups())
      ids = np.arange(math.prod(dims)).reshape(dims)
      return ids.transpose(order or None).reshape(sizes).tolist()
  groups = [_numbers(part) for part in re.findall(r"\{([\d,]+)\}", text)]
  if groups:
    return groups
  if text.startswith("{}"):
    return [list(range(count))]
  raise ValueError(f"Unknown way to write the devices of a collective: {text}")


def _mesh_groups(text: str) -> list[list[int]]:
  """Read `mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b'}`."""
  sizes = {n: int(s) for n, s in re.findall(r"'(\w+)'=(\d+)", text)}
  over = re.search(r"\{('\w+'(?:,\s*'\w+')*)\}", text)
  if over is None:
    raise ValueError(
      f"Unknown way to write the devices of a collective: {text}"
    )
  names = re.findall(r"'(\w+)'", over[1])
  ids = np.arange(math.prod(sizes.values()))
  order = _ORDER.search(text[: over.start()])
  if order is not None:
    dims, axes = _numbers(order[1]), _numbers(order[2])
    ids = ids.reshape(dims).transpose(axes)
  ids = ids.reshape(list(sizes.values()))
  together = [list(sizes).index(name) for name in names]
  others = [axis for axis in range(ids.ndim) if axis not in together]
  size = math.prod(sizes[name] for name in names)
  return ids.transpose(others + together).reshape(-1, size).tolist()


def _numbers(text: str | None) -> list[int]:
  return [int(n) for n in (text or "").split(",") if n]
