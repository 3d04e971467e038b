"""Labels for the tuning methods of one bank, as parts of runs' names."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from prompt_tuning.tuners.method import FLAX_FIELDS, Method

_LONGEST = 40  # characters of one label
_STRANGE = re.compile(r"[^\w.+-]+")  # not for the name of a folder


def labels(methods: Sequence[Method]) -> list[str]:
  """Name methods by their differences.

  Args:
    methods: those of a bank, built.

  Returns:
    One label each: the method's class, the settings that differ (`before`,
    `Uniform`, `population1000`), or both. Where that does not tell them apart,
    or takes too many words, `tuner` and the number.
  """
  names = [
    _STRANGE.sub("_", text).strip("_.") for text in _differences(methods)
  ]
  are_short = all(0 < len(name) <= _LONGEST for name in names)
  # On some disks, names that differ only in capitals are the same.
  if are_short and len({name.lower() for name in names}) == len(names):
    return names
  return [f"tuner{number}" for number in range(len(names))]


def _differences(values: Sequence[Any]) -> list[str]:
  """Describe how each value differs from the others; empty if none differs."""
  if all(value == values[0] for value in values[1:]):
    return [""] * len(values)
  if not all(map(dataclasses.is_dataclass, values)):
    return list(map(_plain, values))
  kinds = list(map(type, values))
  titles = list(map(_plain, values)) if len(set(kinds)) > 1 else None
  texts = [""] * len(values)
  for kind in dict.fromkeys(kinds):
    members = [i for i, other in enumerate(kinds) if other is kind]
    settings = _settings([values[i] for i in members])
    for i, text in zip(members, settings, strict=True):
      texts[i] = _joined(titles[i], text) if titles else text
  return texts


def _settings(values: Sequence[Any]) -> list[str]:
  """Say in which fields objects of one class differ."""
  texts = [""] * len(values)
  for field in dataclasses.fields(values[0]):
    if field.name in FLAX_FIELDS:
      continue
    parts = [getattr(value, field.name) for value in values]
    # A number means nothing without its name.
    has_number = any(isinstance(part, int | float | None) for part in parts)
    for i, text in enumerate(_differences(parts)):
      named = f"{field.name}{text}" if text and has_number else text
      texts[i] = _joined(texts[i], named)
  return texts


def _joined(*texts: str) -> str:
  return "_".join(filter(None, texts))


def _plain(value: Any) -> str:
  """Name an object by its class, and a plain value by itself."""
  if isinstance(value, list | tuple):
    return _joined(*map(_plain, value))
  if dataclasses.is_dataclass(value):
    return type(value).__name__
  return str(value)
