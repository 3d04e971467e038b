"""TPU chips and slices: the rates and sizes that plans use."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

from prompt_tuning.core import tree

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One generation of TPU; numbers are per chip.

  Attributes:
    flops: peak bfloat16 operations per second.
    memory: bytes of HBM that the compiler lets a program use, somewhat fewer
      than the chip has.
    memory_bandwidth: bytes per second from and to HBM.
    link_bandwidth: bytes per second that it can send to its neighbours, over
      all its links together.
    network_bandwidth: bytes per second that it can send to other slices, its
      share of the data center's network; infinite where no document says.
    dimensions: dimensions of the torus that links the chips.
    dollars: list price of an hour, on demand, in the United States in 2025.
      Prices change: give today's by `prompt-tuning plan --price`.
    source: source of the rates.
  """

  flops: float
  memory: float
  memory_bandwidth: float
  link_bandwidth: float
  network_bandwidth: float
  dimensions: int
  dollars: float
  source: str


_DOCS = "https://docs.cloud.google.com/tpu/docs/"

# Memory is the number that libtpu 0.0.42.1 reports when a program does not fit.
# Link rates are for sending: half of the documents' "bidirectional" ones. The
# network's are a pod's, of 256 chips (v5e 6.4 Tbit/s, v6e 25.6), or a chip's
# (v5p 50 Gbit/s).
CHIPS: Mapping[str, Chip] = {
  "v4": Chip(
    *(275e12, 30.75 * GIB, 1200e9, 300e9, math.inf, 3, 3.22),
    _DOCS + "v4; links: Jouppi et al. 2023, TPU v4, table 4 (six of 50 GB/s)",
  ),
  "v5e": Chip(
    197e12, 15.75 * GIB, 819e9, 200e9, 3.125e9, 2, 1.20, _DOCS + "v5e"
  ),
  "v5p": Chip(
    459e12, 95.74 * GIB, 2765e9, 600e9, 6.25e9, 3, 4.20, _DOCS + "v5p"
  ),
  "v6e": Chip(
    918e12, 31.25 * GIB, 1638e9, 400e9, 12.5e9, 2, 2.70, _DOCS + "v6e"
  ),
}

# Shapes of slices, from one chip on, each twice as large as the one before.
_SHAPES: Mapping[int, tuple[str, ...]] = {
  2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
  3: ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8"),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """Some chips of one generation, linked as a grid, or several such grids.

  Attributes:
    generation: a key of `CHIPS`.
    shape: chips along each dimension of one grid.
    copies: number of grids; the data center's network joins them.
  """

  generation: str
  shape: tuple[int, ...]
  copies: int = 1

  @property
  def chip(self) -> Chip:
    """One of its chips."""
    return CHIPS[self.generation]

  @property
  def linked(self) -> int:
    """Number of chips of one grid."""
    return math.prod(self.shape)

  @property
  def count(self) -> int:
    """Number of chips."""
    return self.linked * self.copies

  def __str__(self) -> str:
    return f"{self.generation}:{'x'.join(map(str, self.shape))}"


def parse(text: str) -> Slice:
  """Read a slice as `v5e:4x4` or `v5p:2x2x1`.

  Args:
    text: generation and shape.

  Returns:
    The slice.

  Raises:
    ValueError: an unknown generation, or a wrong number of dimensions.
  """
  generation, _, shape = text.strip().partition(":")
  if generation not in CHIPS:
    raise ValueError(
      f"--topology {text!r}: unknown TPU {generation!r}."
      f"{tree.nearest(generation, CHIPS)} Known: {', '.join(CHIPS)}."
    )
  dimensions = CHIPS[generation].dimensions
  if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or (
    shape.count("x") != dimensions - 1
  ):
    example = "x".join(["4"] * dimensions)
    raise ValueError(
      f"--topology {text!r}: expected the chips along {dimensions} dimensions, "
      f"such as {generation}:{example}."
    )
  return Slice(generation, tuple(map(int, shape.split("x"))))


def slices(generation: str) -> list[Slice]:
  """List the usual slices of a generation, the smallest first.

  Args:
    generation: a key of `CHIPS`.

  Returns:
    From one chip to 128 or 256.
  """
  shapes = _SHAPES[CHIPS[generation].dimensions]
  return [parse(f"{generation}:{shape}") for shape in shapes]


def prices(texts: Iterable[str]) -> dict[str, float]:
  """Read the price of an hour of a chip.

  Args:
    texts: such as `v5e=1.2`, in dollars or any other money.

  Returns:
    Generation -> price; the list price if `texts` leave a generation out.

  Raises:
    ValueError: an unknown generation, or a price that is not positive.
  """
  found = {name: chip.dollars for name, chip in CHIPS.items()}
  for text in texts:
    generation, _, number = text.partition("=")
    if generation not in CHIPS or not re.fullmatch(r"\d*\.?\d+", number):
      raise ValueError(
        f"--price {text!r}: expected a TPU and what an hour of one chip costs, "
        f"such as v5e=1.2. Known: {', '.join(CHIPS)}."
      )
    found[generation] = float(number)
  return found
