"""Files and folders that appear whole or not at all, and their hashes.

What the project keeps is written, named and deleted here and nowhere else:
under a temporary name first, flushed to the disk, then renamed. So a name that
can be seen is whole, whenever the process was killed. A folder takes another's
place in two renames; between them the old one is beside it, called `.old`.

Each function is made of the few operations at the end of this module, which a
test can let fail one by one.
"""

import contextlib
import errno
import hashlib
import io
import os
import pathlib
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

Path = str | os.PathLike[str]

_ABANDONED_S = 3_600
_SCHEME = re.compile("[a-z][a-z0-9+.-]+:")  # of a URL, as a part of a path

# How every temporary name ends: this, and hexadecimal digits.
_TEMPORARY, _DIGITS = ".tmp-", 8
# A file system takes 255 bytes; what is written adds to a name.
_NAME_BYTES = 180
NAME_RULE = (
  f"no `/` or `\\`, no control characters, not `.` or `..`, at most "
  f"{_NAME_BYTES} bytes"
)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[str]:
  """Let the body write a file or a folder, then give it its name.

  Args:
    path: where it shall be, in a folder that exists; what is there is replaced.

  Yields:
    A free name in the same folder, for the body to create.

  Raises:
    FileNotFoundError: there is no such folder.
    OSError: it cannot be written to; names `path`. What was there stays.
  """
  with _temporary(path) as temporary:
    yield str(temporary)
    move(temporary, path)


@contextlib.contextmanager
def creating(path: Path) -> Iterator[str]:
  """Let the body write a folder that replaces nothing, see `replacing`.

  Raises:
    FileExistsError: another process was first.
  """
  with _temporary(path) as temporary:
    yield str(temporary)
    _flush_all(temporary)
    try:
      _rename(temporary, pathlib.Path(path))
    except OSError as error:
      if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
        raise
      raise FileExistsError(errno.EEXIST, "exists", os.fspath(path)) from error
    _flush(temporary.parent)


def write_bytes(path: Path, data: bytes) -> None:
  """Write a file, see `replacing`."""
  with replacing(path) as temporary:
    _write(pathlib.Path(temporary), data)


def write_text(path: Path, text: str) -> None:
  """Write a file of UTF-8 text, see `replacing`."""
  write_bytes(path, text.encode("utf-8"))


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
  """Write files of UTF-8 text, each whole or not at all.

  Args:
    folder: is made where it is missing.
    texts: name of a file -> what shall be in it.

  Raises:
    OSError: a file cannot be written; those before it are.
  """
  make_folder(folder)
  for name, text in texts.items():
    write_text(pathlib.Path(folder, name), text)


def append(path: Path, data: bytes) -> None:
  """Write behind the end of a file, which is made where it is missing.

  A kill may leave a part of the data there; it is not on the disk for sure
  before `flush`.

  Raises:
    OSError: it cannot be written; names `path`.
  """
  with _naming(path):
    _append(pathlib.Path(path), data)


def truncate(path: Path, size: int) -> None:
  """Cut a file off behind `size` bytes; it is made where it is missing."""
  with _naming(path):
    _truncate(pathlib.Path(path), size)


def flush(path: Path) -> None:
  """Wait until a file is on the disk.

  Raises:
    OSError: it does not fit; names `path`.
  """
  with _naming(path):
    _flush(pathlib.Path(path))


def move(source: Path, target: Path) -> None:
  """Flush a finished file or folder, and put it where `target` is or shall be.

  Args:
    source: on the same disk.
    target: what is there is replaced, a link itself and not what it points to.

  Raises:
    OSError: it cannot be renamed; what was there stays.
  """
  source, target = pathlib.Path(source), pathlib.Path(target)
  _flush_all(source)
  folders = source.is_dir() or (target.is_dir() and not target.is_symlink())
  if folders and os.path.lexists(target):
    old = _beside(target, ".old")
    _rename(target, old)
    try:
      _rename(source, target)
    except OSError:
      _rename(old, target)
      raise
    _flush(target.parent)
    _delete(old)
  else:
    _rename(source, target)
    _flush(target.parent)


def remove(path: Path) -> None:
  """Delete a file or a folder, if it is there.

  A folder is renamed first: a half-deleted one must not look whole.
  """
  path = pathlib.Path(path)
  if path.is_dir() and not path.is_symlink():
    doomed = _beside(path, ".old")
    try:
      _rename(path, doomed)
    except FileNotFoundError:  # another process is deleting it
      return
    path = doomed
  _delete(path)


def remove_leftovers(folder: Path, below: bool = False) -> None:
  """Delete what processes that were killed left under temporary names.

  Args:
    folder: of a single writer, which is the caller; need not be there.
    below: whether to look into its folders too.
  """
  root = pathlib.Path(folder)
  pattern = f"*{_TEMPORARY}{'[0-9a-f]' * _DIGITS}"
  for leftover in sorted((root.rglob if below else root.glob)(pattern)):
    _delete(leftover)


def remove_abandoned(folder: Path, *patterns: str) -> None:
  """Delete leftovers in a folder that several processes write to.

  Nobody can tell a killed process from one on another machine; but what nobody
  has written to for an hour is nobody's any more.

  Args:
    folder: need not be there.
    *patterns: of their names, besides the temporary ones.
  """
  for pattern in (f"*{_TEMPORARY}*", *patterns):
    for path in sorted(pathlib.Path(folder).glob(pattern)):
      with contextlib.suppress(OSError):  # another user's, or gone already
        if time.time() - _last_written(path) > _ABANDONED_S:
          _delete(path)


def make_folder(path: Path) -> None:
  """Make a folder and those above it, where they are missing.

  Raises:
    OSError: it cannot be made, or is a URL, which would become a folder `gs:`.
  """
  folder = pathlib.Path(path)
  for part in folder.parts:
    if _SCHEME.fullmatch(part):
      rest = os.fspath(folder).partition(f"{part}/")[2].lstrip("/")
      raise OSError(
        f"{part}//{rest} is a URL, and only this machine's folders can be "
        "written to: mount the bucket, and name the folder where it is mounted"
      )
  _make(folder)


def make_shared(root: Path, *names: str) -> pathlib.Path:
  """Make folders inside each other, for whoever may write to the first.

  Args:
    root: has the permissions that the others get; is made where it is missing.
    *names: of the folders below it.

  Returns:
    The last one.

  Raises:
    OSError: one cannot be made.
  """
  make_folder(root)
  path = pathlib.Path(root)
  for name in names:
    path /= name
    if not path.exists():
      _make(path)
      share(path, root)
  return path


def share(path: Path, root: Path) -> None:
  """Give a folder, and all in it, the permissions of another one.

  Args:
    path: of this user; where another one was first, it stays as it is.
    root: says who may read and write.
  """
  mode = stat.S_IMODE(os.stat(root).st_mode)
  with contextlib.suppress(PermissionError):
    for child in pathlib.Path(path).iterdir():
      _set_mode(child, mode if child.is_dir() else mode & 0o666)
    _set_mode(pathlib.Path(path), mode)


def ensure_writable(folder: Path, setting: str) -> None:
  """Make a folder, and refuse one that cannot be written to, before any work.

  Args:
    folder: where a command is going to write.
    setting: what names it, for the message.

  Raises:
    ValueError: it cannot be made, or nothing can be written there.
  """
  try:
    make_folder(folder)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise ValueError(f"{setting} cannot be written to: {error}.") from error


def is_text(value: str) -> bool:
  """Say whether a text is one that UTF-8 can hold: no lone surrogates."""
  try:
    value.encode()
  except UnicodeEncodeError:
    return False
  return True


def is_name(value: Any) -> bool:
  """Say whether a value can name a file or a folder, and nothing elsewhere."""
  return (
    isinstance(value, str)
    and is_text(value)
    and 0 < len(value.encode()) <= _NAME_BYTES
    and value not in (".", "..")
    and _TEMPORARY not in value
    and not any(c in "/\\" or not (c.isprintable() or c == " ") for c in value)
  )


def check_name(value: Any, setting: str) -> None:
  """Insist that a name of the user's can be one of a file or a folder.

  Args:
    value: the name.
    setting: what gave it, for the message.

  Raises:
    ValueError: it cannot.
  """
  if not is_name(value):
    raise ValueError(
      f"{setting}: expected a name that can be a folder's ({NAME_RULE}); got "
      f"{value!r:.200}. Choose another name."
    )


def below(folder: Path, name: str, what: str) -> pathlib.Path:
  """Join a folder and a name that a user or another file chose.

  Every name that is not this project's own reaches the disk through here.

  Args:
    folder: what the result is in, whatever the name.
    name: of a file or a folder; the empty one is the folder itself.
    what: whose name it is, for the message.

  Returns:
    The path.

  Raises:
    ValueError: the name would lead elsewhere.
  """
  if name:
    check_name(name, what)
  return pathlib.Path(folder, name)


def open_file(path: Path) -> io.BufferedReader:
  """Open a file to read, and refuse what is none: a pipe would wait for ever.

  Raises:
    OSError: it cannot be opened, or is a pipe, a socket or a device.
  """
  descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
  if not stat.S_ISREG(os.fstat(descriptor).st_mode):
    os.close(descriptor)
    # As `open` says it of a folder, which is the commonest of these.
    kind = (errno.EISDIR, "Is a directory")
    if not os.path.isdir(path):
      kind = (errno.EINVAL, "Is a pipe or a device, not a file")
    raise OSError(*kind, os.fspath(path))
  return open(descriptor, "rb")


def read_bytes(path: Path, limit: int) -> bytes:
  """Read a small file, see `open_file`.

  Args:
    path: the file.
    limit: bytes that it has at most.

  Raises:
    OSError: it cannot be read, or is larger.
  """
  with open_file(path) as file:
    data = file.read(limit + 1)
  if len(data) > limit:
    why = f"Is larger than {limit:,} bytes"
    raise OSError(errno.EFBIG, why, os.fspath(path))
  return data


def sha256(data: bytes) -> str:
  """Hash bytes, as 64 hexadecimal digits."""
  return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
  """Hash the bytes of a file, as 64 hexadecimal digits."""
  with open(path, "rb") as file:
    return open_file_sha256(file)


def open_file_sha256(file: io.BufferedReader) -> str:
  """Hash all bytes of a file that is open already, wherever it stands."""
  file.seek(0)
  return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: pathlib.Path, kind: str = "") -> pathlib.Path:
  """Choose a temporary name in the same folder."""
  digits = uuid.uuid4().hex[:_DIGITS]
  return path.with_name(f"{path.name}{kind}{_TEMPORARY}{digits}")


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[pathlib.Path]:
  """Name a file or folder beside `path` that does not outlive the body."""
  path = pathlib.Path(os.path.abspath(path))
  if not path.parent.is_dir():
    raise FileNotFoundError(f"No directory {path.parent} to write {path.name}.")
  temporary = _beside(path)
  with _naming(path, temporary):
    try:
      yield temporary
    finally:
      _delete(temporary)


@contextlib.contextmanager
def _naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
  """Let an error name a file: a full disk names none, or the temporary one."""
  try:
    yield
  except OSError as error:
    named = str(error.filename or "")
    ours = not named or (temporary and named.startswith(str(temporary)))
    if error.errno is None or not ours:
      raise
    raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _last_written(path: pathlib.Path) -> float:
  """Return when a file, or one in a folder, was last written to."""
  times = [path.lstat().st_mtime]
  times += [child.lstat().st_mtime for child in path.rglob("*")]
  return max(times)


def _flush_all(path: pathlib.Path) -> None:
  """Flush a file, or a folder with everything in it."""
  if path.is_symlink():
    return
  if path.is_dir():
    for child in sorted(path.iterdir()):
      _flush_all(child)
  _flush(path)


# The operations on the disk.


def _write(path: pathlib.Path, data: bytes) -> None:
  with path.open("xb") as file:
    file.write(data)


def _append(path: pathlib.Path, data: bytes) -> None:
  with path.open("ab") as file:
    file.write(data)


def _truncate(path: pathlib.Path, size: int) -> None:
  with path.open("ab") as file:
    file.truncate(size)


def _flush(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _rename(old: pathlib.Path, new: pathlib.Path) -> None:
  os.replace(old, new)


def _delete(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  elif os.path.lexists(path):
    path.unlink(missing_ok=True)


def _make(path: pathlib.Path) -> None:
  path.mkdir(parents=True, exist_ok=True)


def _set_mode(path: pathlib.Path, mode: int) -> None:
  path.chmod(mode)
