"""Compare two checkpoints, prompts or results of tuning, array by array."""

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from prompt_tuning.checkpoints.errors import CheckpointError, DamagedLeafError
from prompt_tuning.checkpoints.source import Leaf, all_damage
from prompt_tuning.jobs import contents, hub


class Comparison(NamedTuple):
  """How two sets of arrays differ.

  Attributes:
    differences: a line for each array that differs.
    equal: number of arrays that are equal bit for bit.
  """

  differences: tuple[str, ...]
  equal: int


def compare(a: str, b: str) -> Comparison:
  """Compare the contents of two paths, of any kind and format.

  Args:
    a: see `contents.leaves`; or `hf://user/name`, see `hub.local`.
    b: the other path.

  Returns:
    The differences. Bundles, exports and the like are compared by what they
    change in a model, so that one can compare them with each other and with
    prompts.

  Raises:
    CheckpointError: one of them cannot be read; lists all damage of that one.
    ValueError: see `contents.leaves` and `hub.local`.
  """
  a, b = (os.fspath(hub.local(path)) for path in (a, b))
  models = (contents.MODEL, contents.PROMPT)
  tuned = any(contents.kind_of(path) not in models for path in (a, b))
  sides = {path: contents.leaves(path, as_delta=tuned) for path in (a, b)}
  try:
    lines = tuple(differences(sides[a], sides[b]))
  except DamagedLeafError as error:  # one damaged leaf is seldom alone
    raise _all_damage(sides) from error
  return Comparison(lines, len(sides[a].keys() | sides[b].keys()) - len(lines))


def _all_damage(sides: Mapping[str, Mapping[str, Leaf]]) -> Exception:
  """Report all damage of both sides in one error."""
  errors = [
    CheckpointError(path, damage)
    for path, leaves in sides.items()
    if (damage := all_damage(leaves))
  ]
  return (
    errors[0] if len(errors) == 1 else ValueError("\n".join(map(str, errors)))
  )


def differences(a: Mapping[str, Leaf], b: Mapping[str, Leaf]) -> Iterator[str]:
  """Compare two sets of leaves, reading one pair at a time.

  Args:
    a: path -> leaf.
    b: path -> leaf.

  Yields:
    One line per leaf that differs, by path.

  Raises:
    CheckpointError: damaged bytes.
  """
  for path in sorted(a.keys() | b.keys()):
    if path not in b:
      yield f"- {path} {a[path]}"
    elif path not in a:
      yield f"+ {path} {b[path]}"
    elif a[path].shape != b[path].shape:
      yield f"! {path}: {a[path]} against {b[path]}"
    elif difference := _values(a[path], b[path]):
      yield f"! {path}: {difference}"


def _values(a: Leaf, b: Leaf) -> str:
  """Say how two leaves of one shape differ; empty if they are equal."""
  x, y = a.read(), b.read()
  if x.dtype == y.dtype and x.tobytes() == y.tobytes():
    return ""
  types = "" if x.dtype == y.dtype else f"{x.dtype} against {y.dtype}, "
  wide = np.promote_types(np.float32, np.result_type(x.dtype, y.dtype))
  x, y = x.astype(wide), y.astype(wide)
  # NaN and a number differ in value; two NaNs can differ only in bits.
  differing = (x != y) & ~(np.isnan(x) & np.isnan(y))
  if not differing.any():
    return f"{types}equal values, different bits"
  with np.errstate(over="ignore"):
    largest = np.max(np.abs(x[differing] - y[differing]))
  return (
    f"{types}{np.count_nonzero(differing):,} of {x.size:,} values differ, by "
    f"at most {largest:.6g}"
  )
