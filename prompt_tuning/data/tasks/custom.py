"""Register a user's own task with seqio, see `prompt_tuning.data.custom`."""

from collections.abc import Iterator
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import custom, spec
from prompt_tuning.data.tasks import registration

_SIGNATURE = {
  "inputs": tf.TensorSpec((), tf.string),
  "targets": tf.TensorSpec((), tf.string),
  "label": tf.TensorSpec((), tf.int64),
  "answers": tf.TensorSpec((None,), tf.string),
  "idx": tf.TensorSpec((), tf.string),
}


def register(task: spec.TaskSpec) -> None:
  """Register a task made by `custom.declare`."""

  def dataset(
    split: str, shuffle_files: bool, seed: int | None = None
  ) -> tf.data.Dataset:
    del shuffle_files, seed  # one file: its order is fixed

    def generate() -> Iterator[dict[str, Any]]:
      return custom.rows(task, split)

    return tf.data.Dataset.from_generator(generate, output_signature=_SIGNATURE)

  source = seqio.FunctionDataSource(dataset, splits=tuple(task.splits))
  registration.add_task(task, rendering=(), source=source)
