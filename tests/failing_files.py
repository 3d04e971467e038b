"""Lets the one writer of files fail, or die, at a chosen operation."""

import errno

from prompt_tuning.core import files, object_store, sole_writer

OPERATIONS = (
  "_write",
  "_append",
  "_truncate",
  "_flush",
  "_rename",
  "_delete",
  "_make",
  "_set_mode",
)


class Killed(BaseException):
  """Stands for a kill: from then on nothing reaches the disk."""


class Disk:
  """Counts the operations of `core.files`, and lets one of them fail.

  Attributes:
    calls: (operation, path) of every one so far, the failed one included.
  """

  def __init__(self, monkeypatch, fails=lambda number, name, path: False):
    """Take the place of the disk.

    Args:
      monkeypatch: pytest's.
      fails: (number from 0, operation, path) -> an exception to raise instead
        of doing it, or something false.
    """
    self.calls = []
    self._fails = fails
    self._dead = None
    for name in OPERATIONS:
      operation = getattr(files, name)
      monkeypatch.setattr(files, name, self._counted(name, operation))

  def _counted(self, name, operation):
    def wrapped(path, *rest):
      if self._dead:
        raise self._dead
      number = len(self.calls)
      self.calls.append((name, path))
      error = self._fails(number, name, path)
      if isinstance(error, Killed):
        self._dead = error
      if error:
        raise error
      return operation(path, *rest)

    return wrapped


def full_disk():
  """Make the error of a full disk, which names no file."""
  return OSError(errno.ENOSPC, "No space left on device")


class Store:
  """The same of what changes objects in buckets.

  Attributes:
    calls: (operation, URL) of every one so far, but for signs of life.
  """

  def __init__(self, monkeypatch, fails=lambda number: None):
    """Take the place of the operations.

    Args:
      monkeypatch: pytest's.
      fails: number from 0 -> an exception to raise, now and from then on.
    """
    self.calls, self._fails, self._dead = [], fails, None
    for name in ("put", "put_file", "create", "delete"):
      operation = getattr(object_store, name)
      monkeypatch.setattr(object_store, name, self._counted(name, operation))

  def _counted(self, name, operation):
    def wrapped(url, *rest):
      self._dead = self._dead or self._fails(len(self.calls))
      if self._dead:
        raise self._dead
      if name == "create" or url.name != sole_writer.FILE:
        self.calls.append((name, str(url)))
      operation(url, *rest)

    return wrapped
