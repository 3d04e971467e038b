"""k-shot subsets: k rows per class, chosen by a seed, under a derived name."""

import dataclasses
import json
import re
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data import atomic, spec

_NAME = re.compile(r"(?P<base>.+)_k(?P<shots>[1-9]\d*)_seed(?P<seed>\d+)")


@dataclasses.dataclass(frozen=True)
class Subset:
  """The rows that a k-shot task trains on.

  Attributes:
    task: its name, which holds k and the seed.
    rows: row numbers in the order of the source's training split, ascending.
    ids: the rows' own ids (`idx`, `id` or `qid`), or their numbers.
    labels: the rows' class ids; 0 for free text.
  """

  task: str
  rows: tuple[int, ...]
  ids: tuple[Any, ...]
  labels: tuple[int, ...]

  def save(self, path: str) -> None:
    """Record the subset as JSON; the file appears complete or not at all."""
    atomic.write_text(path, json.dumps(dataclasses.asdict(self), indent=2))


def parse(name: str) -> spec.KShot | None:
  """Read `<task>_k<shots>_seed<seed>`.

  Returns:
    Its parts, or None if the name has another form.
  """
  match = _NAME.fullmatch(name)
  if not match:
    return None
  return spec.KShot(match["base"], int(match["shots"]), int(match["seed"]))


def derive(base: spec.TaskSpec, subset: spec.KShot) -> spec.TaskSpec:
  """Return the spec of a k-shot task: only its training split is smaller.

  Raises:
    ValueError: the task has no training split.
  """
  if "train" not in base.splits:
    raise ValueError(
      f"{base.name!r} has no training split to take {subset.shots} shots of; "
      f"it has: {', '.join(base.splits)}."
    )
  return dataclasses.replace(
    base,
    name=f"{base.name}_k{subset.shots}_seed{subset.seed}",
    kshot=subset,
  )


def choose(
  labels: Sequence[Hashable | None], shots: int, seed: int
) -> list[int]:
  """Choose k rows of every class.

  Args:
    labels: one label per row, in the fixed order of the source; None for a row
      that may not be chosen. Free-text tasks have one class: give every row the
      same label.
    shots: rows per class.
    seed: the same seed gives the same rows; the first k of a larger k, so that
      subsets of one seed are nested.

  Returns:
    Row numbers, ascending.

  Raises:
    ValueError: shots < 1, or a class has fewer rows than that.
  """
  if shots < 1:
    raise ValueError(f"k-shot needs k >= 1, got {shots}.")
  rows_of: dict[Hashable, list[int]] = {}
  for row, label in enumerate(labels):
    if label is not None:
      rows_of.setdefault(label, []).append(row)
  chosen: list[int] = []
  # A generator per class: the rows of one do not depend on the size of others.
  for position, label in enumerate(sorted(rows_of, key=str)):
    rows = rows_of[label]
    if len(rows) < shots:
      raise ValueError(
        f"Class {label!r} has {len(rows)} rows; {shots} shots were asked for. "
        "Use a smaller k."
      )
    order = np.random.default_rng([seed, position]).permutation(len(rows))
    chosen.extend(rows[i] for i in order[:shots])
  return sorted(chosen)
