"""Objects in a bucket, `gs://` or `s3://`; only `core.files` may use it.

A bucket has no folders, no renames and no locks. Its objects appear whole, and
an upload can be made to fail if the object exists. A folder is a common
beginning of names, up to a `/`.

Servers fail for moments, so every request is repeated for a while. Errors that
do not pass (no rights, no bucket, no credentials, a wrong clock) give one line
that says what to do.

The libraries, fsspec's gcsfs and s3fs, are imported when a URL is used.
"""

import contextlib
import errno
import fnmatch
import functools
import importlib.util
import io
import logging
import os
import posixpath
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

# Seconds for which to repeat a request; most seconds between two tries.
PATIENCE_S, _PAUSE_S = 60.0, 8.0
# Smallest number of bytes of a reader's request: the number of the first
# request, and the limit. Each request that continues the one before doubles the
# number, up to this limit.
_LEAST_READ, _MOST_READ = 1 << 16, 1 << 23
# One slash too: `pathlib` makes one slash of two.
_URL = re.compile(r"(gs|s3):/+([^/]*)(.*)", re.DOTALL)

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)


class _Scheme(NamedTuple):
  """Facts about one kind of store, for messages.

  Attributes:
    module: that speaks with it.
    extra: of this package, that has it.
    credentials: how one gets some.
    rights: what reading and writing need.
  """

  module: str
  extra: str
  credentials: str
  rights: str


_SCHEMES = {
  "gs": _Scheme(
    "gcsfs",
    "gcs",
    "log in with `gcloud auth application-default login`, or name a key file "
    "in GOOGLE_APPLICATION_CREDENTIALS",
    "roles/storage.objectUser",
  ),
  "s3": _Scheme(
    "s3fs",
    "s3",
    "run `aws configure`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY",
    "s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject",
  ),
}
# Errors of libraries, by name, so that no library must be imported.
_NO_CREDENTIALS = {
  "google.auth.exceptions.DefaultCredentialsError",
  "google.auth.exceptions.RefreshError",
  "botocore.exceptions.NoCredentialsError",
  "botocore.exceptions.PartialCredentialsError",
  "botocore.exceptions.CredentialRetrievalError",
  "botocore.exceptions.ProfileNotFound",
  "botocore.exceptions.TokenRetrievalError",
}
_PASSING = {
  "aiohttp.client_exceptions.ClientError",
  "botocore.exceptions.HTTPClientError",
  "botocore.exceptions.ConnectionError",
  "gcsfs.retry.ChecksumError",
  "requests.exceptions.RequestException",
  "urllib3.exceptions.HTTPError",
}
_PASSING_NUMBERS = (
  *(errno.EBUSY, errno.EIO, errno.ETIMEDOUT),
  getattr(errno, "EREMOTEIO", errno.EIO),  # only Linux has it
)
_PASSING_STATUS = (408, 429)  # and all from 500 on
# Messages of stores and of Google's log-in when this machine's clock is wrong.
_CLOCK = (
  *("requesttimetooskewed", "request time and the current time"),
  *("request time and the server time", "short-lived token", "iat and exp"),
  *("signature expired", "not yet current", "not yet valid"),
  "token used too early",
)


class StoreError(OSError):
  """A store that cannot be read or written, so what it holds is unknown."""


class Url:
  """A path in a bucket, with the methods of `pathlib.Path` used here.

  Functions that change objects are in `core.files`.
  """

  def __init__(self, url: str | os.PathLike[str]):
    match = _URL.fullmatch(os.fspath(url))
    if match is None or not match[2]:
      raise ValueError(
        f"{os.fspath(url)!r}: expected gs://BUCKET/... or s3://BUCKET/..."
      )
    self.scheme, self.bucket, rest = match.groups()
    # A path with `..` never leaves the bucket.
    self.key = posixpath.normpath(f"/{rest}").lstrip("/")

  def __str__(self) -> str:
    return f"{self.scheme}://{self.place}"

  def __repr__(self) -> str:
    return f"Url({str(self)!r})"

  def __fspath__(self) -> str:
    return str(self)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Url) and str(self) == str(other)

  def __lt__(self, other: "Url") -> bool:
    return str(self) < str(other)

  def __hash__(self) -> int:
    return hash(str(self))

  def __truediv__(self, name: str | os.PathLike[str]) -> "Url":
    return Url(f"{self}/{os.fspath(name)}")

  @property
  def place(self) -> str:
    """The bucket, and the key in it."""
    return f"{self.bucket}/{self.key}" if self.key else self.bucket

  @property
  def name(self) -> str:
    """The last part."""
    return posixpath.basename(self.key)

  @property
  def stem(self) -> str:
    """The last part without its ending."""
    return posixpath.splitext(self.name)[0]

  @property
  def suffix(self) -> str:
    """The ending of the last part, with its dot."""
    return posixpath.splitext(self.name)[1]

  @property
  def parent(self) -> "Url":
    """The folder."""
    return Url(f"{self.scheme}://{self.bucket}/{posixpath.dirname(self.key)}")

  def with_name(self, name: str) -> "Url":
    """Replace the last part."""
    return self.parent / name

  def with_suffix(self, suffix: str) -> "Url":
    """Replace the ending of the last part."""
    return self.with_name(self.stem + suffix)

  def relative_to(self, folder: "Url") -> str:
    """Name an object relative to a folder above it."""
    return posixpath.relpath(self.key, folder.key or ".")

  def exists(self) -> bool:
    """Say whether there is an object, or a folder."""
    return _kind(self) is not None

  def is_file(self) -> bool:
    """Say whether there is an object."""
    return _kind(self) == "file"

  def is_dir(self) -> bool:
    """Say whether there are objects below it."""
    return _kind(self) == "directory"

  def is_symlink(self) -> bool:
    """Say no: buckets have no links."""
    return False

  def iterdir(self) -> Iterator["Url"]:
    """List objects and folders directly below."""
    for info in _request(self, lambda fs: _listed(fs, self.place)):
      name = posixpath.basename(info["name"].rstrip("/"))
      if info["name"].rstrip("/") != self.place:
        yield self / name

  def glob(self, pattern: str) -> Iterator["Url"]:
    """List the objects and folders directly below whose names match."""
    for path in self.iterdir():
      if fnmatch.fnmatchcase(path.name, pattern):
        yield path

  def rglob(self, pattern: str) -> Iterator["Url"]:
    """List the objects below, at any depth, whose names match."""
    for path in self.objects():
      if path != self and fnmatch.fnmatchcase(path.name, pattern):
        yield path

  def objects(self) -> list["Url"]:
    """List all objects below, at any depth, and itself if it is one."""
    places = _request(self, lambda fs: fs.find(self.place))
    return [Url(f"{self.scheme}://{place}") for place in sorted(places)]

  def size(self) -> int:
    """Count the bytes of an object."""
    return int(_about(self)["size"])

  def version(self) -> tuple[Any, ...]:
    """Give the version of the object, which changes when it is replaced."""
    info = _about(self)
    keys = ("size", "etag", "ETag", "generation")
    return tuple(info.get(key) for key in keys)

  def read_bytes(self) -> bytes:
    """Read an object."""
    return bytes(_request(self, lambda fs: fs.cat_file(self.place)))

  def read_range(self, start: int, end: int) -> bytes:
    """Read the bytes of an object from `start` to before `end`."""
    if end <= start:
      return b""
    return bytes(
      _request(self, lambda fs: fs.cat_file(self.place, start=start, end=end))
    )

  def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Read an object of text."""
    return self.read_bytes().decode(encoding, errors)

  def open(self, mode: str = "rb") -> io.BufferedReader:
    """Open an object to read; fetches little more than is read."""
    if mode != "rb":
      raise ValueError(
        f"{self}: objects are opened to read bytes, not {mode!r}"
      )
    return io.BufferedReader(_Ranges(self, _LEAST_READ), _LEAST_READ)

  def open_unbuffered(self) -> io.RawIOBase:
    """Open an object to read; fetches only what is read."""
    return _Ranges(self)


class _Ranges(io.RawIOBase):
  """An object that is read like a file, in ranges.

  Args:
    url: of the object.
    ahead: bytes to read where less is asked for; 0 reads just those.
  """

  def __init__(self, url: Url, ahead: int = 0):
    self.name = str(url)
    self._url, self._size, self._at = url, url.size(), 0
    self._ahead, self._start, self._data = ahead, 0, b""

  def readable(self) -> bool:
    """Say yes."""
    return True

  def seekable(self) -> bool:
    """Say yes."""
    return True

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    """Go to a place."""
    start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}
    self._at = max(start[whence] + offset, 0)
    return self._at

  def tell(self) -> int:
    """Return the place."""
    return self._at

  def readall(self) -> bytes:
    """Read from here to the end in one request."""
    data = self._url.read_range(self._at, self._size)
    self._at += len(data)
    return data

  def readinto(self, out: Any) -> int:
    """Fill `out` with the bytes from here on."""
    view = memoryview(out).cast("B")
    skip = self._at - self._start
    if not 0 <= skip < len(self._data):
      if self._data and skip == len(self._data):
        self._ahead = min(2 * self._ahead, _MOST_READ)
      end = min(self._at + max(view.nbytes, self._ahead), self._size)
      self._start, skip = self._at, 0
      self._data = self._url.read_range(self._at, end)
    data = self._data[skip : skip + view.nbytes]
    view[: len(data)] = data
    self._at += len(data)
    return len(data)


def is_url(path: str | os.PathLike[str]) -> bool:
  """Say whether a path names something in a bucket."""
  return os.fspath(path).startswith(("gs:/", "s3:/"))


def put(url: Url, data: bytes) -> None:
  """Write an object; replaces an old one."""
  _request(url, lambda fs: fs.pipe_file(url.place, data), "written to")


def put_file(url: Url, path: str | os.PathLike[str]) -> None:
  """Upload a file of this machine as an object, see `put`."""
  local = os.fspath(path)
  _request(url, lambda fs: fs.put_file(local, url.place), "written to")


def create(url: Url, data: bytes) -> None:
  """Write a new object.

  Args:
    url: of the object.
    data: bytes that no other process would write, such as this one's name.

  Raises:
    FileExistsError: there is one.
  """
  try:
    _request(
      url,
      lambda fs: fs.pipe_file(url.place, data, mode="create"),
      "written to",
    )
  except FileExistsError:
    # Perhaps this process wrote it, and only the answer was lost.
    if url.read_bytes() != data:
      raise


def delete(url: Url) -> None:
  """Delete an object, if it exists."""

  def rm(fs: Any) -> None:
    try:
      fs.rm_file(url.place)
    except FileNotFoundError:
      return

  _request(url, rm, "written to")


def _about(url: Url) -> dict[str, Any]:
  """Read a store's information about an object.

  Raises:
    IsADirectoryError: objects are below, and there is none of this name.
    OSError: see `_request`.
  """

  def ask(fs: Any) -> dict[str, Any]:
    if url.scheme == "gs" and url.key:
      # gcsfs's `info` also asks what is below, twice, and cancels what comes
      # late: a server may still answer it during the next request.
      with contextlib.suppress(FileNotFoundError):
        return dict(
          fs.call("GET", "b/{}/o/{}", url.bucket, url.key, json_out=True)
        )
    return dict(fs.info(url.place))

  info = _request(url, ask)
  if info.get("type") == "directory":
    raise IsADirectoryError(errno.EISDIR, "Is a directory", str(url))
  return info


def _kind(url: Url) -> str | None:
  """Say whether a URL is a `file`, a `directory` or nothing."""
  try:
    # Do not use fsspec's `exists`: if a server fails, it says that nothing
    # exists.
    return str(_request(url, lambda fs: fs.info(url.place))["type"])
  except FileNotFoundError:
    _insist_on_bucket(url.scheme, url.bucket)
    return None


@functools.cache
def _insist_on_bucket(scheme: str, bucket: str) -> None:
  """Insist that the bucket exists: a bucket with a wrong name looks empty."""
  url = Url(f"{scheme}://{bucket}")

  def look(fs: Any) -> None:
    if scheme == "gs":
      fs.call("GET", "b/{}/o", bucket, maxResults=1)
    else:
      fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)

  try:
    _request(url, look)
  except FileNotFoundError as error:
    raise _no_bucket(url) from error


def _listed(fs: Any, place: str) -> list[dict[str, Any]]:
  """List a folder; one that is not there is empty."""
  try:
    return list(fs.ls(place, detail=True))
  except FileNotFoundError:
    return []


def _request(
  url: Url, ask: Callable[[Any], _Result], verb: str = "read"
) -> _Result:
  """Repeat a request until it is answered, or until time is up.

  Args:
    url: what it is about.
    ask: makes it of fsspec's file system.
    verb: what cannot be done, for the message.

  Returns:
    The answer.

  Raises:
    OSError: what to do about it, on one line.
  """
  end, pause = time.monotonic() + PATIENCE_S, 0.1
  while True:
    try:
      return ask(_file_system(url.scheme, os.getpid()))
    except Exception as error:  # four libraries may raise anything
      if not _is_passing(error):
        raise _explained(url, verb, error) from error
      if time.monotonic() + pause > end:
        raise StoreError(
          f"{url} cannot be {verb}: the server failed for {PATIENCE_S:.0f} "
          f"seconds ({_one_line(error)}). Files written before that are "
          "complete: run the same command again."
        ) from error
      if pause > _PAUSE_S / 4:  # long enough to tell the user
        logger.warning("%s: %s. Trying again.", url, _one_line(error))
    time.sleep(pause * random.uniform(0.5, 1))
    pause = min(2 * pause, _PAUSE_S)


@functools.cache
def _file_system(scheme: str, process: int) -> Any:
  """Find fsspec's file system of a kind of URL, one per process."""
  del process
  about = _SCHEMES[scheme]
  if not importlib.util.find_spec(about.module):
    raise StoreError(
      f"{scheme}:// needs {about.module}: pip install "
      f"'prompt-tuning[{about.extra}]'"
    )
  # No cache: another process may have written a moment ago.
  if scheme == "gs":
    # The library also prints a stack for every error that it raises.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # Do not use the class for hierarchical buckets: it first asks for every
    # bucket whether it is hierarchical.
    from gcsfs.core import GCSFileSystem

    return GCSFileSystem(use_listings_cache=False)
  from s3fs import S3FileSystem

  # This module repeats requests; the library would wait longer.
  once = {"retries": {"mode": "standard", "total_max_attempts": 1}}
  return S3FileSystem(use_listings_cache=False, config_kwargs=once)


def _names(error: BaseException) -> set[str]:
  """Name an error's classes, with their modules."""
  return {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}


def _status(error: BaseException) -> int | None:
  """Read the HTTP status from gcsfs's error."""
  code = str(getattr(error, "code", None))
  return int(code) if code.isdecimal() else None


def _is_passing(error: Exception) -> bool:
  """Say whether the same request may succeed a moment later."""
  names = _names(error)
  if names & _NO_CREDENTIALS:
    return False
  if "gcsfs.retry.HttpError" in names:
    status = _status(error) or 0
    return status >= 500 or status in _PASSING_STATUS
  if names & _PASSING or isinstance(error, ConnectionError | TimeoutError):
    return True
  return isinstance(error, OSError) and error.errno in _PASSING_NUMBERS


def _explained(url: Url, verb: str, error: Exception) -> Exception:
  """Say what to do about an error that does not pass."""
  about, text = _SCHEMES[url.scheme], _one_line(error)
  if isinstance(error, FileNotFoundError):
    if verb == "read":
      return FileNotFoundError(errno.ENOENT, "No such object", str(url))
    return _no_bucket(url)
  if isinstance(error, FileExistsError | StoreError):
    return error
  said = f"{error} {error.__cause__}".lower()
  if any(words in said for words in _CLOCK):
    return StoreError(
      f"{url} cannot be {verb}: this machine's clock is off ({text}). Set it, "
      "for instance with `timedatectl set-ntp true`."
    )
  if _names(error) & _NO_CREDENTIALS or _status(error) == 401:
    return StoreError(
      f"{url} cannot be {verb}: no credentials that the store accepts "
      f"({text}). To get some, {about.credentials}."
    )
  if text == "Forbidden":  # an answer without a text, as for sizes
    text = "a wrong clock gets the same answer"
  forbidden = str(error).startswith("Forbidden") or _status(error) == 403
  if forbidden or isinstance(error, PermissionError):
    return StoreError(
      f"{url} cannot be {verb}: these credentials do not allow it ({text}). "
      f"Ask the bucket's owner for {about.rights}, or {about.credentials}."
    )
  return StoreError(f"{url} cannot be {verb}: {text}")


def _no_bucket(url: Url) -> StoreError:
  return StoreError(
    f"{url}: there is no bucket {url.bucket!r}. Check its name, or make it."
  )


def _one_line(error: BaseException) -> str:
  text = " ".join(str(error).split()) or type(error).__name__
  return text[:300]
