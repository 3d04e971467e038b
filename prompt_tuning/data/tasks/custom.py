"""Register a user's own task with seqio, see `prompt_tuning.data.custom`."""

from collections.abc import Iterator, Sequence
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import custom, spec
from prompt_tuning.data.tasks import registration

# Rows pass from Python to TensorFlow in batches: single ones would take several
# times as long.
_BATCH = 512
_TEXTS = tf.TensorSpec((None,), tf.string)
_SIGNATURE = {
  "inputs": _TEXTS,
  "targets": _TEXTS,
  "label": tf.TensorSpec((None,), tf.int64),
  "answers": tf.RaggedTensorSpec((None, None), tf.string, ragged_rank=1),
  "idx": _TEXTS,
}


def register(task: spec.TaskSpec) -> None:
  """Register a task made by `custom.declare`."""

  def dataset(
    split: str, shuffle_files: bool, seed: int | None = None
  ) -> tf.data.Dataset:
    del shuffle_files, seed  # one file: its order is fixed
    # Read here, since TensorFlow would replace the error by its own.
    rows = list(custom.rows(task, split))

    def generate() -> Iterator[dict[str, Any]]:
      for start in range(0, len(rows), _BATCH):
        yield _columns(rows[start : start + _BATCH])

    batches = tf.data.Dataset.from_generator(
      generate, output_signature=_SIGNATURE
    )
    return batches.unbatch()

  source = seqio.FunctionDataSource(dataset, splits=tuple(task.splits))
  registration.add_task(task, rendering=(), source=source)


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Collect the values of several rows into columns."""
  columns: dict[str, Any] = {
    name: [row[name] for row in rows]
    for name in ("inputs", "targets", "label", "idx")
  }
  answers = [answer for row in rows for answer in row["answers"]]
  columns["answers"] = tf.RaggedTensor.from_row_lengths(
    tf.constant(answers, tf.string), [len(row["answers"]) for row in rows]
  )
  return columns
