"""The work of one chip in a compiled program, counted from its text.

XLA's own cost analysis counts the body of a loop once, so a model with scanned
layers seems to have one layer. This module counts a body as often as it runs.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from prompt_tuning.plans import hlo
from prompt_tuning.plans.hlo import Computation, HloProgram, Instruction

ALL_REDUCE, ALL_GATHER = "all-reduce", "all-gather"
REDUCE_SCATTER, ALL_TO_ALL = "reduce-scatter", "all-to-all"
PERMUTE = "collective-permute"
KINDS = (ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, ALL_TO_ALL, PERMUTE)
REDUCTIONS = (ALL_REDUCE, REDUCE_SCATTER)
# The operations of a TPU's program that send an array to other slices.
_NETWORK = "xla_megascale_runtime"
# The name of the branch that does nothing, of a conditional in a TPU's loop.
_NO_OP = "last_iteration_noop"


@dataclasses.dataclass(frozen=True)
class Collective:
  """One exchange between chips.

  Attributes:
    kind: one of `KINDS`.
    nbytes: bytes on one chip of the array that is reduced, gathered or sent.
    groups: positions in the mesh that exchange with each other.
    times: how often a step does it.
    source: where in the model it comes from, as JAX names it.
  """

  kind: str
  nbytes: float
  groups: tuple[tuple[int, ...], ...]
  times: int
  source: str

  @property
  def sent(self) -> float:
    """Least number of bytes that a chip must send, over all times."""
    ways = max(map(len, self.groups))
    share = {ALL_REDUCE: 2 * (ways - 1) / ways, PERMUTE: 1.0}
    return self.times * self.nbytes * share.get(self.kind, (ways - 1) / ways)

  def crosses(self, axis: int, mesh_shape: Sequence[int]) -> bool:
    """Say whether chips at different places of a mesh axis take part."""
    for group in self.groups:
      positions = np.unravel_index(group, tuple(mesh_shape))[axis]
      if len(set(positions.tolist())) > 1:
        return True
    return False


@dataclasses.dataclass(frozen=True)
class Cost:
  """The work of one chip in a step.

  Attributes:
    flops: operations of the chip's matrix products.
    collectives: exchanges with other chips.
    unknown_loops: loops of unknown length, counted once.
    to_slices: bytes that the chip sends over the network between slices.
  """

  flops: float
  collectives: tuple[Collective, ...]
  unknown_loops: int
  to_slices: float = 0.0

  def by_kind(self) -> dict[str, tuple[int, float]]:
    """Add up collectives: kind -> (how many, their bytes)."""
    totals: dict[str, tuple[int, float]] = {}
    for one in self.collectives:
      count, nbytes = totals.get(one.kind, (0, 0.0))
      totals[one.kind] = (count + one.times, nbytes + one.times * one.nbytes)
    return totals


def read(text: str, count: int) -> Cost:
  """Count the work of a program on one chip.

  Args:
    text: of the program, `compiled.as_text()`.
    count: chips that its collectives name: those of one slice, because a TPU
      program sends data to other slices as a message to the host.

  Returns:
    Its cost.

  Raises:
    ValueError: the text is not a program, or has an unknown collective.
  """
  program = hlo.parse(text)
  times, unknown = _times(program)
  flops = to_slices = 0.0
  collectives: dict[str, Collective] = {}
  for name, repeats in times.items():
    computation = program.computations[name]
    for instruction in computation.values():
      if instruction.opcode in ("convolution", "dot"):
        flops += repeats * product_flops(instruction, computation)
      if instruction.opcode == "send" and _NETWORK in instruction.attributes:
        to_slices += repeats * instruction.arrays[0].nbytes
      kind = instruction.opcode.removesuffix("-start")
      if kind not in KINDS:
        continue
      # An instruction that runs beside other work appears several times, for
      # its start and its end: count the first.
      channel = instruction.attribute("channel_id") or instruction.name
      if channel not in collectives:
        collectives[channel] = _collective(
          kind, instruction, name, repeats, count
        )
  return Cost(
    flops,
    tuple(c for c in collectives.values() if c.times and c.nbytes),
    unknown,
    to_slices,
  )


def _times(program: HloProgram) -> tuple[dict[str, int], int]:
  """Count how often every computation runs, and the loops of unknown length."""
  times: dict[str, int] = collections.Counter()
  calls: dict[str, list[_Call]] = collections.defaultdict(list)
  unknown = 0
  for name, computation in program.computations.items():
    for instruction in computation.values():
      calls[name] += _calls(instruction, program)
      is_loop = instruction.opcode == "while"
      unknown += is_loop and _trip_count(instruction, program) is None

  def visit(name: str, repeats: int, loops: int) -> None:
    """Add a computation's runs, `loops` of them the last of their loop."""
    times[name] += repeats
    for call in calls[name]:
      runs = repeats - loops if call.but_last else repeats
      inner = runs if call.trips else loops
      visit(call.name, runs * (call.trips or 1), inner)

  visit(program.entry, 1, 0)
  return dict(times), unknown


class _Call(NamedTuple):
  """A computation that an instruction runs.

  Attributes:
    name: its name.
    trips: how often a loop runs it; None where the instruction is none.
    but_last: whether the last time around the loop leaves it out.
  """

  name: str
  trips: int | None = None
  but_last: bool = False


def _calls(instruction: Instruction, program: HloProgram) -> Iterator[_Call]:
  """List the computations that an instruction runs, without reducers.

  All branches of a conditional count as if they ran. The exception is a
  conditional at the end of a TPU's loop: in its last pass there is no next part
  to send for.
  """
  body = instruction.called("body")
  if body:
    yield _Call(body, _trip_count(instruction, program) or 1)
  names = ["calls", "true_computation", "false_computation"]
  if instruction.opcode in ("call", "async-start"):
    names.append("to_apply")
  but_last = _NO_OP in instruction.attributes
  for name in names:
    called = instruction.called(name)
    if called:
      yield _Call(called, but_last=but_last)
  branches = re.search(
    r"branch_computations=\{([^}]*)\}", instruction.attributes
  )
  if branches:
    for name in re.findall(r"%([^\s,]+)", branches[1]):
      yield _Call(name, but_last=but_last)


def _trip_count(loop: Instruction, program: HloProgram) -> int | None:
  """Find how often a loop runs: by a note, or a comparison with a constant.

  Loops of JAX and XLA count from 0.
  """
  noted = re.search(r'known_trip_count":?\{"?n"?:"?(\d+)', loop.attributes)
  if noted:
    return int(noted[1])
  condition = program.computations.get(loop.called("condition") or "", {})
  root = next((i for i in condition.values() if i.is_root), None)
  if root is None or root.attribute("direction") != "LT":
    return None
  limit = condition.get(root.operands[-1])
  if limit is None or not limit.literal.isdigit():
    return None
  body = program.computations.get(loop.called("body") or "", {})
  counter = condition.get(root.operands[0])
  return math.ceil(int(limit.literal) / _stride(counter, body))


def _stride(counter: Instruction | None, body: Computation) -> int:
  """Find by how much a loop's counter grows each time.

  In JAX's loops it is 1. It is more where XLA unrolls a loop, such as one that
  multiplies parts of a kernel while the next parts arrive.
  """
  index = None if counter is None else counter.attribute("index")
  root = next((i for i in body.values() if i.is_root), None)
  if index is None or root is None or root.opcode != "tuple":
    return 1
  grown = body.get(root.operands[int(index)])
  if grown is None or grown.opcode != "add":
    return 1
  added = (body[name].literal for name in grown.operands if name in body)
  return next((int(text) for text in added if text.isdigit()), 1)


def product_flops(instruction: Instruction, computation: Computation) -> float:
  """Count the operations of a matrix product.

  Args:
    instruction: a `dot` or a `convolution`, as TPUs write products.
    computation: the computation with its operands.

  Returns:
    Two for every multiplication of two real elements. A convolution may stand
    for a batch by padding; products with that padding do not count.
  """
  result = instruction.arrays[0].shape
  left, right = (
    computation[name].arrays[0].shape for name in instruction.operands[:2]
  )
  if instruction.opcode == "dot":
    dims = re.search(
      r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes
    )
    summed = [int(n) for n in dims[1].split(",") if n] if dims else []
    return 2.0 * math.prod(result) * math.prod(left[n] for n in summed)
  lhs, kernel, out = re.split(
    r"_|->", instruction.attribute("dim_labels") or ""
  )
  spatial = [label for label in out if label.isdigit()]
  window = _window(instruction.attributes)
  total = 2.0 * result[out.index("b")] * result[out.index("f")]
  total *= right[kernel.index("i")]
  for label in spatial:
    total *= _valid(
      left[lhs.index(label)],
      result[out.index(label)],
      {name: values[int(label)] for name, values in window.items()},
    )
  return total


def _window(attributes: str) -> dict[str, list[str]]:
  """Read `window={size=16x4 stride=15x1 ...}`: name -> one per dimension."""
  match = re.search(r"window=\{([^}]*)\}", attributes)
  fields = (match[1] if match else "").split()
  pairs = (field.split("=") for field in fields)
  return {name: values.split("x") for name, values in pairs}


def _valid(size: int, results: int, window: dict[str, str]) -> int:
  """Count (result, kernel) positions of one dimension that meet an element."""
  stride, base, dilation = (
    int(window.get(name, 1)) for name in ("stride", "lhs_dilate", "rhs_dilate")
  )
  low = int(window.get("pad", "0_0").split("_")[0])
  at = (
    np.arange(results)[:, None] * stride
    + np.arange(int(window.get("size", 1)))[None] * dilation
    - low
  )
  meets = (at >= 0) & (at % base == 0) & (at // base < size)
  return int(np.count_nonzero(meets))


def _collective(
  kind: str,
  instruction: Instruction,
  name: str,
  times: int,
  count: int,
) -> Collective:
  """Describe a collective in the computation of a name."""
  arrays = instruction.arrays
  if instruction.opcode.endswith("-start") and kind in (ALL_GATHER, PERMUTE):
    # The parts of the tuple: sent, received, tokens.
    several = len(instruction.operands)
    arrays = arrays[several : 2 * several]
  nbytes = sum(array.nbytes for array in arrays)
  if kind == PERMUTE:
    groups: list[list[int]] = [
      [int(n) for n in pair.split(",")]
      for pair in re.findall(r"\{(\d+,\d+)\}", instruction.attributes)
    ]
  else:
    groups = hlo.replica_groups(instruction.attributes, count)
  if kind == REDUCE_SCATTER:
    nbytes *= max(map(len, groups))
  if kind == ALL_REDUCE and REDUCE_SCATTER in name:
    kind = REDUCE_SCATTER  # a TPU reduces and scatters in one step
  source = re.search(r'op_name="([^"]*)"', instruction.attributes)
  return Collective(
    kind,
    nbytes if any(len(group) > 1 for group in groups) else 0.0,
    tuple(tuple(group) for group in groups),
    times,
    source[1] if source else "",
  )
