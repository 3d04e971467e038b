"""What JSON must look like that somebody else may have written.

A schema is written as the JSON itself is:

  {"step": WHOLE, "best?": ...}   an object with these keys, those with `?` only
                                  where it has them; other keys are not read
  [TEXT]                          a list, every entry a text
  Each(NUMBER)                    an object, every value a number
  Maybe(TEXT)                     null or a text
"""

import dataclasses
import itertools
import json
import math
import reprlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from prompt_tuning.core import files

_SHOWN = 8  # faults that an error lists
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlevel = 2


class Fault(NamedTuple):
  """One value that is not what it should be.

  Attributes:
    key: where it stands, such as `run.runs[0].name`.
    expected: what should stand there.
    got: what does.
  """

  key: str
  expected: str
  got: str

  def __str__(self) -> str:
    return f"{self.key}: expected {self.expected}; got {self.got}."


@dataclasses.dataclass(frozen=True)
class Kind:
  """A value without parts.

  Attributes:
    expected: what it should be, for messages.
    accepts: whether a value is one.
  """

  expected: str
  accepts: Callable[[Any], bool]


class Each(NamedTuple):
  """An object, whose keys are free.

  Attributes:
    schema: of every value.
  """

  schema: Any


class Maybe(NamedTuple):
  """Null, or something else.

  Attributes:
    schema: of the something.
  """

  schema: Any


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and files.is_text(value)


def _is_number(value: Any) -> bool:
  return type(value) in (int, float)


TEXT = Kind("a text", _is_text)
# The name of a run may become the name of a folder. A single run needs no name.
NAME = Kind(
  f"a name ({files.NAME_RULE}), or none",
  lambda value: value == "" or files.is_name(value),
)
WHOLE = Kind(
  "a whole number from 0 to 2^53",
  lambda value: type(value) is int and 0 <= value <= 1 << 53,
)
NUMBER = Kind("a number", _is_number)
FINITE = Kind(
  "a finite number",
  lambda value: _is_number(value) and abs(value) < math.inf,
)
ANY = Kind("anything", lambda value: True)


def at_least(low: int) -> Kind:
  """Make the kind of whole numbers from `low` on."""
  return Kind(
    f"a whole number, {low} or more",
    lambda value: WHOLE.accepts(value) and value >= low,
  )


def one_of(*values: Any) -> Kind:
  """Make the kind of values that are among these, and of their types."""
  return Kind(
    f"one of {values}" if len(values) > 1 else repr(values[0]),
    lambda value: any(type(value) is type(v) and value == v for v in values),
  )


def parse(data: bytes) -> Any:
  """Read JSON.

  Args:
    data: UTF-8, with or without a byte order mark.

  Returns:
    The value.

  Raises:
    ValueError: it is not JSON, or nested too deeply.
  """
  try:
    return json.loads(data.decode("utf-8-sig"))
  except RecursionError as error:
    raise ValueError("JSON that is nested too deeply") from error


def read(path: files.Path, schema: Any, limit: int = 16 << 20) -> Any:
  """Read a JSON file that must be as a schema says.

  Args:
    path: the file.
    schema: see above.
    limit: bytes that it has at most.

  Returns:
    Its value.

  Raises:
    ValueError: it is not; names the file, the key, what was expected and what
      is there.
    OSError: it cannot be read.
  """
  try:
    value = parse(files.read_bytes(path, limit))
  except ValueError as error:
    raise ValueError(f"{path} is damaged: {error}") from error
  if wrong := faults(value, schema):
    raise ValueError(f"{path} is damaged: {wrong[0]}")
  return value


def faults(value: Any, schema: Any) -> list[Fault]:
  """List what is wrong with a value, the first few faults.

  Args:
    value: as JSON gives it.
    schema: see above.

  Returns:
    The faults; none where it is what it should be.
  """
  return list(itertools.islice(_faults(value, schema, ""), _SHOWN))


def shown(value: Any) -> str:
  """Write a value for a message, on one line, cut where it is long."""
  return _short.repr(value)


def _faults(value: Any, schema: Any, key: str) -> Iterator[Fault]:
  if isinstance(schema, Maybe):
    if value is not None:
      yield from _faults(value, schema.schema, key)
  elif isinstance(schema, Kind):
    if not schema.accepts(value):
      yield Fault(key or "all of it", schema.expected, shown(value))
  elif isinstance(schema, list):
    if not isinstance(value, list):
      yield Fault(key or "all of it", "a list", shown(value))
      return
    for number, entry in enumerate(value):
      yield from _faults(entry, schema[0], f"{key}[{number}]")
  elif not isinstance(value, dict):
    yield Fault(key or "all of it", "an object", shown(value))
  elif isinstance(schema, Each):
    for name, entry in value.items():
      yield from _faults(entry, schema.schema, _below(key, name))
  else:
    yield from _faults_of_object(value, schema, key)


def _faults_of_object(
  value: dict[str, Any], schema: dict[str, Any], key: str
) -> Iterator[Fault]:
  for name, part in schema.items():
    field = _below(key, name.removesuffix("?"))
    if name.removesuffix("?") in value:
      yield from _faults(value[name.removesuffix("?")], part, field)
    elif not name.endswith("?"):
      yield Fault(field, _expected(part), "nothing")


def _expected(schema: Any) -> str:
  if isinstance(schema, Kind):
    return schema.expected
  if isinstance(schema, Maybe):
    return _expected(schema.schema)
  return "a list" if isinstance(schema, list) else "an object"


def _below(key: str, name: str) -> str:
  return f"{key}.{name[:80]}" if key else name[:80]
