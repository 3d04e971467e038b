"""Lets the one writer of files fail, or die, at a chosen operation."""

import errno

from prompt_tuning.core import files

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
