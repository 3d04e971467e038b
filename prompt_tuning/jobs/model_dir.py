"""The folder of a training: one training at a time writes to it."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from prompt_tuning.core import files, sole_writer
from prompt_tuning.infer import reports
from prompt_tuning.train import loop

EXPORTS = "exports"
_PARTS = (loop.BUNDLES, loop.BEST, EXPORTS, reports.FOLDER)


@contextlib.contextmanager
def held(folder: str) -> Iterator[None]:
  """Be the only training that writes to a folder, see `core.sole_writer`.

  The hosts of one training count as one writer. Half-written files of killed
  processes are removed.

  Args:
    folder: the folder; it is made if it is missing.

  Raises:
    ValueError: another training writes to it, or it cannot be written to.
  """
  files.ensure_writable(folder, "MODEL_DIR")
  with contextlib.ExitStack() as stack:
    refusal = None
    if jax.process_index() == 0:
      try:
        stack.enter_context(sole_writer.hold(folder, "MODEL_DIR"))
      except ValueError as error:
        refusal = error
    if _on_any_host(refusal is not None):
      raise refusal or ValueError(
        f"MODEL_DIR {folder} is in use; the error of process 0 says by which "
        "process."
      )
    if jax.process_index() == 0:
      for part in _PARTS:
        files.remove_leftovers(files.path(folder) / part, below=True)
    yield


def _on_any_host(value: bool) -> bool:
  """Tell all hosts whether the condition holds on any of them."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return bool(multihost_utils.process_allgather(np.array(value)).any())
