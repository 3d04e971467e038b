"""Rows of unequal length in two flat arrays, in memory or memory-mapped."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ragged:
  """Rows of unequal length, concatenated.

  Attributes:
    values: [total], any dtype; all rows, concatenated.
    offsets: [rows + 1] int64; row i is `values[offsets[i]:offsets[i + 1]]`.
  """

  values: np.ndarray
  offsets: np.ndarray

  def __len__(self) -> int:
    return len(self.offsets) - 1

  def __getitem__(self, row: int) -> np.ndarray:
    return self.values[self.offsets[row] : self.offsets[row + 1]]

  @functools.cached_property
  def lengths(self) -> np.ndarray:
    """[rows] int64, the length of every row."""
    return np.diff(self.offsets)

  def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take the values of some rows without a Python loop.

    Args:
      rows: [n] integer row numbers, in any order, repeats allowed.

    Returns:
      The values of those rows, concatenated, [total of their lengths], and the
      position of each value within its row, of the same shape.
    """
    lengths = self.lengths[rows]
    within = ranges(lengths)
    return self.values[np.repeat(self.offsets[rows], lengths) + within], within


def ranges(lengths: np.ndarray) -> np.ndarray:
  """Count from zero for every length: [2, 3] gives [0, 1, 0, 1, 2].

  Args:
    lengths: [n] integers, none negative.

  Returns:
    [sum of lengths] int64.
  """
  starts = np.cumsum(lengths) - lengths
  return np.arange(int(lengths.sum())) - np.repeat(starts, lengths)


def from_rows(rows: Iterable[np.ndarray], dtype: np.typing.DTypeLike) -> Ragged:
  """Join rows into one ragged array.

  Args:
    rows: one-dimensional arrays.
    dtype: of the values.

  Returns:
    A ragged array in memory.
  """
  arrays = [np.asarray(row, dtype) for row in rows]
  offsets = np.zeros(len(arrays) + 1, np.int64)
  np.cumsum([len(array) for array in arrays], out=offsets[1:])
  values = np.concatenate(arrays) if arrays else np.zeros(0, dtype)
  return Ragged(values, offsets)


def concatenate(arrays: Sequence[Ragged]) -> Ragged:
  """Join ragged arrays; a single one is returned as it is (memory-mapped)."""
  if len(arrays) == 1:
    return arrays[0]
  sizes = np.cumsum([0, *(len(array.values) for array in arrays)])
  offsets = [
    array.offsets[:-1] + size
    for array, size in zip(arrays, sizes, strict=False)
  ]
  return Ragged(
    np.concatenate([array.values for array in arrays]),
    np.concatenate([*offsets, sizes[-1:]]),
  )
