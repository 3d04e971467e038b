"""Random orders that stay what they are."""

import numpy as np


def permutation(n: int, *key: int) -> np.ndarray:
  """Permute [0, n) as a function of a key alone.

  Sorting the raw output of a counter-based generator, which numpy promises not
  to change, unlike `Generator.permutation`: a restored run must go on as it
  began whatever numpy is installed.

  Args:
    n: how many.
    *key: integers from 0.

  Returns:
    [n] int64.
  """
  state = np.random.SeedSequence(key).generate_state(2, np.uint64)
  raw = np.random.Philox(key=state).random_raw(n)
  return np.argsort(raw, kind="stable")
