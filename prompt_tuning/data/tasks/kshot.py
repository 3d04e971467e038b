"""k-shot tasks: seqio tasks whose training rows are a recorded subset."""

from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import kshot, spec
from prompt_tuning.data.tasks import registration

# Features that name a row, whichever a data set has.
_ID_FEATURES = ("idx", "id", "qid")


def select(task: spec.TaskSpec) -> kshot.Subset:
  """Choose a k-shot task's training rows.

  Rows of a task without label words count as one class.

  Args:
    task: with `kshot` set.

  Returns:
    The subset: row numbers in the source's order, ids and labels.

  Raises:
    ValueError: not a k-shot task, or a class with too few rows.
  """
  if task.kshot is None:
    raise ValueError(f"{task.name!r} is no k-shot task.")
  source = registration.get(task.kshot.base).source
  rows = source.get_dataset("train", shuffle=False)
  labels: list[int | None] = []
  ids = []
  key = next((k for k in _ID_FEATURES if k in rows.element_spec), None)
  for number, row in enumerate(rows.as_numpy_iterator()):
    labels.append(_class_of(task, row))
    ids.append(_plain(row[key]) if key else number)
  chosen = kshot.choose(labels, task.kshot.shots, task.kshot.seed)
  return kshot.Subset(
    task=task.name,
    rows=tuple(chosen),
    ids=tuple(ids[row] for row in chosen),
    labels=tuple(labels[row] or 0 for row in chosen),
  )


def register(task: spec.TaskSpec) -> None:
  """Register a k-shot task: the base task with fewer training rows."""
  assert task.kshot is not None
  base = registration.get(task.kshot.base)

  def rows(
    split: str, shuffle_files: bool, seed: int | None = None
  ) -> tf.data.Dataset:
    if split != "train":
      return base.source.get_dataset(split, shuffle=shuffle_files, seed=seed)
    chosen = tf.constant(select(task).rows, tf.int64)
    numbered = base.source.get_dataset(split, shuffle=False).enumerate()
    kept = numbered.filter(lambda number, _: tf.reduce_any(number == chosen))
    return kept.map(lambda _, row: row)

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
  # WSC trains on correct referents only: a wrong one would be dropped later.
  if task.dataset == "wsc" and not row["label"]:
    return None
  return 0


def _plain(value: Any) -> Any:
  """Turn a NumPy id (also a dictionary of them) into JSON's types."""
  if isinstance(value, dict):
    return {key: _plain(part) for key, part in value.items()}
  if isinstance(value, bytes):
    return value.decode("utf-8")
  return value.item() if hasattr(value, "item") else value
