"""Folders that a command is about to write to."""

import os
import tempfile


def ensure_writable(folder: str, macro: str) -> None:
  """Make a folder, and refuse one that cannot be written to, before any work.

  Args:
    folder: where the command writes.
    macro: what says so, for the message.

  Raises:
    ValueError: it cannot be made, or nothing can be written there.
  """
  try:
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise ValueError(f"{macro} cannot be written to: {error}.") from error
