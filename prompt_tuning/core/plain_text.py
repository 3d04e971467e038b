"""The text files of users, line by line, and the JSON values in them.

UTF-8, with or without the mark that spreadsheets put before it. Lines end in a
line feed, a carriage return, or both. Every error names the file and the line.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from prompt_tuning.core import files

_END_OF_LINE = re.compile("(?<=\r)(?!\n)")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# The first bytes of files that are not text.
_PACKED = {
  b"\x1f\x8b": "gzip",
  b"PK\x03\x04": "zip or spreadsheet",
  b"\xfd7zXZ": "xz",
  b"PAR1": "Parquet",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_T = TypeVar("_T")


def text_lines(path: str) -> Iterator[str]:
  """Read a text file line by line, without their ends; blank ones too.

  Raises:
    FileNotFoundError: no such file.
    ValueError: an empty file, or a line that is not UTF-8, with file and line.
  """
  if not files.is_file(path):
    raise FileNotFoundError(f"No data file {path}.")
  with files.open_file(path) as file:
    texts = (line.rstrip("\r\n") for line in every_line(decode(path, file)))
    yield from not_empty(path, texts, "lines")


def lines(path: str) -> Iterator[str]:
  """Read the lines of a UTF-8 file, each with the line feed that ends it.

  Raises:
    ValueError: a line that is not UTF-8, with file and line.
  """
  with files.open_file(path) as file:
    yield from decode(path, file)


def decode(path: str, content: Iterable[bytes]) -> Iterator[str]:
  """Decode the lines of a file.

  Args:
    path: of the file, for errors.
    content: its lines.

  Yields:
    The lines, the first without a byte-order mark.

  Raises:
    ValueError: a line that is not UTF-8, or holds a zero byte, with its number.
  """
  for number, line in enumerate(content, 1):
    if number == 1:
      _insist_on_text(path, line)
    if b"\0" in line:
      raise ValueError(
        f"{path}:{number}: the line has a zero byte, so the file is binary; "
        "expected UTF-8 text."
      )
    try:
      yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
      raise ValueError(
        f"{path}:{number}: not UTF-8: byte 0x{line[error.start]:02x} at "
        f"position {error.start}. Convert the file, for instance with "
        "`iconv -f latin1 -t utf-8`."
      ) from error


def _insist_on_text(path: str, start: bytes) -> None:
  """Refuse files of other kinds by their first bytes."""
  for signature, kind in _PACKED.items():
    if start.startswith(signature):
      raise ValueError(
        f"{path}:1: a {kind} file; expected UTF-8 text. Unpack it, or save it "
        "as text."
      )
  if start.startswith(_UTF16):
    raise ValueError(
      f"{path}:1: UTF-16; expected UTF-8 text. Convert the file, for instance "
      "with `iconv -f utf-16 -t utf-8`."
    )


def json_value(path: str, text: str, first_line: int = 1) -> Any:
  """Read a JSON value that a user wrote.

  Args:
    path: of the file, for errors.
    text: the value.
    first_line: of the text in the file.

  Raises:
    ValueError: not JSON, or more than can be read: with file and line.
  """
  place = f"{path}:{first_line}"
  try:
    value = json.loads(text)
    if _SURROGATE.search(text):
      json.dumps(value, ensure_ascii=False).encode()
  except json.JSONDecodeError as error:
    raise ValueError(
      f"{path}:{first_line + error.lineno - 1}: not JSON: {error.msg} at "
      f"column {error.colno}."
    ) from error
  except RecursionError as error:
    raise ValueError(
      f"{place}: lists and objects are nested too deeply to be read."
    ) from error
  except UnicodeEncodeError as error:
    code = ord(error.object[error.start])
    raise ValueError(
      f"{place}: \\u{code:04x} is half a character: expected a second half, or "
      "the character itself."
    ) from error
  except ValueError as error:
    raise ValueError(f"{place}: a number that cannot be read: {error}") from (
      error
    )
  return value


def every_line(texts: Iterable[str]) -> Iterator[str]:
  """Also divide lines that a carriage return alone ends."""
  for text in texts:
    if "\r" in text:
      yield from filter(None, _END_OF_LINE.split(text))
    else:
      yield text


def not_empty(path: str, values: Iterable[_T], what: str) -> Iterator[_T]:
  """Hand values on, and insist that there are some.

  Args:
    path: of the file, for the error.
    values: what it holds.
    what: calls them something.

  Yields:
    The values.

  Raises:
    ValueError: there are none.
  """
  count = 0
  for value in values:
    count += 1
    yield value
  if not count:
    raise ValueError(f"{path}: the file has no {what}; expected at least one.")
