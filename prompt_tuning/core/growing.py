"""Files that grow, on a disk or in a bucket, where nothing can be appended to.

By pieces that are each there whole (`Growing`), by lines that are put together
now and then (`Appended`), or by the hand of a library (`Mirrored`).
"""

import io
import pathlib
import tempfile
from typing import BinaryIO

from prompt_tuning.core import files, object_store
from prompt_tuning.core.object_store import Url, is_url


class Growing:
  """A file that grows by pieces, each of which is there whole once written.

  In a bucket, where nothing can be appended to, every piece is an object of its
  own below the file's name, called after the number of bytes before it.
  """

  def __init__(self, path: files.Path):
    self._path = files.path(path)
    self._is_url = is_url(path)
    self._size = 0  # in a bucket, since it was cut off

  def is_begun(self) -> bool:
    """Say whether anything is in it."""
    if not self._is_url:
      return self._path.exists() and self._path.stat().st_size > 0
    return self._path.exists()

  def open(self) -> BinaryIO:
    """Open what is there of it to read, which may be nothing."""
    if not self._is_url:
      there = self._path.exists()
      return self._path.open("rb") if there else io.BytesIO()
    return _Named(str(self._path), b"".join(self._pieces().values()))

  def truncate(self, size: int) -> None:
    """Cut it off behind `size` bytes; it is made where it is missing."""
    if not self._is_url:
      files.truncate(self._path, size)
      return
    for start, piece in self._pieces().items():
      if start < size < start + len(piece):
        object_store.put(self._piece(start), piece[: size - start])
    # The last first, so that a kill leaves no gap; one left by another goes.
    names = (piece.name for piece in self._path.iterdir())
    for start in sorted(map(int, filter(str.isdecimal, names)), reverse=True):
      if start >= size:
        object_store.delete(self._piece(start))
    self._size = size

  def append(self, data: bytes) -> None:
    """Write a piece behind where it was cut off, and wait until it is safe."""
    if not self._is_url:
      files.append(self._path, data)
      files.flush(self._path)
      return
    object_store.put(self._piece(self._size), data)
    self._size += len(data)

  def move(self, target: files.Path) -> None:
    """Give the whole file its name, once there is no more to come."""
    if not self._is_url:
      files.move(self._path, target)
      return
    with self.open() as file:
      object_store.put(Url(target), file.read())
    files.remove(self._path)

  def _pieces(self) -> dict[int, bytes]:
    """Read the pieces, by where they start, as far as they follow each other.

    What a kill left out of order is none of it.
    """
    pieces: dict[int, bytes] = {}
    end = 0
    for piece in sorted(self._path.iterdir()):
      if piece.name.isdecimal() and int(piece.name) == end:
        pieces[end] = piece.read_bytes()
        end += len(pieces[end])
    return pieces

  def _piece(self, start: int) -> Url:
    return Url(self._path / f"{start:015d}")


class Appended:
  """A file to whose end lines are written, many more than are worth a put.

  In a bucket it is put whole, now and then; until then lines are in memory.
  """

  def __init__(self, path: files.Path):
    self._path = files.path(path)
    self._lines: list[bytes] | None = None  # in a bucket, once they are known
    self._is_put = True

  def append(self, data: bytes) -> None:
    """Write behind the end of the file, which is made where it is missing."""
    if not is_url(self._path):
      files.append(self._path, data)
      return
    if self._lines is None:
      there = self._path.is_file()
      self._lines = [self._path.read_bytes()] if there else []
    self._lines.append(data)
    self._is_put = False

  def put(self) -> None:
    """Let others see all of it."""
    if not self._is_put:
      object_store.put(Url(self._path), b"".join(self._lines or ()))
      self._is_put = True


class Mirrored:
  """A folder that a library fills which writes on this machine only.

  Attributes:
    local: where the library writes; the folder itself, unless it is a URL.
  """

  def __init__(self, folder: files.Path):
    self._sizes: dict[pathlib.Path, int] = {}
    self._url = Url(folder) if is_url(folder) else None
    self._scratch = None
    self.local = files.path(folder)
    if self._url is not None:
      self._scratch = tempfile.TemporaryDirectory()
      self.local = pathlib.Path(self._scratch.name)

  def put(self) -> None:
    """Let others see what the library has written."""
    if self._url is None:
      return
    for written in sorted(self.local.rglob("*")):
      size = written.stat().st_size
      if written.is_file() and self._sizes.get(written) != size:
        name = written.relative_to(self.local).as_posix()
        object_store.put_file(self._url / name, written)
        self._sizes[written] = size

  def close(self) -> None:
    """Let others see all of it, and delete the copy."""
    self.put()
    if self._scratch is not None:
      self._scratch.cleanup()


class _Named(io.BytesIO):
  """Bytes that say what they were read from."""

  def __init__(self, name: str, data: bytes):
    super().__init__(data)
    self.name = name
