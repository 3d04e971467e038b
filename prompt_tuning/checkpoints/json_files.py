"""JSON files that describe the files beside them; read without trust."""

import os
from collections.abc import Sequence
from typing import Any

from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  Mismatch,
  describe,
  unreadable,
)
from prompt_tuning.core import files, schema

_LIMIT = 64 << 20  # bytes; the largest that we write have a hundredth of it


def read(path: str | os.PathLike[str], expected: str) -> Any:
  """Read a JSON file.

  Args:
    path: the file.
    expected: what it should be, for the message.

  Returns:
    Its value.

  Raises:
    CheckpointError: it cannot be read, is not JSON, or is very large.
    StoreError: it is in a bucket that cannot be read.
  """
  try:
    return schema.parse(files.read_bytes(path, _LIMIT))
  except files.StoreError:
    raise
  except (OSError, ValueError) as error:
    raise unreadable(path, expected, describe(error)) from error


def check(path: str | os.PathLike[str], value: Any, wanted: Any) -> None:
  """Check a file's value against a schema.

  Args:
    path: the file.
    value: what is in it.
    wanted: see `core.schema`.

  Raises:
    CheckpointError: names the keys, what was expected and what is there.
  """
  refuse(path, schema.faults(value, wanted))


def refuse(
  path: str | os.PathLike[str], faults: Sequence[schema.Fault]
) -> None:
  """Raise an error about the faults of a file, if there are any.

  Args:
    path: the file.
    faults: its faults.

  Raises:
    CheckpointError: there are faults.
  """
  if faults:
    name = os.path.basename(path)
    raise CheckpointError(
      path, [Mismatch(f"{name}: {f.key}", f.expected, f.got) for f in faults]
    )
