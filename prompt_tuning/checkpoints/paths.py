"""Checkpoints' paths: read only inside their folder, written whole."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator

from prompt_tuning.checkpoints.errors import CheckpointError, unreadable
from prompt_tuning.core import files

# What may be replaced: nothing (False), what the writer itself makes (True), or
# any path for which a function returns True.
Overwrite = bool | Callable[[str], bool]


def inside(folder: str, name: str) -> str:
  """Resolve a name that a checkpoint gives for one of its own files.

  Args:
    folder: the checkpoint's folder.
    name: relative, or an absolute path from the machine that wrote it. Of an
      absolute path elsewhere, only the last part counts.

  Returns:
    The path below `folder`. It need not exist.

  Raises:
    CheckpointError: the name leads out of the folder.
  """
  if "\0" in name:
    raise unreadable(folder, "files inside the checkpoint", f"{name!r}")
  root = files.real(folder)

  def resolved(relative: str) -> str | None:
    path = files.real(os.path.join(root, relative))
    return path if path.startswith(root + os.sep) else None

  path = resolved(name)
  if os.path.isabs(name) or (path and not files.exists(path)):
    path = (path if path and files.exists(path) else None) or resolved(
      os.path.basename(name.rstrip("/"))
    )
  if path is None:
    raise unreadable(folder, "files inside the checkpoint", f"{name!r}")
  return path


@contextlib.contextmanager
def replacing(
  path: str | os.PathLike[str],
  overwrite: Overwrite = False,
  is_ours: Callable[[str], bool] = files.is_file,
  last: str | None = None,
) -> Iterator[str]:
  """Write a file or a folder as `core.files` does, if that is allowed.

  Args:
    path: the final path.
    overwrite: what may be replaced. An empty folder may, unless this is False.
    is_ours: recognises what the writer itself makes; by default any file.
    last: see `core.files.replacing`.

  Yields:
    A name in the same folder, free, for the body to create.

  Raises:
    CheckpointError: the path exists and may not be replaced, or it cannot be
      written.
  """
  target = files.path(files.absolute(path))
  half = _half(target, last)
  is_there = target.exists() and not half
  if is_there and not overwrite:
    hint = "Choose another name, or allow overwriting it."
    raise unreadable(target, "a free name", "something already there", hint)
  may_replace = overwrite if callable(overwrite) else is_ours
  if is_there and not (_is_empty(target) or may_replace(str(target))):
    raise _refusal(target)
  try:
    files.make_folder(target.parent)
    with files.replacing(target, last) as temporary:
      yield temporary
      if half - files.names_below(temporary):
        raise _refusal(target)
  except OSError as error:
    raise unreadable(target, "a place to write to", str(error)) from error


def _half(target: pathlib.Path, last: str | None) -> set[str]:
  """List the files of an incomplete folder in a bucket.

  For readers such a folder does not exist. A complete folder with the same
  files may replace it; if it has other files, it belongs to somebody else.
  """
  if last is None or files.is_committed(target, last) or target.is_file():
    return set()
  return files.names_below(target)


def _refusal(target: pathlib.Path) -> CheckpointError:
  content = "another file"
  if target.is_dir():
    content = f"a folder with {sorted(files.names(target))[:5]}"
  hint = (
    "This project does not replace it: delete it yourself, or choose another "
    "name."
  )
  return unreadable(target, "something to replace", content, hint)


def _is_empty(path: pathlib.Path) -> bool:
  return path.is_dir() and not any(path.iterdir())
