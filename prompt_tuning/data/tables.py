"""The reader of users' files, for training and inference.

Rows with named columns come from JSONL, JSON, CSV and TSV files, whose text
`core.plain_text` reads; every error names the file and the line.
"""

import csv
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prompt_tuning.core import files, plain_text, tree

# Far beyond Python's own limit of 131,072: over-long text is cut, not refused.
_LONGEST_CELL = 1 << 30

FORMATS = (".jsonl", ".json", ".csv", ".tsv")
# The name under which pandas writes an index without a name.
_INDEX = "Unnamed: 0"

_KINDS = {list: "a list", dict: "an object"}


class Row(NamedTuple):
  """One row of a file.

  Attributes:
    place: `FILE:LINE`, for error messages.
    values: by column name; text in CSV and TSV, any JSON value in JSON.
  """

  place: str
  values: dict[str, Any]

  def value(self, column: str, needed_for: str) -> Any:
    """Return a column's value.

    Args:
      column: its name.
      needed_for: the setting that needs it, for the error.

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

  def text(self, column: str, needed_for: str) -> str:
    """Return a column's value as text.

    Args:
      column: its name.
      needed_for: see `value`.

    Raises:
      ValueError: see `value`; or a list, an object, or no number.
    """
    value = self.value(column, needed_for)
    return as_text(f"{self.place}: column {column!r}", value, needed_for)


def as_text(place: str, value: Any, needed_for: str) -> str:
  """Write a JSON value as text, truth values as JSON does.

  Args:
    place: its position, for the error.
    value: text, a number, true or false.
    needed_for: the setting that needs it, for the error.

  Raises:
    ValueError: a list or an object, which has no single text form; or NaN or
      infinity.
  """
  if isinstance(value, list | dict):
    raise ValueError(
      f"{place} is {_KINDS[type(value)]}, {value!r:.80}; {needed_for} needs a "
      "text, a number, or true or false. Write the value as a text."
    )
  if isinstance(value, float) and not math.isfinite(value):
    raise ValueError(
      f"{place} is {value}, which is not a number; {needed_for} needs a text, "
      "a number, or true or false."
    )
  if isinstance(value, bool):
    return "true" if value else "false"
  return str(value)


def read(path: str, columns: Sequence[str] = ()) -> Iterator[Row]:
  """Read a file row by row.

  Args:
    path: ends in `.jsonl` (one object per line), `.json` (the same, or a list
      of objects), `.csv` (quoted as by a spreadsheet) or `.tsv` (tab-separated,
      no quoting), in any case.
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
  if not files.is_file(path):
    raise FileNotFoundError(f"No data file {path}.")
  with files.open_file(path) as file:
    yield from parse(path, file, columns)


def ending(path: str) -> str | None:
  """Return the ending of a file with named columns; None for other files."""
  suffix = pathlib.Path(path).suffix.lower()
  return suffix if suffix in FORMATS else None


def parse(
  path: str, content: Iterable[bytes], columns: Sequence[str] = ()
) -> Iterator[Row]:
  """Read the rows of a file whose content is already loaded.

  Args:
    path: path of the file; its ending decides the format.
    content: the lines of the file.
    columns: see `read`.

  Yields:
    See `read`.

  Raises:
    ValueError: see `read`.
  """
  texts = plain_text.every_line(plain_text.decode(path, content))
  match ending(path):
    case ".jsonl":
      rows = _json_rows(path, texts)
    case ".json":
      rows = _document_rows(path, texts)
    case ".csv":
      rows = _csv_rows(path, texts, columns)
    case ".tsv":
      rows = _tsv_rows(path, texts, columns)
    case _:
      suffix = pathlib.Path(path).suffix or "no ending"
      raise ValueError(
        f"{path}: expected a file ending in {', '.join(FORMATS)}, "
        f"got {suffix!r}."
      )
  yield from plain_text.not_empty(path, rows, "rows")


def _json_rows(path: str, texts: Iterable[str]) -> Iterator[Row]:
  for number, line in enumerate(texts, 1):
    if line.strip():
      yield _row(
        f"{path}:{number}", plain_text.json_value(path, line.rstrip(), number)
      )


def _document_rows(path: str, texts: Iterable[str]) -> Iterator[Row]:
  """Read a list of objects, or an object per line."""
  lines = list(texts)
  content = "".join(lines)
  if not content.lstrip().startswith("["):
    yield from _json_rows(path, lines)
    return
  for number, values in enumerate(plain_text.json_value(path, content)):
    yield _row(f"{path}: [{number}]", values)


def _row(place: str, values: Any) -> Row:
  if not isinstance(values, dict):
    raise ValueError(
      f"{place}: expected a JSON object with named columns, got "
      f"{type(values).__name__}."
    )
  return Row(place, values)


def _csv_rows(
  path: str, texts: Iterable[str], columns: Sequence[str]
) -> Iterator[Row]:
  csv.field_size_limit(_LONGEST_CELL)
  reader = csv.reader(texts, strict=True)

  def cells() -> Iterator[tuple[str, list[str]]]:
    while True:
      # `line_num` is the last line read: a quoted cell may span several.
      place = f"{path}:{reader.line_num + 1}"
      try:
        line = next(reader, None)
      except csv.Error as error:
        raise ValueError(f"{place}: not CSV: {error}.") from error
      if line is None:
        return
      yield place, line

  yield from _named(cells(), columns)


def _tsv_rows(
  path: str, texts: Iterable[str], columns: Sequence[str]
) -> Iterator[Row]:
  # One line is one row: a stray quote must not swallow the next ones.
  rows = (
    (f"{path}:{number}", text.rstrip("\r\n"))
    for number, text in enumerate(texts, 1)
  )
  return _named(
    ((place, text.split("\t") if text else []) for place, text in rows), columns
  )


def _named(
  rows: Iterable[tuple[str, list[str]]], columns: Sequence[str]
) -> Iterator[Row]:
  """Give cells the names of their columns."""
  names = list(columns)
  for place, cells in rows:
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
  if len(cells) > 1 and not cells[0] and _INDEX not in cells:
    cells = [_INDEX, *cells[1:]]  # of pandas: rows have numbers in front
  if len(set(cells)) < len(cells) or "" in cells:
    raise ValueError(
      f"{place}: expected a header of distinct column names, got "
      f"{', '.join(map(repr, cells))}. A file without a header needs "
      "`columns`."
    )
  return cells
