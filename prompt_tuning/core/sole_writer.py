"""One writer per folder: a second process is refused, a dead one's place taken.

The writer holds `writer.json` in the folder, which says who it is. On one
machine the file is locked (flock), and a lock ends with its process, however
that ends. A process on another machine cannot be asked: its file is watched
for a while, in which a living writer writes it again several times.

In a bucket it is an object that only one process can create. What a process on
this machine left there when it died is taken over; any other is watched.

What this cannot do: on a network disk that knows no locks, two processes that
start in the same second may both find nobody there. And a writer that was
suspended for longer than others watch loses its place; it notices before it
saves.
"""

import abc
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
# Seconds between two signs of life, and seconds that others wait for one.
SIGN, WATCH = 4.0, 15.0

_BYTES = 1 << 16  # largest size of the file
_SETTLED_S = 1.0  # two that took over one place know each other by then
# Errors of file systems without locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)

logger = logging.getLogger(__name__)


class _Place(abc.ABC):
  """The place of the writer of one folder, which this process holds."""

  def __init__(self, path: pathlib.Path, about: dict[str, Any]):
    self.thread = threading.get_ident()
    self._path, self._about = path, about
    self._ended = threading.Event()
    self._signs = threading.Thread(target=self._give_signs, daemon=True)
    self._signs.start()

  def insist(self) -> None:
    """Insist that nobody took the place."""
    there = _read(self._path)
    if _is_same(there, self._about):
      return
    folder, end = self._path.parent, "This process writes nothing more."
    if not there and not files.exists(self._path):
      raise ValueError(
        f"{folder}: {self._path.name} is gone: something removed this folder, "
        f"or its files, while this process wrote to it. {end}"
      )
    raise ValueError(
      f"{folder}: {_who(there)} took over, because this process gave no sign "
      f"of life for a while. {end}"
    )

  def leave(self) -> None:
    """Give the place up."""
    self._ended.set()
    self._signs.join()
    self._leave()

  def _give_signs(self) -> None:
    while not self._ended.wait(SIGN):
      self._about["signs"] += 1
      with contextlib.suppress(OSError):  # a full disk does not end a training
        self._write()

  @abc.abstractmethod
  def _write(self) -> None:
    """Give a sign of life."""

  @abc.abstractmethod
  def _leave(self) -> None:
    """Remove what is still this process's own."""


class _File(_Place):
  """A file of this machine, or of a network disk, that is locked."""

  def __init__(self, path: pathlib.Path, descriptor: int):
    self._descriptor, about = descriptor, _about()
    os.pwrite(descriptor, _text(about), 0)
    super().__init__(path, about)

  def _write(self) -> None:
    # Write in place, because the lock belongs to this file.
    os.pwrite(self._descriptor, _text(self._about), 0)

  def _leave(self) -> None:
    try:
      if _is_at(self._path, self._descriptor):
        files.remove(self._path)
    finally:
      os.close(self._descriptor)


class _Object(_Place):
  """An object of a bucket."""

  def _write(self) -> None:
    if _is_same(_read(self._path), self._about):
      files.write_bytes(self._path, _text(self._about))

  def _leave(self) -> None:
    if _is_same(_read(self._path), self._about):
      files.remove(self._path)


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
  folder = files.path(folder)
  key = _key(folder, name)
  held = _places.get(key)
  if held is not None and held.thread == threading.get_ident():
    yield
    return
  place: _Place
  if files.is_url(folder):
    place = _Object(folder / name, _claim(folder / name, setting, key))
  else:
    place = _File(folder / name, _take(folder / name, setting))
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
    ValueError: another process took it, or something removed it.
  """
  place = _places.get(_key(files.path(folder), FILE))
  if place is not None:
    place.insist()


def _key(folder: pathlib.Path, name: str) -> str:
  """Name a place, however its folder is spelled."""
  return os.path.join(files.real(folder), name)


def _claim(path: pathlib.Path, setting: str, key: str) -> dict[str, Any]:
  """Create the object of a writer, or take over what a dead one left."""
  about = _about()
  has_waited = False
  while True:
    try:
      files.create(path, _text(about))
      break
    except FileExistsError:
      there = _read(path)
    if there and _is_alive(there, key):
      raise _refusal(path.parent, setting, there)
    if there and _is_alive(there, key) is None:
      _watch(path, setting, there)
    if _read(path) == there:  # else its writer just left
      logger.info(
        "%s: %s was killed, or its machine is down.", path.parent, _who(there)
      )
      files.remove(path)
      has_waited = True
  if has_waited:  # perhaps another one took it, too
    time.sleep(_SETTLED_S)
    there = _read(path)
    if not _is_same(there, about):
      raise _refusal(path.parent, setting, there)
  return about


def _is_alive(there: dict[str, Any], key: str) -> bool | None:
  """Say whether a writer is alive; None if it runs on another machine."""
  here = _about()
  if here["machine"] is None or there.get("machine") != here["machine"]:
    return None
  if there.get("pid") == here["pid"]:  # this process, or one of its number
    return key in _places
  started = _started(there.get("pid"))
  return started is not None and started == there.get("started")


def _about() -> dict[str, Any]:
  """Say who this process is."""
  return {
    "host": socket.gethostname(),
    "pid": os.getpid(),
    "machine": _machine(),
    "started": _started(os.getpid()),
    "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    "signs": 0,
  }


def _machine() -> str | None:
  """Name the namespace that numbers the processes; None if not on Linux."""
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:
    return None


def _started(pid: Any) -> str | None:
  """Return when a process started, by the kernel's clock; None if it is gone.

  Needed because process numbers are used again.
  """
  try:
    stat = pathlib.Path(f"/proc/{int(pid)}/stat").read_text()
  except (OSError, ValueError, TypeError):
    return None
  state, *fields = stat.rpartition(")")[2].split()
  return None if state in "ZX" else fields[18]


def _text(about: dict[str, Any]) -> bytes:
  """Write who a process is, always with the same length."""
  return f"{json.dumps(about).ljust(400)}\n".encode()


def _is_same(there: dict[str, Any], about: dict[str, Any]) -> bool:
  """Say whether two descriptions are of the same process."""
  keys = about.keys() - {"signs"}
  return all(there.get(key) == about[key] for key in keys)


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
          logger.info(
            "%s: %s was killed, or its machine is down.", folder, _who(there)
          )
        return descriptor
    except BaseException:
      os.close(descriptor)
      raise
    os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
  """Lock a file: True; None if another has it; False if there are no locks."""
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
  """Wait for a writer on another machine; refuse if it gives a sign of life."""
  logger.warning(
    "%s: %s may still be writing. Waiting %d seconds for a sign of life.",
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
  """Read who the writer is; empty if the file does not say."""
  try:
    return dict(schema.parse(files.read_bytes(path, _BYTES)))
  except (ValueError, TypeError):
    return {}
  except OSError as error:
    # If a bucket does not answer, we do not know whether there is a writer.
    if files.is_url(path) and not isinstance(error, FileNotFoundError):
      raise
    return {}


def _is_at(path: pathlib.Path, descriptor: int) -> bool:
  """Say whether a path still belongs to an open file."""
  try:
    return os.path.samestat(os.stat(path), os.fstat(descriptor))
  except FileNotFoundError:
    return False
