"""Checks of the numbers in settings, made before any work starts.

Without them, a 0 that was meant as "none" would train on nothing, or for ever,
and a command would fail an hour later.
"""

import math
import numbers
from typing import Any


def insist_whole(
  setting: str, value: Any, least: int, optional: bool = False
) -> None:
  """Insist on a whole number.

  Args:
    setting: its name, as users write it.
    value: what was given.
    least: the smallest value allowed.
    optional: whether None is allowed too.

  Raises:
    ValueError: the value is not such a number.
  """
  if optional and value is None:
    return
  is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not is_whole or value < least:
    raise ValueError(
      f"{setting} is {value!r}; expected a whole number, {least} or more"
      f"{', or None' if optional else ''}."
    )


def insist_positive(setting: str, value: Any) -> None:
  """Insist on a finite number above 0.

  Args:
    setting: its name, as users write it.
    value: what was given.

  Raises:
    ValueError: the value is not such a number.
  """
  if not (_is_number(value) and 0 < value < math.inf):
    raise ValueError(
      f"{setting} is {value!r}; expected a finite number above 0."
    )


def insist_rate(setting: str, value: Any) -> None:
  """Insist on a dropout rate: a number from 0 to below 1.

  Args:
    setting: its name, as users write it.
    value: what was given.

  Raises:
    ValueError: the value is not such a number.
  """
  if not (_is_number(value) and 0 <= value < 1):
    raise ValueError(
      f"{setting} is {value!r}; expected a number from 0 to below 1."
    )


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)
