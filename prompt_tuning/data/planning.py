"""Plans that divide examples into batches: fixed, longest, buckets, packed.

A planner turns a window of consecutive examples of the shuffled order into
whole batches. A plan depends only on the window's examples and index, so that
it can be made again at any time. This makes the pipeline restorable.

The order of a window's batches depends on the window's index, not on the seed.
So runs of one task with different seeds have batches of the same length at the
same steps, and a bank of such runs needs hardly more padding than each run
alone.
"""

import dataclasses
from typing import Protocol

import numpy as np

from prompt_tuning.data import buckets, packing
from prompt_tuning.data.assembly import ExamplePlaces, one_per_row
from prompt_tuning.data.permutation import permutation
from prompt_tuning.data.ragged import ranges

Shape = tuple[int, int, int]
BATCHINGS = ("fixed", "longest", "buckets", "packed")
# Lengths are rounded up to this if that costs little.
MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Positions of each example, virtual tokens included, and their limits.

  Attributes:
    encoder: [examples] int64.
    decoder: [examples] int64.
    encoder_limit: no example is longer; T of fixed batches.
    decoder_limit: the same for the decoder; S of fixed batches.
    groups: [examples] integers; examples of different groups never share a row.
      None for one group.
  """

  encoder: np.ndarray
  decoder: np.ndarray
  encoder_limit: int
  decoder_limit: int
  groups: np.ndarray | None = None


class Planner(Protocol):
  """Makes the batches of one window."""

  @property
  def shapes(self) -> tuple[Shape, ...] | None:
    """Every (B, T, S) that can occur, or None if unknown in advance."""

  def shape_of(self, examples: np.ndarray) -> Shape:
    """Return the shape of a batch of these examples, [n <= B]."""

  def __call__(
    self, examples: np.ndarray, window: int, carried: int
  ) -> tuple[list[ExamplePlaces], np.ndarray]:
    """Plan.

    Args:
      examples: [n] example numbers in order.
      window: the window's number.
      carried: that many leading examples were left over by the last window.

    Returns:
      The batches in order, and the examples left for the next window.
    """


@dataclasses.dataclass(frozen=True)
class Fixed:
  """The shape of every batch is the limits, as in T5X."""

  batch_size: int
  lengths: Lengths

  @property
  def shapes(self) -> tuple[Shape, ...]:
    """The one shape."""
    return (self.shape_of(np.zeros(0)),)

  def shape_of(self, examples: np.ndarray) -> Shape:
    """Return the limits."""
    del examples
    lengths = self.lengths
    return self.batch_size, lengths.encoder_limit, lengths.decoder_limit

  def __call__(
    self, examples: np.ndarray, window: int, carried: int
  ) -> tuple[list[ExamplePlaces], np.ndarray]:
    """Cut the window in its order."""
    del window, carried
    return _in_order(self, examples, self.batch_size), examples[:0]


@dataclasses.dataclass(frozen=True)
class Longest:
  """Every batch is as long as its longest example: many shapes."""

  batch_size: int
  lengths: Lengths

  @property
  def shapes(self) -> None:
    """Unknown in advance."""

  def shape_of(self, examples: np.ndarray) -> Shape:
    """Return the longest example's lengths, the encoder's rounded up."""
    longest = int(self.lengths.encoder[examples].max())
    S = int(self.lengths.decoder[examples].max())
    return self.batch_size, buckets.round_up(longest, MULTIPLE), S

  def __call__(
    self, examples: np.ndarray, window: int, carried: int
  ) -> tuple[list[ExamplePlaces], np.ndarray]:
    """Cut the window in its order."""
    del window, carried
    return _in_order(self, examples, self.batch_size), examples[:0]


@dataclasses.dataclass(frozen=True)
class Buckets:
  """Batches of similar encoder length, in few shapes.

  Attributes:
    batch_size: B.
    lengths: lengths of the examples.
    boundaries: the encoder lengths; the decoder length is that of the longest
      target.
  """

  batch_size: int
  lengths: Lengths
  boundaries: tuple[int, ...]

  @property
  def shapes(self) -> tuple[Shape, ...]:
    """One shape per boundary."""
    S = int(self.lengths.decoder.max())
    return tuple((self.batch_size, T, S) for T in self.boundaries)

  def shape_of(self, examples: np.ndarray) -> Shape:
    """Return the smallest shape that holds all of them."""
    longest = self.lengths.encoder[examples].max()
    return next(shape for shape in self.shapes if shape[1] >= longest)

  def __call__(
    self, examples: np.ndarray, window: int, carried: int
  ) -> tuple[list[ExamplePlaces], np.ndarray]:
    """Cut the window by length."""
    del carried
    by_length = dict(zip(self.boundaries, self.shapes, strict=True))
    lengths = self.lengths.encoder[examples]
    batches = [
      one_per_row(examples[positions], by_length[T])
      for T, positions in buckets.cut(lengths, self.boundaries, self.batch_size)
    ]
    emitted = permutation(len(batches), window)
    return [batches[i] for i in emitted], examples[:0]


@dataclasses.dataclass(frozen=True)
class Packed:
  """Several examples per row, rows of one length.

  If the rows do not fill the last batch, the emptiest ones move to the next
  window, where their examples come first.

  Attributes:
    batch_size: B, rows per batch.
    lengths: lengths of the examples.
    size: (T, S) of a row.
  """

  batch_size: int
  lengths: Lengths
  size: tuple[int, int]

  @property
  def shapes(self) -> tuple[Shape, ...]:
    """The one shape."""
    return ((self.batch_size, *self.size),)

  def shape_of(self, examples: np.ndarray) -> Shape:
    """Return the one shape."""
    del examples
    return self.shapes[0]

  def __call__(
    self, examples: np.ndarray, window: int, carried: int
  ) -> tuple[list[ExamplePlaces], np.ndarray]:
    """Pack the window and whatever the last one left."""
    lengths = self.lengths
    rows = packing.best_fit(
      lengths.encoder[examples],
      lengths.decoder[examples],
      *self.size,
      None if lengths.groups is None else lengths.groups[examples],
    )
    # Put surplus rows last: the emptiest ones without carried examples.
    waited = [min(members) < carried for members in rows.members]
    by_merit = np.lexsort((-rows.encoder_used, np.logical_not(waited)))
    count = len(by_merit) // self.batch_size * self.batch_size
    order = by_merit[permutation(count, window)] if count else by_merit[:0]
    batches = [
      self._places(examples, [rows.members[row] for row in group])
      for group in order.reshape(-1, self.batch_size)
    ]
    left = [i for row in by_merit[count:] for i in rows.members[row]]
    return batches, examples[np.sort(np.asarray(left, np.int64))]

  def _places(
    self, examples: np.ndarray, rows: list[list[int]]
  ) -> ExamplePlaces:
    sizes = np.asarray([len(row) for row in rows])
    members = examples[np.concatenate(rows)]
    encoder_starts, decoder_starts = (
      _starts(lengths[members], sizes)
      for lengths in (self.lengths.encoder, self.lengths.decoder)
    )
    return ExamplePlaces(
      self.shapes[0],
      members,
      np.repeat(np.arange(len(rows)), sizes),
      encoder_starts,
      decoder_starts,
      ranges(sizes) + 1,
    )


def _check_fits(lengths: Lengths, size: tuple[int, int]) -> None:
  longest = int(lengths.encoder.max()), int(lengths.decoder.max())
  if longest[0] > size[0] or longest[1] > size[1]:
    raise ValueError(
      f"Packed rows of {size[0]} encoder and {size[1]} decoder positions "
      f"cannot hold examples of up to {longest[0]} and {longest[1]}; raise "
      "PACKED_LENGTHS, or make examples shorter."
    )


def _in_order(
  planner: Planner, examples: np.ndarray, batch_size: int
) -> list[ExamplePlaces]:
  rows = examples.reshape(-1, batch_size)
  return [one_per_row(row, planner.shape_of(row)) for row in rows]


def _starts(lengths: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """Place segments one after another within rows of `sizes` segments each."""
  before = np.cumsum(lengths) - lengths
  row_starts = before[np.cumsum(sizes) - sizes]
  return before - np.repeat(row_starts, sizes)


def make_planner(
  batching: str,
  batch_size: int,
  lengths: Lengths,
  max_shapes: int,
  packed_size: tuple[int, int] | None = None,
) -> Planner:
  """Choose a planner, and its shapes from the lengths.

  Args:
    batching: one of `BATCHINGS`.
    batch_size: B.
    lengths: lengths of every example.
    max_shapes: maximum number of buckets.
    packed_size: (T, S) of packed rows; None chooses it from the lengths.

  Returns:
    The planner.

  Raises:
    ValueError: an unknown batching.
  """
  if batching == "fixed":
    return Fixed(batch_size, lengths)
  if batching == "longest":
    return Longest(batch_size, lengths)
  if batching == "buckets":
    boundaries = buckets.choose_boundaries(
      lengths.encoder, max_shapes, MULTIPLE
    )
    return Buckets(batch_size, lengths, boundaries)
  if batching == "packed":
    size = packed_size or packing.choose_size(lengths.encoder, lengths.decoder)
    _check_fits(lengths, size)
    return Packed(batch_size, lengths, size)
  raise ValueError(
    f"Unknown batching {batching!r}; expected one of {', '.join(BATCHINGS)}."
  )
