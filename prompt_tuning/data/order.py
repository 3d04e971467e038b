"""The endless order in which training examples are read."""

from collections.abc import Sequence

import grain
import numpy as np


def shuffled(
  sizes: Sequence[int], rates: Sequence[float], seed: int
) -> grain.MapDataset[int]:
  """Shuffle anew in every epoch, without end, and mix several sets by rate.

  Position k of the order is computed from k alone, so reading can start
  anywhere, and within an epoch of one set every example occurs exactly once.

  Args:
    sizes: examples per set; set i's are numbered after those of set i - 1.
    rates: relative share of each set; grain interleaves them evenly.
    seed: any integer from 0; equal seeds give equal orders.

  Returns:
    A random-access dataset of example numbers.
  """
  parts = []
  start = 0
  for index, size in enumerate(sizes):
    # grain seeds epoch e with seed + e, so that run 1 would start with the
    # second epoch of run 0 if neighbouring seeds were passed on as they are.
    spread = np.random.SeedSequence([seed, index]).generate_state(1)[0]
    examples = grain.MapDataset.range(start, start + size)
    parts.append(examples.shuffle(seed=int(spread)).repeat())
    start += size
  if len(parts) == 1:
    return parts[0]
  return grain.MapDataset.mix(parts, rates)


def permutation(n: int, key: int) -> np.ndarray:
  """Permute [0, n) as a function of a key alone.

  Sorting the raw output of a counter-based generator, which numpy promises not
  to change, unlike `Generator.permutation`: a restored run must go on as it
  began whatever numpy is installed.

  Args:
    n: how many.
    key: from 0.

  Returns:
    [n] int64.
  """
  return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")
