"""Decide whether a checkpoint fits a model; only this module does."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.checkpoints.errors import ABSENT, CheckpointError, Mismatch
from prompt_tuning.checkpoints.source import (
  Leaf,
  StackedLeaf,
  is_floating,
  missing,
  spelled,
  surplus,
)
from prompt_tuning.core import tree

# A target with scanned layers has `encoder/layers/...` with a leading L where
# checkpoints have `encoder/layers_0/...`, `encoder/layers_1/...`.
_STACKED = re.compile(r"(?P<stack>(?:.*/)?layers)/(?P<rest>.+)")


def layer_paths(path: str, shape: Sequence[int]) -> list[str] | None:
  """List the leaves on disk that make up one leaf in memory.

  Args:
    path: of the leaf in memory.
    shape: its shape.

  Returns:
    The paths of layers 0, ..., L - 1 if layers are stacked; else None.
  """
  match = _STACKED.fullmatch(path)
  if match is None or not shape:
    return None
  return [f"{match['stack']}_{i}/{match['rest']}" for i in range(shape[0])]


def match(
  path: str | os.PathLike[str],
  leaves: Mapping[str, Leaf],
  target: Mapping[str, Any],
  ignore: Sequence[str] = (),
  hint: str = "",
  broken: Sequence[Mismatch] = (),
) -> dict[str, Leaf]:
  """Find the leaf for every part of a target, and insist on a perfect fit.

  Args:
    path: the checkpoint, for messages.
    leaves: its leaves, unstacked.
    target: flat path -> something with `shape` and `dtype`. A floating leaf
      may have any other floating dtype; everything else must be equal.
    ignore: patterns (whole paths) of leaves that the checkpoint may have in
      excess.
    hint: appended to the error.
    broken: other faults of the checkpoint (`Checkpoint.broken`); a leaf in it
      is reported as broken, not as missing.

  Returns:
    Target path -> leaf of the target's shape.

  Raises:
    CheckpointError: lists every missing, surplus, misnamed or misshapen leaf,
      all of `broken`, and every pattern in `ignore` that matches no leaf.
  """
  matches: dict[str, Leaf] = {}
  wanted: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
  groups: dict[str, list[str]] = {}
  for name, struct in target.items():
    shape, dtype = tuple(struct.shape), np.dtype(struct.dtype)
    names = layer_paths(name, shape)
    groups[name] = names or [name]
    for part in groups[name]:
      wanted[part] = (shape[1:] if names else shape, dtype)
  bad = dict.fromkeys(mismatch.path for mismatch in broken)
  unwanted = [name for name in (*leaves, *bad) if name not in wanted]
  ignored = [n for n in unwanted if any(re.fullmatch(p, n) for p in ignore)]
  extra = [n for n in unwanted if n not in ignored and n not in bad]
  mismatches = _unused(ignore, unwanted)
  mismatches += [
    mismatch for mismatch in broken if mismatch.path not in ignored
  ]
  absent = wanted.keys() - leaves.keys() - bad.keys()
  for name, (shape, dtype) in wanted.items():
    if name in bad:
      continue
    problem = _problem(name, shape, dtype, leaves.get(name), extra)
    if problem:
      mismatches.append(problem)
  mismatches += [
    surplus(n, str(leaves[n]), tree.nearest(n, absent).strip()) for n in extra
  ]
  if mismatches:
    raise CheckpointError(path, sorted(mismatches, key=lambda m: m.path), hint)
  for name, layers in groups.items():
    first = leaves[layers[0]] if layers else None
    if layers == [name]:
      matches[name] = leaves[name]
    else:
      shape = (len(layers), *target[name].shape[1:])
      dtype = first.dtype if first else np.dtype(target[name].dtype)
      stack = tuple(leaves[p] for p in layers)
      matches[name] = StackedLeaf(name, shape, dtype, stack)
  return matches


def _problem(
  name: str,
  shape: tuple[int, ...],
  dtype: np.dtype,
  leaf: Leaf | None,
  extra: Sequence[str],
) -> Mismatch | None:
  """Say what is wrong with one leaf, if anything."""
  expected = spelled(shape, dtype)
  if leaf is None:
    return missing(name, expected, tree.nearest(name, extra).strip())
  casts = is_floating(leaf.dtype) and is_floating(dtype)
  if leaf.shape != shape or not (casts or leaf.dtype == dtype):
    return Mismatch(name, expected, str(leaf))
  return None


def _unused(ignore: Sequence[str], unwanted: Sequence[str]) -> list[Mismatch]:
  """List the patterns to ignore that match nothing."""
  return [
    Mismatch(f"ignore={p!r}", "a surplus leaf it matches", ABSENT)
    for p in ignore
    if not any(re.fullmatch(p, name) for name in unwanted)
  ]
