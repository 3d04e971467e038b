"""Register tasks of plain text with seqio, see `prompt_tuning.data.ppt`."""

from collections.abc import Iterator
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import ppt, spec
from prompt_tuning.data.tasks import registration

_TYPES = {
  "text_a": tf.TensorSpec((), tf.string),
  "text_b": tf.TensorSpec((), tf.string),
  "options": tf.TensorSpec((None,), tf.string),
  "label": tf.TensorSpec((), tf.int64),
}


def register(task: spec.TaskSpec) -> None:
  """Register the source of rows that `ppt.pretraining` declared.

  It has fields and labels; the templated task that uses it has the texts.
  """
  source = ppt.rows_of(task.name)

  def dataset(
    split: str, shuffle_files: bool, seed: int | None = None
  ) -> tf.data.Dataset:
    del shuffle_files, seed  # the pipeline shuffles examples
    # Made here, since TensorFlow would replace the error by its own.
    rows = source.of_split(split)

    def generate() -> Iterator[dict[str, Any]]:
      for number, row in enumerate(rows):
        yield {**row, "idx": str(number)}

    signature = {name: _TYPES[name] for name in rows[0]}
    signature["idx"] = tf.TensorSpec((), tf.string)
    return tf.data.Dataset.from_generator(generate, output_signature=signature)

  registration.add_task(
    task,
    rendering=(),
    source=seqio.FunctionDataSource(dataset, splits=tuple(task.splits)),
  )
