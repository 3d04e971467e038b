"""Inputs from files: the lines of a text, or rows with named columns."""

import json
import os
from collections.abc import Iterator
from typing import Any

from prompt_tuning.core import plain_text
from prompt_tuning.data import tables
from prompt_tuning.data.spec import INPUTS, TARGETS

# Short names that people write -> the names of tasks.
_NAMES = {"inputs": INPUTS, "targets": TARGETS}


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
  """Read examples one at a time.

  Args:
    path: a file of rows, see `tables.read`, with the column `inputs`, and
      optionally `targets` and others; in other files, every line is an input.

  Yields:
    Examples with `inputs_pretokenized`, `targets_pretokenized` (if given), and
    the other columns unchanged.

  Raises:
    FileNotFoundError: no such file.
    ValueError: an empty file, a row that is not such an example, or text that
      is not in UTF-8.
  """
  path = os.fspath(path)
  if tables.ending(path) is None:
    for line in plain_text.text_lines(path):
      yield {INPUTS: line}
  else:
    for row in tables.read(path):
      yield _example(row)


def _example(row: tables.Row) -> dict[str, Any]:
  example = {_NAMES.get(name, name): v for name, v in row.values.items()}
  for short, name in _NAMES.items():
    if name not in example:
      if name == TARGETS:
        continue
      row.value(short, "inference")
    value = example[name]
    if not isinstance(value, str):
      raise ValueError(
        f"{row.place}: `{short}` must be a text, got {value!r:.80}."
      )
  try:
    json.dumps(row.values, allow_nan=False)
  except ValueError as error:  # a column that is only passed on
    raise ValueError(
      f"{row.place}: NaN and infinite numbers cannot be written beside the "
      "answers; write null, or a text."
    ) from error
  return example
