"""Named fields of JSON values, with errors that give the position."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.core import tree

_KINDS = {
  str: "a text",
  int: "an integer",
  float: "a number",
  list: "a list",
  dict: "an object",
}


class Example(NamedTuple):
  """One checked row.

  Attributes:
    place: `FILE:LINE`, or a path into a JSON document.
    key: its unique key in the split.
    values: the TFDS example; None if TFDS's own generator converts the file.
  """

  place: str
  key: int | str
  values: dict[str, Any] | None = None


def get(place: str, values: Any, name: str, kind: type) -> Any:
  """Return a field of a JSON object.

  Args:
    place: position of the object.
    values: the object.
    name: name of the field.
    kind: `str`, `int` (also as text, and truth values), `float`, `list` or
      `dict`.

  Raises:
    ValueError: not an object, no such field, or one of another kind.
  """
  if not isinstance(values, Mapping):
    raise ValueError(f"{place}: expected an object, got {values!r:.80}.")
  if name not in values:
    raise ValueError(
      f"{place}: no field {name!r}.{tree.nearest(name, values)} Found: "
      f"{', '.join(values)}."
    )
  value = values[name]
  if kind in (int, float):
    try:
      return kind(value)
    except (TypeError, ValueError):
      pass
  elif isinstance(value, kind):
    return value
  raise ValueError(
    f"{place}: field {name!r}: expected {_KINDS[kind]}, got {value!r:.80}."
  )


def check_label(place: str, label: Any, names: Sequence[str]) -> None:
  """Check that a label is the name or the index of a class.

  Raises:
    ValueError: an unknown label.
  """
  if isinstance(label, bool):
    known = tuple(names) == ("False", "True")
  elif isinstance(label, int):
    known = 0 <= label < len(names)
  else:
    known = label in names
  if not known:
    raise ValueError(
      f"{place}: unknown label {label!r}; expected one of {', '.join(names)}."
    )
