"""Write a file so that it appears complete or not at all."""

import os
import pathlib
import tempfile


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Write UTF-8 text to a temporary name beside `path`, then rename it.

  Args:
    path: where the file appears; an existing one is replaced.
    text: its content.

  Raises:
    FileNotFoundError: the directory does not exist.
  """
  path = pathlib.Path(path)
  if not path.parent.is_dir():
    raise FileNotFoundError(f"No directory {path.parent} to write {path.name}.")
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
  try:
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    pathlib.Path(temporary).replace(path)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise
