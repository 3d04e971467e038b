"""Rows with named columns from JSONL, CSV and TSV files, with exact errors."""

import csv
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prompt_tuning.core import tree

# Far beyond Python's own limit of 131,072: over-long text is cut, not refused.
_LONGEST_CELL = 1 << 30

FORMATS = (".jsonl", ".csv", ".tsv")


class Row(NamedTuple):
  """One row of a file.

  Attributes:
    place: `FILE:LINE`, for error messages.
    values: by column name; text in CSV and TSV, any JSON value in JSONL.
  """

  place: str
  values: dict[str, Any]

  def value(self, column: str, needed_for: str) -> Any:
    """Return a column's value.

    Args:
      column: its name.
      needed_for: what asks for it, for the error.

    Raises:
      ValueError: no such column in this row, or null.
    """
    if column not in self.values:
      raise ValueError(
        f"{self.place}: no column {column!r}, which {needed_for} needs."
        f"{tree.nearest(column, self.values)} "
        f"This row has: {', '.join(self.values)}."
      )
    value = self.values[column]
    if value is None:
      raise ValueError(
        f"{self.place}: column {column!r} is null; {needed_for} needs a value."
      )
    return value


def read(path: str, columns: Sequence[str] = ()) -> Iterator[Row]:
  """Read a file row by row.

  Args:
    path: ends in `.jsonl` (one object per line), `.csv` (quoted as by a
      spreadsheet) or `.tsv` (tab-separated, no quoting). UTF-8.
    columns: names of the columns of a CSV or TSV file without a header line;
      empty: its first line holds the names.

  Yields:
    The rows. Blank lines are skipped.

  Raises:
    FileNotFoundError: no such file.
    ValueError: another ending, not UTF-8, no rows, a line that is not a JSON
      object, or a row with more or fewer cells than columns; each with file,
      line and what was expected.
  """
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f"No data file {path}.")
  with open(path, "rb") as file:
    yield from parse(path, file, columns)


def parse(
  path: str, content: Iterable[bytes], columns: Sequence[str] = ()
) -> Iterator[Row]:
  """Read the rows of a file whose content is here already.

  Args:
    path: of the file; its ending says what the content is.
    content: its lines.
    columns: see `read`.

  Yields:
    See `read`.

  Raises:
    ValueError: see `read`.
  """
  ending = pathlib.Path(path).suffix
  if ending not in FORMATS:
    raise ValueError(
      f"{path}: expected a file ending in {', '.join(FORMATS)}, "
      f"got {ending or 'no ending'!r}."
    )
  count = 0
  texts = _decode(path, content)
  if ending == ".jsonl":
    rows = _json_rows(path, texts)
  else:
    rows = _cell_rows(path, texts, columns)
  for row in rows:
    count += 1
    yield row
  if not count:
    raise ValueError(f"{path}: the file has no rows; expected at least one.")


def lines(path: str) -> Iterator[str]:
  """Read a UTF-8 file line by line.

  Raises:
    ValueError: a line that is not UTF-8, with file and line.
  """
  with open(path, "rb") as file:
    yield from _decode(path, file)


def _decode(path: str, content: Iterable[bytes]) -> Iterator[str]:
  for number, line in enumerate(content, 1):
    try:
      # A byte-order mark is what spreadsheets put before UTF-8.
      yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
      raise ValueError(
        f"{path}:{number}: not UTF-8: byte 0x{line[error.start]:02x} at "
        f"position {error.start}. Convert the file, for instance with "
        "`iconv -f latin1 -t utf-8`."
      ) from error


def _json_rows(path: str, texts: Iterable[str]) -> Iterator[Row]:
  for number, line in enumerate(texts, 1):
    if not line.strip():
      continue
    place = f"{path}:{number}"
    try:
      values = json.loads(line)
    except json.JSONDecodeError as error:
      raise ValueError(
        f"{place}: not JSON: {error.msg} at column {error.colno}; expected one "
        "object per line."
      ) from error
    if not isinstance(values, dict):
      raise ValueError(
        f"{place}: expected a JSON object with named columns, got "
        f"{type(values).__name__}."
      )
    yield Row(place, values)


def _cell_rows(
  path: str, texts: Iterable[str], columns: Sequence[str]
) -> Iterator[Row]:
  csv.field_size_limit(_LONGEST_CELL)
  if path.endswith(".tsv"):
    # One line is one row: a stray quote must not swallow the next ones.
    reader = csv.reader(texts, delimiter="\t", quoting=csv.QUOTE_NONE)
  else:
    reader = csv.reader(texts, strict=True)
  names = list(columns)
  while True:
    # `line_num` is the last line read: a quoted cell may span several.
    place = f"{path}:{reader.line_num + 1}"
    try:
      cells = next(reader, None)
    except csv.Error as error:
      raise ValueError(f"{place}: not CSV: {error}.") from error
    if cells is None:
      return
    if not cells:
      continue
    if not names:
      names = _header(place, cells)
      continue
    if len(cells) != len(names):
      raise ValueError(
        f"{place}: {len(cells)} cells, expected {len(names)}: "
        f"{', '.join(names)}."
      )
    yield Row(place, dict(zip(names, cells, strict=True)))


def _header(place: str, cells: list[str]) -> list[str]:
  if len(set(cells)) < len(cells) or "" in cells:
    raise ValueError(
      f"{place}: expected a header of distinct column names, got "
      f"{', '.join(map(repr, cells))}. A file without a header needs "
      "`columns`."
    )
  return cells
