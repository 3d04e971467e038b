"""Initialisers that copy an existing prompt."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning.core import files
from prompt_tuning.core.types import Array, DType, Shape
from prompt_tuning.tuners.initializers import InitializerContext


@dataclasses.dataclass(frozen=True)
class FromFile:
  """Copy a prompt file, such as those that prompt-tuning exports.

  Attributes:
    path: a path that `InitializerContext.load_prompt` can read. If the context
      has no reader, a file of a NumPy array with any suffix.
  """

  path: str

  def __call__(
    self, rng: Array, shape: Shape, dtype: DType, context: InitializerContext
  ) -> Array:
    """Read the file, see `Initializer`."""
    del rng
    load = context.load_prompt or load_array
    values = load(self.path)
    return _exact(values, shape, dtype, f"the prompt file {self.path}")


def load_array(path: str) -> np.ndarray:
  """Read a file of a NumPy array without running code in it.

  Args:
    path: the file. Two-byte void numbers are read as bfloat16, because NumPy
      writes bfloat16 in this way.

  Returns:
    The array as stored.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file does not hold one floating-point array.
  """
  if not files.is_file(path):
    raise FileNotFoundError(
      f"PROMPT_FILE must name a NumPy array file; there is none at {path}."
    )
  try:
    with files.as_local(path) as local:
      values = np.load(local, allow_pickle=False)
  except (ValueError, EOFError, OSError) as error:
    raise ValueError(
      f"PROMPT_FILE {path} is not a NumPy array file: {error}"
    ) from error
  if not isinstance(values, np.ndarray):
    values.close()
    raise ValueError(
      f"PROMPT_FILE {path} is an archive of arrays; expected one `.npy` array."
    )
  if values.dtype == np.dtype("V2"):
    values = values.view(np.dtype(jnp.bfloat16))
  return values


def _exact(values: Any, shape: Shape, dtype: DType, origin: str) -> Array:
  """Check that given values are a finite [P, H] array and convert them."""
  values = np.asarray(values)
  got = values.shape
  if got != tuple(shape):
    if len(got) != len(shape):
      fix = "it must have the two dimensions [P, H]"
    elif got[1] != shape[1]:
      fix = (
        "it was trained for a model of another width: change PROMPT_FILE, or "
        "the model size"
      )
    else:
      fix = f"set PROMPT_LENGTH = {got[0]}, or change PROMPT_FILE"
    raise ValueError(
      f"Shape of {origin} is {got}, expected {tuple(shape)}; {fix}."
    )
  if not jnp.issubdtype(values.dtype, jnp.floating):
    raise ValueError(
      f"{origin} holds {values.dtype} numbers; expected floating point. Change "
      "PROMPT_FILE."
    )
  if not np.isfinite(values).all():
    raise ValueError(
      f"{origin} holds NaN or infinite numbers; change PROMPT_FILE."
    )
  return jnp.asarray(values, dtype)
