"""A check that float32 can hold all learned numbers."""

import numpy as np

from prompt_tuning.core.types import Array

EXPECTED = "finite numbers that float32 can hold"


def fault(array: Array | np.ndarray) -> str:
  """Say which number of an array float32 cannot hold.

  Args:
    array: floating, of any dtype.

  Returns:
    The first such number and its position; empty if there is none.
  """
  values = np.asarray(array)
  fits = np.isfinite(values)
  if values.dtype == np.float64:
    fits &= np.abs(values) <= np.finfo(np.float32).max
  if fits.all():
    return ""
  index = np.unravel_index(np.argmin(fits), fits.shape)
  return f"{values[index]} at {[int(i) for i in index]}"
