"""The endless order in which training examples are read."""

import sys
from collections.abc import Sequence

import grain
import numpy as np

from prompt_tuning.data.permutation import permutation


class ShuffledSet(grain.MapDataset[int]):
  """One set, shuffled again in every epoch, without end.

  Position k depends only on k, so that reading can start anywhere. Every epoch
  has every example once. `grain.MapDataset.shuffle` does the same, but takes 7
  us per example, as long as the rest of the pipeline together. It also seeds
  epoch e with seed + e, so that a run with the next seed reads the same epochs,
  shifted by one.
  """

  def __init__(self, first: int, size: int, *key: int):
    """Describe the order.

    Args:
      first: number of the set's first example.
      size: examples.
      *key: seeds; another key is another order.
    """
    super().__init__()
    self._first = first
    self._size = size
    self._key = key
    self._epoch = -1
    self._order = np.zeros(0, np.int64)

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index: int) -> int:
    epoch, within = divmod(index, self._size)
    return int(self._epoch_order(epoch)[within])

  def read(self, start: int, count: int) -> np.ndarray:
    """Return the example numbers at `count` positions, [count] int64."""
    pieces = []
    while count:
      epoch, within = divmod(start, self._size)
      pieces.append(self._epoch_order(epoch)[within : within + count])
      start += len(pieces[-1])
      count -= len(pieces[-1])
    return np.concatenate(pieces)

  def _epoch_order(self, epoch: int) -> np.ndarray:
    if epoch != self._epoch:
      self._order = self._first + permutation(self._size, *self._key, epoch)
      self._epoch = epoch
    return self._order


class Order:
  """Several sets, each shuffled, mixed by rate."""

  def __init__(self, sizes: Sequence[int], rates: Sequence[float], seed: int):
    """Describe the order.

    Args:
      sizes: examples per set; set i's are numbered after those of set i - 1.
      rates: relative share of each set; grain interleaves them evenly.
      seed: equal seeds give equal orders.
    """
    firsts = np.cumsum([0, *sizes[:-1]]).tolist()
    self._sets = [
      ShuffledSet(first, size, seed, index)
      for index, (first, size) in enumerate(zip(firsts, sizes, strict=True))
    ]
    self._mixture = grain.MapDataset.mix(self._sets, rates)

  def read(self, start: int, count: int) -> np.ndarray:
    """Return the example numbers at `count` positions, [count] int64."""
    if len(self._sets) == 1:
      return self._sets[0].read(start, count)
    positions = range(start, start + count)
    return np.asarray([self._mixture[k] for k in positions], np.int64)
