"""Random orders that are the same in every version of numpy."""

import numpy as np


def permutation(n: int, *key: int) -> np.ndarray:
  """Permute [0, n), depending only on a key.

  Sorts the raw output of a counter-based generator. numpy promises not to
  change that output, unlike `Generator.permutation`, and a restored run must
  continue in the same order with any version of numpy.

  Args:
    n: number of items.
    *key: integers from 0.

  Returns:
    [n] int64.
  """
  state = np.random.SeedSequence(key).generate_state(2, np.uint64)
  raw = np.random.Philox(key=state).random_raw(n)
  return np.argsort(raw, kind="stable")
