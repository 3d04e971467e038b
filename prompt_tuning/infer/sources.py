"""Inputs from text files: one per line, as text or as JSON."""

import json
import os
from collections.abc import Iterator
from typing import Any

from prompt_tuning.data.spec import INPUTS, TARGETS

# Short names that people write -> the names of tasks.
_NAMES = {"inputs": INPUTS, "targets": TARGETS}


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
  """Read examples one at a time.

  Args:
    path: UTF-8. In a `.jsonl` file every line is an object with `inputs`, if
      wanted `targets`, and any other fields; in other files every line is an
      input.

  Yields:
    Examples with `inputs_pretokenized`, if given `targets_pretokenized`, and
    the other fields as they are. Blank lines of `.jsonl` files are skipped.

  Raises:
    ValueError: a line that is not such an object, or not UTF-8.
  """
  path = os.fspath(path)
  with open(path, encoding="utf-8", newline="\n") as file:
    lines = enumerate(file, start=1)
    try:
      for number, line in lines:
        text = line.rstrip("\r\n")
        if not path.endswith(".jsonl"):
          yield {INPUTS: text}
        elif text.strip():
          yield _example(f"{path}, line {number}", text)
    except UnicodeDecodeError as error:
      raise ValueError(f"{path} is not UTF-8 text: {error}.") from error


def _example(place: str, text: str) -> dict[str, Any]:
  try:
    record = json.loads(text)
  except ValueError as error:
    raise ValueError(f"{place}: not JSON: {error}.") from error
  if not isinstance(record, dict):
    raise ValueError(f"{place}: expected an object, got {text[:80]}.")
  example: dict[str, Any] = {
    _NAMES.get(str(name), str(name)): value for name, value in record.items()
  }
  for name in (INPUTS, TARGETS):
    value = example.get(name, "" if name == TARGETS else None)
    if not isinstance(value, str):
      raise ValueError(
        f"{place}: `{name.removesuffix('_pretokenized')}` must be a text, got "
        f"{value!r}."
      )
  return example
