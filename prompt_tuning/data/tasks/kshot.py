"""k-shot tasks: seqio tasks whose training rows are a subset."""

from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import kshot, spec


def select(task: spec.TaskSpec, rows: tf.data.Dataset) -> list[int]:
  """Choose a k-shot task's training rows.

  Rows of a task without label words count as one class.

  Args:
    task: a task with `kshot` set.
    rows: all rows of the base task's training source, in its order.

  Returns:
    Row indices, ascending.

  Raises:
    ValueError: a class with too few rows.
  """
  assert task.kshot is not None
  labels = [_class_of(task, row) for row in rows.as_numpy_iterator()]
  return kshot.choose(
    labels, task.kshot.shots, task.kshot.seed, task.scarce_classes
  )


def register(task: spec.TaskSpec, base: seqio.Task) -> None:
  """Register a k-shot task: the base task with fewer training rows.

  Args:
    task: a task with `kshot` set.
    base: the seqio task whose rows it uses.
  """

  def rows(
    split: str, shuffle_files: bool, seed: int | None = None
  ) -> tf.data.Dataset:
    if split != "train":
      return base.source.get_dataset(split, shuffle=shuffle_files, seed=seed)
    # One dataset for the draw and for the rows: a user's file is read once.
    source = base.source.get_dataset(split, shuffle=False)
    numbers = tf.constant(select(task, source), tf.int64)
    subset = source.enumerate().filter(
      lambda number, _: tf.reduce_any(number == numbers)
    )
    return subset.map(lambda _, row: row)

  seqio.TaskRegistry.add_provider(
    task.name,
    base.replace(
      name=task.name,
      source=seqio.FunctionDataSource(rows, splits=tuple(task.splits)),
    ),
  )


def _class_of(task: spec.TaskSpec, row: dict[str, Any]) -> int | None:
  if task.label_words:
    return int(row["label"])
  # WSC trains only on correct referents: rows with wrong ones are dropped
  # later.
  if task.dataset == "wsc" and not row["label"]:
    return None
  return 0
