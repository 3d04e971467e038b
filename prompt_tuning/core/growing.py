"""Files that grow, on a disk or in a bucket, which cannot append.

They grow by whole pieces (`Growing`), by lines that are uploaded now and then
(`Appended`), or because a library writes to them (`Mirrored`).
"""

import io
import pathlib
import tempfile
from typing import BinaryIO

from prompt_tuning.core import files, object_store
from prompt_tuning.core.object_store import Url, is_url


class Growing:
  """A file that grows by whole pieces.

  A bucket cannot append. There every piece is its own object below the file's
  name, and its name is the number of bytes before it.
  """

  def __init__(self, path: files.Path):
    self._path = files.path(path)
    self._is_url = is_url(path)
    self._size = 0  # in a bucket, since it was cut off

  def is_begun(self) -> bool:
    """Say whether the file has any bytes."""
    if not self._is_url:
      return self._path.exists() and self._path.stat().st_size > 0
    return self._path.exists()

  def open(self) -> BinaryIO:
    """Open the pieces written so far, perhaps none, to read."""
    if not self._is_url:
      there = self._path.exists()
      return self._path.open("rb") if there else io.BytesIO()
    return _Named(str(self._path), b"".join(self._pieces().values()))

  def truncate(self, size: int) -> None:
    """Cut the file to its first `size` bytes; it is made if missing."""
    if not self._is_url:
      files.truncate(self._path, size)
      return
    for start, piece in self._pieces().items():
      if start < size < start + len(piece):
        object_store.put(self._piece(start), piece[: size - start])
    # Delete the last piece first, so that a kill leaves no gap. This also
    # deletes pieces after an older gap, which `_pieces` ignores.
    names = (piece.name for piece in self._path.iterdir())
    for start in sorted(map(int, filter(str.isdecimal, names)), reverse=True):
      if start >= size:
        object_store.delete(self._piece(start))
    self._size = size

  def append(self, data: bytes) -> None:
    """Write the next piece, and wait until it is stored.

    In a bucket the next piece starts where `truncate` cut the file, or at 0.
    """
    if not self._is_url:
      files.append(self._path, data)
      files.flush(self._path)
      return
    object_store.put(self._piece(self._size), data)
    self._size += len(data)

  def move(self, target: files.Path) -> None:
    """Give the complete file its final name."""
    if not self._is_url:
      files.move(self._path, target)
      return
    with self.open() as file:
      object_store.put(Url(target), file.read())
    files.remove(self._path)

  def _pieces(self) -> dict[int, bytes]:
    """Read the pieces in order of their starts, up to the first gap.

    Pieces that a kill left after a gap do not count.
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
  """A file that gets lines too often to upload each one.

  In a bucket the whole file is uploaded now and then; until then the lines are
  in memory.
  """

  def __init__(self, path: files.Path):
    self._path = files.path(path)
    self._lines: list[bytes] | None = None  # in a bucket, once they are known
    self._is_put = True

  def append(self, data: bytes) -> None:
    """Append to the file, which is made if missing."""
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
  """A folder for a library that can write on this machine only.

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
    """Upload what the library has written."""
    if self._url is None:
      return
    for written in sorted(self.local.rglob("*")):
      size = written.stat().st_size
      if written.is_file() and self._sizes.get(written) != size:
        name = written.relative_to(self.local).as_posix()
        object_store.put_file(self._url / name, written)
        self._sizes[written] = size

  def close(self) -> None:
    """Upload all of it, and delete the local copy."""
    self.put()
    if self._scratch is not None:
      self._scratch.cleanup()


class _Named(io.BytesIO):
  """Bytes with the name of the file that they were read from."""

  def __init__(self, name: str, data: bytes):
    super().__init__(data)
    self.name = name
