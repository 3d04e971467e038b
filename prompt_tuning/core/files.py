"""Files and folders that appear whole or not at all, and their hashes.

Only this module writes, renames and deletes the project's files. It writes a
file or a folder under a temporary name, flushes it to the disk, then renames
it. So whatever has its final name is whole, at any moment that the process is
killed. To replace a folder takes two renames; between them the old folder is
beside it, called `.old`.

A path may also be `gs://` or `s3://`; only this module handles the difference.
A bucket cannot rename, but an object appears whole. So a folder counts as
written once its last file exists, such as a manifest: that file is uploaded
after the others and deleted before them. A folder is first written on this
machine, then uploaded.

Each function uses the few operations at the end of this module and those of
`core.object_store`, so that a test can make each of them fail.
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
from typing import Any, BinaryIO, cast

from prompt_tuning.core import object_store
from prompt_tuning.core.object_store import StoreError, Url, is_url

__all__ = ("StoreError", "is_url")  # of what is imported

Path = str | os.PathLike[str]

_ABANDONED_S = 3_600
_UPLOADS = 8  # at once
_SCHEME = re.compile("[a-z][a-z0-9+.-]+:")  # of a URL, as a part of a path

# Every temporary name ends with this and hexadecimal digits.
_TEMPORARY, _DIGITS = ".tmp-", 8
# A file system allows 255 bytes; temporary endings take some of them.
_NAME_BYTES = 180
NAME_RULE = (
  f"no `/` or `\\`, no control characters, not `.` or `..`, at most "
  f"{_NAME_BYTES} bytes"
)


def path(name: Path) -> pathlib.Path:
  """Make a path from a user's text, on this machine or in a bucket.

  Every path that a user gives goes through this function.

  Args:
    name: of a file or a folder, perhaps `gs://` or `s3://`.

  Returns:
    The path. In a bucket it is a `Url`, which has the methods of `pathlib.Path`
    that this project uses.
  """
  return cast(pathlib.Path, Url(name)) if is_url(name) else pathlib.Path(name)


def absolute(name: Path) -> str:
  """Spell a path without `./`, `..` and last `/`."""
  return str(Url(name)) if is_url(name) else os.path.abspath(name)


def real(name: Path) -> str:
  """Spell a path without `./`, `..`, last `/` and links: one name per place."""
  return str(Url(name)) if is_url(name) else os.path.realpath(name)


def exists(name: Path) -> bool:
  """Say whether there is a file or a folder."""
  return path(name).exists()


def is_file(name: Path) -> bool:
  """Say whether there is a file."""
  return Url(name).is_file() if is_url(name) else os.path.isfile(name)


def is_dir(name: Path) -> bool:
  """Say whether there is a folder."""
  return Url(name).is_dir() if is_url(name) else os.path.isdir(name)


def size(name: Path) -> int:
  """Count the bytes of a file."""
  return Url(name).size() if is_url(name) else os.stat(name).st_size


def names(folder: Path) -> list[str]:
  """List what is in a folder, by name."""
  if is_url(folder):
    return [entry.name for entry in Url(folder).iterdir()]
  return os.listdir(folder)


def names_below(folder: Path) -> set[str]:
  """List the files of a folder and of those in it, as seen from the folder."""
  if is_url(folder):
    url = Url(folder)
    return {one.relative_to(url) for one in url.objects()}
  root = path(folder)
  below = (one for one in root.rglob("*") if one.is_file())
  return {one.relative_to(root).as_posix() for one in below}


def is_committed(folder: Path, last: str) -> bool:
  """Say whether an existing folder is complete.

  Args:
    folder: that `replacing` wrote, or still writes.
    last: the file that readers look for, the same as for `replacing`.
  """
  return not is_url(folder) or (Url(folder) / last).is_file()


def insist_local(name: Path, setting: str) -> None:
  """Refuse a URL where only a folder on this machine works.

  Raises:
    ValueError: it is one.
  """
  if is_url(name) or _SCHEME.match(os.fspath(name)):
    raise ValueError(
      f"{setting} {os.fspath(name)} is a URL; expected a folder on this "
      "machine, because its files are read again and again."
    )


def kvstore(folder: Path) -> dict[str, Any]:
  """Give the location of a folder as TensorStore's specification."""
  if not is_url(folder):
    return {"driver": "file", "path": f"{os.fspath(folder)}/"}
  url = Url(folder)
  spec = {"bucket": url.bucket, "path": f"{url.key}/"}
  if url.scheme == "gs":
    return {"driver": "gcs", **spec}
  # s3fs reads credentials from these places; TensorStore's own driver does not.
  variables = {
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "aws_region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
  }
  for key, names_of_it in variables.items():
    values = [os.environ[name] for name in names_of_it if name in os.environ]
    if values:
      spec[key] = values[0]
  return {"driver": "s3", **spec}


@contextlib.contextmanager
def as_local(name: Path) -> Iterator[pathlib.Path]:
  """Provide a path on this machine, for a library that opens files.

  Args:
    name: of a file or a folder.

  Yields:
    The path itself; for a URL, the path of a copy, deleted after the body.

  Raises:
    OSError: it cannot be read.
  """
  if not is_url(name):
    yield pathlib.Path(name)
    return
  url = Url(name)
  with tempfile.TemporaryDirectory() as scratch:
    copy = pathlib.Path(scratch, url.name or url.bucket)
    for source in url.objects():
      target = copy if source == url else copy / source.relative_to(url)
      _make(target.parent)
      _write(target, source.read_bytes())
    yield copy


@contextlib.contextmanager
def replacing(path: Path, last: str | None = None) -> Iterator[str]:
  """Let the body write a file or a folder, then give it its name.

  Args:
    path: the final path, in a folder that exists; replaces what is there.
    last: for a folder, the file that readers look for. In a bucket it is
      deleted first and uploaded last, so that readers see no half of a folder.

  Yields:
    A free name in the same folder, for the body to create; for a URL, a name on
    this machine.

  Raises:
    FileNotFoundError: there is no such folder.
    OSError: it cannot be written; names `path`. The old contents stay.
  """
  if is_url(path):
    url = Url(path)
    with tempfile.TemporaryDirectory() as scratch:
      made = pathlib.Path(scratch, url.name or url.bucket)
      yield str(made)
      _upload(made, url, last)
    return
  with _temporary(path) as temporary:
    yield str(temporary)
    move(temporary, path)


@contextlib.contextmanager
def creating(path: Path) -> Iterator[str]:
  """Let the body write a new folder, see `replacing`.

  Raises:
    FileExistsError: another process was first.
    ValueError: a URL; in a bucket only single objects can be made this way.
  """
  insist_local(path, "The folder")
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
  if is_url(path):
    object_store.put(Url(path), data)
    return
  with replacing(path) as temporary:
    _write(pathlib.Path(temporary), data)


def create(path: Path, data: bytes) -> None:
  """Write a new object in a bucket.

  Args:
    path: its URL; for folders on a disk see `creating`.
    data: bytes that no other process would write, such as this one's name.

  Raises:
    FileExistsError: another process was first.
  """
  object_store.create(Url(path), data)


def write_text(path: Path, text: str) -> None:
  """Write a file of UTF-8 text, see `replacing`."""
  write_bytes(path, text.encode("utf-8"))


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
  """Write files of UTF-8 text, each whole or not at all.

  Args:
    folder: made if missing.
    texts: name of a file -> its text.

  Raises:
    OSError: a file cannot be written; the files before it are written.
  """
  make_folder(folder)
  for name, text in texts.items():
    write_text(_path(folder) / name, text)


def append(path: Path, data: bytes) -> None:
  """Append to a file, which is made if missing.

  If the process is killed, a part of the data may be there. Only after `flush`
  is the data surely on the disk.

  Raises:
    OSError: it cannot be written; names `path`.
  """
  with _naming(path):
    _append(pathlib.Path(path), data)


def truncate(path: Path, size: int) -> None:
  """Cut a file to its first `size` bytes; it is made if missing."""
  with _naming(path):
    _truncate(pathlib.Path(path), size)


def flush(path: Path) -> None:
  """Wait until a file is on the disk.

  Raises:
    OSError: it does not fit; names `path`.
  """
  with _naming(path):
    _flush(pathlib.Path(path))


def move(source: Path, target: Path, last: str | None = None) -> None:
  """Flush a finished file or folder, and move it to `target`.

  Args:
    source: on the same disk; on this machine if `target` is in a bucket.
    target: is replaced if it exists; a link itself, not what it points to.
    last: see `replacing`.

  Raises:
    OSError: it cannot be renamed; the old `target` stays.
  """
  if is_url(target):
    _upload(pathlib.Path(source), Url(target), last)
    _delete(pathlib.Path(source))
    return
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


def remove(path: Path, last: str | None = None) -> None:
  """Delete a file or a folder, if it exists.

  A folder is renamed first: a half-deleted one must not look whole.

  Args:
    path: of it.
    last: see `replacing`; deleted first in a bucket.
  """
  if is_url(path):
    _remove_objects(Url(path), last)
    return
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
  """Delete the temporary files that killed processes left.

  Args:
    folder: one that only the caller writes to; need not exist.
    below: whether to look into its folders too.
  """
  if is_url(folder):  # there are no temporary names in a bucket
    return
  root = pathlib.Path(folder)
  pattern = f"*{_TEMPORARY}{'[0-9a-f]' * _DIGITS}"
  for leftover in sorted((root.rglob if below else root.glob)(pattern)):
    _delete(leftover)


def remove_abandoned(folder: Path, *patterns: str) -> None:
  """Delete leftovers in a folder that several processes write to.

  A killed process looks like one on another machine. So files count as
  abandoned once nobody has written to them for an hour.

  Args:
    folder: need not exist.
    *patterns: of their names, besides the temporary ones.
  """
  if is_url(folder):
    return
  for pattern in (f"*{_TEMPORARY}*", *patterns):
    for path in sorted(pathlib.Path(folder).glob(pattern)):
      with contextlib.suppress(OSError):  # another user's file, or gone already
        if time.time() - _last_written(path) > _ABANDONED_S:
          _delete(path)


def make_folder(path: Path) -> None:
  """Make a folder and the folders above it, if missing.

  Raises:
    OSError: it cannot be made, or is a URL of another kind, which would make a
      folder such as `hdfs:`.
  """
  if is_url(path):  # a bucket has none
    return
  folder = pathlib.Path(path)
  for part in folder.parts:
    if _SCHEME.fullmatch(part):
      rest = os.fspath(folder).partition(f"{part}/")[2].lstrip("/")
      raise OSError(
        f"{part}//{rest} is a URL that cannot be used here; expected "
        "gs://BUCKET/... or s3://BUCKET/... at the start of a path, or a path "
        "of this machine. Mount what it names, and name the folder"
      )
  _make(folder)


def make_shared(root: Path, *names: str) -> pathlib.Path:
  """Make folders inside each other, with the permissions of the first.

  Args:
    root: gives its permissions to the others; made if missing.
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
    path: a folder of this user; another user's folder stays as it is.
    root: the folder whose permissions to copy.
  """
  mode = stat.S_IMODE(os.stat(root).st_mode)
  with contextlib.suppress(PermissionError):
    for child in pathlib.Path(path).iterdir():
      _set_mode(child, mode if child.is_dir() else mode & 0o666)
    _set_mode(pathlib.Path(path), mode)


def ensure_writable(folder: Path, setting: str) -> None:
  """Make a folder, and refuse it before any work if it is not writable.

  Args:
    folder: where a command is going to write.
    setting: the setting that names it, for the message.

  Raises:
    ValueError: it cannot be made, or nothing can be written there.
  """
  probe: Url | None = None
  try:
    if is_url(folder):
      probe = Url(folder) / f"writable{_TEMPORARY}{uuid.uuid4().hex[:_DIGITS]}"
      object_store.put(probe, b"")
      object_store.delete(probe)
      return
    make_folder(folder)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except object_store.StoreError as error:
    # The error names the object that was written as a test; the user named the
    # folder.
    text = str(error).removesuffix(".").removeprefix(f"{probe}")
    reason = text.removeprefix(" cannot be written to").removeprefix(": ")
    raise ValueError(
      f"{setting} {folder} cannot be written to: {reason}."
    ) from error
  except OSError as error:
    raise ValueError(f"{setting} cannot be written to: {error}.") from error


def is_text(value: str) -> bool:
  """Say whether UTF-8 can hold a text: it has no lone surrogates."""
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
  """Insist that a user's name can be the name of a file or a folder.

  Args:
    value: the name.
    setting: the setting that gave it, for the message.

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

  Every name that is not this project's own goes through this function.

  Args:
    folder: the folder that the result is in, whatever the name.
    name: of a file or a folder; the empty name is the folder itself.
    what: what the name is of, for the message.

  Returns:
    The path.

  Raises:
    ValueError: the name would lead elsewhere.
  """
  if name:
    check_name(name, what)
  return _path(folder) / name


def open_file(path: Path) -> io.BufferedReader:
  """Open a file to read; refuse a pipe, which would wait for ever.

  Raises:
    OSError: it cannot be opened, or is a pipe, a socket or a device.
  """
  if is_url(path):
    return Url(path).open()
  descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
  if not stat.S_ISREG(os.fstat(descriptor).st_mode):
    os.close(descriptor)
    # The same error as `open` raises for a folder, the most common case.
    kind = (errno.EISDIR, "Is a directory")
    if not os.path.isdir(path):
      kind = (errno.EINVAL, "Is a pipe or a device, not a file")
    raise OSError(*kind, os.fspath(path))
  return open(descriptor, "rb")


def open_unbuffered(path: Path) -> io.RawIOBase:
  """Open a file without reading ahead."""
  if is_url(path):
    return Url(path).open_unbuffered()
  return open(path, "rb", buffering=0)


def read_bytes(path: Path, limit: int) -> bytes:
  """Read a small file, see `open_file`.

  Args:
    path: the file.
    limit: largest size allowed, in bytes.

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


def written_state(path: Path) -> tuple[Any, ...]:
  """Give a value that changes when the file is written.

  Raises:
    OSError: there is no such file.
  """
  if is_url(path):
    return Url(path).version()
  stat_of = os.stat(path)
  return (stat_of.st_ino, stat_of.st_size, stat_of.st_mtime_ns)


def size_of(file: BinaryIO) -> int:
  """Count the bytes of an open file, at any position."""
  here = file.tell()
  size = file.seek(0, os.SEEK_END)
  file.seek(here)
  return size


def file_sha256(path: Path) -> str:
  """Hash the bytes of a file, as 64 hexadecimal digits."""
  with open_file(path) as file:
    return open_file_sha256(file)


def open_file_sha256(file: io.BufferedReader) -> str:
  """Hash all bytes of an open file, at any position."""
  file.seek(0)
  return hashlib.file_digest(file, "sha256").hexdigest()


_path = path  # where an argument has its name


def _upload(source: pathlib.Path, url: Url, last: str | None) -> None:
  """Upload a file, or a folder whose last file makes it complete."""
  if not source.is_dir():
    object_store.put_file(url, source)
    return
  _remove_objects(url, last)
  paths = [p for p in sorted(source.rglob("*")) if p.is_file()]
  targets = {p: url / p.relative_to(source).as_posix() for p in paths}
  final = [p for p in paths if last and p == source / last]
  from concurrent import futures  # where there is none, starts are faster

  with futures.ThreadPoolExecutor(_UPLOADS) as pool:
    early = {targets[p]: p for p in paths if p not in final}
    list(pool.map(object_store.put_file, early, early.values()))
  for p in final:
    object_store.put_file(targets[p], p)


def _remove_objects(url: Url, last: str | None) -> None:
  """Delete an object, and those below it, the last file of a folder first."""
  objects = url.objects()
  first = [one for one in objects if last and one == url / last]
  for one in [*first, *(one for one in objects if one not in first)]:
    object_store.delete(one)


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
  """Let an error name the file; it may name none, or the temporary one."""
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
