"""k-shot subsets: k rows per class, chosen by a seed."""

from collections.abc import Hashable, Sequence

import numpy as np


def choose(
  labels: Sequence[Hashable | None],
  shots: int,
  seed: int,
  scarce_classes: bool = False,
) -> list[int]:
  """Choose k rows of every class.

  Args:
    labels: one label per row, in the fixed order of the source; None for a row
      that may not be chosen. Free-text tasks have one class: give every row the
      same label.
    shots: rows per class.
    seed: the same seed gives the same rows; a larger k adds rows, so that
      subsets of one seed are nested.
    scarce_classes: take all rows of a class that has fewer than k.

  Returns:
    Row indices, ascending.

  Raises:
    ValueError: shots < 1, or a class has fewer rows and `scarce_classes` is
      false.
  """
  if shots < 1:
    raise ValueError(f"k-shot needs k >= 1, got {shots}.")
  rows_of: dict[Hashable, list[int]] = {}
  for row, label in enumerate(labels):
    if label is not None:
      rows_of.setdefault(label, []).append(row)
  draw: list[int] = []
  # One generator per class: a class's rows do not depend on other classes'
  # sizes.
  for position, label in enumerate(sorted(rows_of, key=str)):
    rows = rows_of[label]
    if len(rows) < shots and not scarce_classes:
      raise ValueError(
        f"Class {label!r} has {len(rows)} rows; expected at least {shots}. "
        "Use a smaller k."
      )
    order = np.random.default_rng([seed, position]).permutation(len(rows))
    draw.extend(rows[i] for i in order[:shots])
  return sorted(draw)
