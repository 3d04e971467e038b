"""Folders that a command is about to write to."""

import os
import pathlib
import tempfile
from collections.abc import Mapping

from prompt_tuning.checkpoints import paths


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


def write_texts(
  folder: str | os.PathLike[str], texts: Mapping[str, str]
) -> None:
  """Write text files, each whole or not at all.

  Args:
    folder: is made where it is missing.
    texts: name of a file -> what shall be in it.

  Raises:
    CheckpointError: it cannot be written to.
  """
  for name, text in texts.items():
    with paths.replacing(pathlib.Path(folder, name), overwrite=True) as path:
      pathlib.Path(path).write_text(text, encoding="utf-8")
