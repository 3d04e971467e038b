"""One writer per folder: a second process is refused, a dead one's place taken.

The writer holds `writer.json` in the folder, which says who it is. On one
machine the file is locked (flock), and a lock ends with its process, however
that ends. A process on another machine cannot be asked: its file is watched
for a while, in which a living writer writes it again several times.

What this cannot do: in a bucket, or on a network disk that knows no locks, two
processes that start in the same second may both find nobody there. And a writer
that was suspended for longer than others watch loses its place; it notices
before it saves.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from prompt_tuning.core import files, schema

FILE = "writer.json"
# Seconds between two signs of life, and for which others wait for one.
SIGN, WATCH = 4.0, 15.0

_BYTES = 1 << 16  # of the file, at most
# What file systems without locks answer.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)

logger = logging.getLogger(__name__)


class _Place:
  """The place of the writer of one folder, which this process holds."""

  def __init__(self, path: pathlib.Path, descriptor: int):
    self.thread = threading.get_ident()
    self._path, self._descriptor = path, descriptor
    self._about: dict[str, Any] = {
      "host": socket.gethostname(),
      "pid": os.getpid(),
      "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
      "signs": 0,
    }
    self._ended = threading.Event()
    self._write()
    self._signs = threading.Thread(target=self._give_signs, daemon=True)
    self._signs.start()

  def insist(self) -> None:
    """Insist that nobody took the place."""
    there = _read(self._path)
    if any(there.get(key) != self._about[key] for key in ("host", "pid")):
      raise ValueError(
        f"{self._path.parent}: {_who(there)} took this process's place, which "
        "gave no sign of life for a while. Nothing more is written."
      )

  def leave(self) -> None:
    """Give the place up."""
    self._ended.set()
    self._signs.join()
    try:
      # Only what is still this process's own.
      if _is_at(self._path, self._descriptor):
        files.remove(self._path)
    finally:
      os.close(self._descriptor)

  def _give_signs(self) -> None:
    while not self._ended.wait(SIGN):
      self._about["signs"] += 1
      with contextlib.suppress(OSError):  # a full disk ends no training
        self._write()

  def _write(self) -> None:
    # In place: the lock is that of the file.
    text = json.dumps(self._about).ljust(200) + "\n"
    os.pwrite(self._descriptor, text.encode(), 0)


_places: dict[str, _Place] = {}


@contextlib.contextmanager
def hold(folder: files.Path, setting: str, name: str = FILE) -> Iterator[None]:
  """Be the one writer of a folder, and clear what dead ones left half-written.

  Within one thread it may be nested.

  Args:
    folder: that exists.
    setting: what names it, for the message.
    name: another name than `FILE` for a writer of a part of a folder, which
      clears nothing.

  Raises:
    ValueError: another process, or thread, is its writer.
    OSError: the folder cannot be written to.
  """
  folder = pathlib.Path(folder)
  key = os.path.join(os.path.realpath(folder), name)
  held = _places.get(key)
  if held is not None and held.thread == threading.get_ident():
    yield
    return
  place = _Place(folder / name, _take(folder / name, setting))
  _places[key] = place
  try:
    if name == FILE:
      files.remove_leftovers(folder)
    yield
  finally:
    del _places[key]
    place.leave()


def insist(folder: files.Path) -> None:
  """Insist that a folder that this process holds is still its own.

  Args:
    folder: any; one that nobody holds is anybody's.

  Raises:
    ValueError: another process took it.
  """
  place = _places.get(os.path.join(os.path.realpath(folder), FILE))
  if place is not None:
    place.insist()


def _take(path: pathlib.Path, setting: str) -> int:
  """Open and lock the file of a writer."""
  folder = path.parent
  while True:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      is_locked = _lock(descriptor)
      there = _read(path)
      if is_locked is None:
        raise _refusal(folder, setting, there)
      is_here = there.get("host") == socket.gethostname()
      if there and not (is_here and is_locked):
        _watch(path, setting, there)
      if _is_at(path, descriptor):  # else its writer just left
        if there:
          logger.info("%s: %s is gone without a word.", folder, _who(there))
        return descriptor
    except BaseException:
      os.close(descriptor)
      raise
    os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
  """Lock a file: True; None where another has it; False without locks."""
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return None
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    return False
  return True


def _watch(path: pathlib.Path, setting: str, there: dict[str, Any]) -> None:
  """Refuse where a writer that cannot be asked gives a sign of life."""
  logger.warning(
    "%s: %s did not leave in order. Watching for %d seconds whether it lives.",
    path.parent,
    _who(there),
    WATCH,
  )
  end = time.monotonic() + WATCH
  while time.monotonic() < end:
    time.sleep(SIGN / 4)
    now = _read(path)
    if now and now != there:
      raise _refusal(path.parent, setting, now)


def _refusal(
  folder: pathlib.Path, setting: str, there: dict[str, Any]
) -> ValueError:
  return ValueError(
    f"{setting} {folder} is in use: {_who(there)} writes to it, since "
    f"{there.get('since', 'a moment ago')}. Two processes would mix what they "
    f"write: wait for that one, end it, or choose another {setting}."
  )


def _who(there: dict[str, Any]) -> str:
  if "pid" not in there:
    return "another process"
  return f"process {there['pid']} on host {there.get('host')}"


def _read(path: pathlib.Path) -> dict[str, Any]:
  """Read who the writer is; nothing where the file does not say."""
  try:
    return dict(schema.parse(files.read_bytes(path, _BYTES)))
  except (OSError, ValueError, TypeError):
    return {}


def _is_at(path: pathlib.Path, descriptor: int) -> bool:
  """Say whether a name is still that of an open file."""
  try:
    return os.path.samestat(os.stat(path), os.fstat(descriptor))
  except FileNotFoundError:
    return False
