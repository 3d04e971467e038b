"""Checks of settings that several methods share; errors say what to change."""

import math
from collections.abc import Sequence
from typing import Any

from prompt_tuning.core import tree


def positive_integer(name: str, value: Any) -> None:
  """Insist on a positive integer.

  Args:
    name: of the setting in gin.
    value: the value that was given.

  Raises:
    ValueError: it is not a positive integer.
  """
  if type(value) is not int or value < 1:
    raise ValueError(f"{name} must be a positive integer; got {value!r}.")


def whole_number(name: str, value: Any) -> None:
  """Insist on a whole number, which may be 0, see `positive_integer`."""
  if type(value) is not int or value < 0:
    raise ValueError(f"{name} must be a whole number >= 0; got {value!r}.")


def positive(name: str, value: Any) -> None:
  """Insist on a positive, finite number, see `positive_integer`."""
  if not (_is_number(value) and 0 < value < math.inf):
    raise ValueError(f"{name} must be a positive number; got {value!r}.")


def probability(name: str, value: Any) -> None:
  """Insist on a number in [0, 1), see `positive_integer`."""
  if not (_is_number(value) and 0 <= value < 1):
    raise ValueError(f"{name} must be in [0, 1); got {value!r}.")


def boolean(name: str, value: Any) -> None:
  """Insist on True or False, see `positive_integer`; a text would be true."""
  if type(value) is not bool:
    raise ValueError(f"{name} must be True or False; got {value!r}.")


def text(name: str, value: Any) -> None:
  """Insist on a text that is not empty, see `positive_integer`."""
  if not isinstance(value, str) or not value.strip():
    raise ValueError(f"{name} must be a text that is not empty; got {value!r}.")


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def among(name: str, values: Any, known: Sequence[str]) -> None:
  """Insist on a list of known words, each once, see `positive_integer`."""
  different(name, values, "a list")
  for value in values:
    if value not in known:
      raise ValueError(
        f"{name} has {value!r}; expected some of {', '.join(known)}."
        f"{tree.nearest(str(value), known)}"
      )


def different(name: str, values: Any, what: str) -> None:
  """Insist on a list without duplicates, see `positive_integer`."""
  if not isinstance(values, list | tuple) or not values:
    raise ValueError(f"{name} must be {what}; got {values!r}.")
  for value in values:
    if values.count(value) > 1:
      raise ValueError(f"{name} has {value!r} twice; name it once.")
