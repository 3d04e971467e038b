"""Checks of settings that several methods have; each names what to change."""

import math
from collections.abc import Sequence
from typing import Any

from prompt_tuning.core import tree


def positive_integer(name: str, value: Any) -> None:
  """Insist on a number of things.

  Args:
    name: of the setting in gin.
    value: what was given.

  Raises:
    ValueError: it is no positive integer.
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
  """Insist on a share in [0, 1), see `positive_integer`."""
  if not (_is_number(value) and 0 <= value < 1):
    raise ValueError(f"{name} must be in [0, 1); got {value!r}.")


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def among(name: str, values: Any, known: Sequence[str]) -> None:
  """Insist on a list of known words, see `positive_integer`."""
  if isinstance(values, str) or not values:
    raise ValueError(f"{name} must be a list; got {values!r}.")
  for value in values:
    if value not in known:
      raise ValueError(
        f"{name} has {value!r}; expected some of {', '.join(known)}."
        f"{tree.nearest(str(value), known)}"
      )
