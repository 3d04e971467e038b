"""Write a file so that it appears complete or not at all."""

import os
import pathlib
import uuid


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Write UTF-8 text to a temporary name beside `path`, then rename it.

  Args:
    path: where the file appears; an existing one is replaced.
    text: its content.

  Raises:
    FileNotFoundError: the directory does not exist.
    OSError: it cannot be written to; names `path`.
  """
  write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
  """Write bytes, see `write_text`."""
  path = pathlib.Path(path)
  if not path.parent.is_dir():
    raise FileNotFoundError(f"No directory {path.parent} to write {path.name}.")
  temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
  try:
    with temporary.open("xb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
  except OSError as error:
    temporary.unlink(missing_ok=True)
    if error.errno is None:
      raise
    # A full disk names no file, a read-only one the temporary file.
    raise OSError(error.errno, error.strerror, str(path)) from error
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
