"""The one error that every reader and writer of checkpoints raises."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence

from prompt_tuning.core import files

ABSENT = "nothing"


@dataclasses.dataclass(frozen=True)
class Mismatch:
  """One difference between a checkpoint and what was expected.

  Attributes:
    path: the leaf, or the file, that is wrong.
    expected: the expected value; `nothing` for a surplus leaf.
    found: the value found; `nothing` for a missing leaf.
    hint: what to do about it, if known.
  """

  path: str
  expected: str
  found: str
  hint: str = ""

  def __str__(self) -> str:
    line = f"{self.path}: expected {self.expected}; found {self.found}."
    return f"{line} {self.hint}" if self.hint else line


class CheckpointError(ValueError):
  """A checkpoint that cannot be read, written or matched.

  Attributes:
    path: the checkpoint.
    mismatches: everything that is wrong with it, not only the first thing.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    mismatches: Sequence[Mismatch],
    hint: str = "",
  ):
    self.path = os.fspath(path)
    self.mismatches = tuple(mismatches)
    count = len(self.mismatches)
    if [m.path for m in self.mismatches] == [self.path]:  # one line says it
      super().__init__(f"{self.mismatches[0]} {hint}".rstrip())
      return
    title = f"{self.path}: {count} mismatch{'es' if count > 1 else ''}."
    lines = [f"  {m}" for m in self.mismatches]
    super().__init__("\n".join([title, *lines, *([hint] if hint else [])]))

  def named(self, path: str) -> list[Mismatch]:
    """Put one leaf's name into all mismatches."""
    return [dataclasses.replace(m, path=path) for m in self.mismatches]


class DamagedLeafError(CheckpointError):
  """A leaf whose bytes are missing or damaged; `path` is its name."""


def unreadable(
  path: str | os.PathLike[str], expected: str, found: str, hint: str = ""
) -> CheckpointError:
  """Build the error about one file with wrong contents."""
  mismatch = Mismatch(os.fspath(path), expected, found, hint)
  return CheckpointError(path, [mismatch])


def describe(error: BaseException) -> str:
  """Put another library's exception on one line, without its stack."""
  text = " ".join(str(error).split())
  text = re.split(r" \[(?:tensorstore_spec|source locations)=", text)[0]
  return f"{type(error).__name__}: {text}"[:400]


@contextlib.contextmanager
def parsing(path: str | os.PathLike[str], expected: str) -> Iterator[None]:
  """Turn any error of a foreign parser into a `CheckpointError`.

  Args:
    path: the file being parsed.
    expected: what it should be, for the message.

  Raises:
    CheckpointError: the body raised. A parser of a foreign format may raise any
      error on damaged bytes; every error means that they are not that format.
  """
  try:
    yield
  except (CheckpointError, files.StoreError):
    raise
  except Exception as error:
    raise unreadable(path, expected, describe(error)) from error
