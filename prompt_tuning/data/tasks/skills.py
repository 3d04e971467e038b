"""Register the generated skills with seqio, see `prompt_tuning.data.skills`."""

from collections.abc import Iterator

import seqio
import tensorflow as tf

from prompt_tuning.data import skills, spec
from prompt_tuning.data.catalog import skills as catalog
from prompt_tuning.data.tasks import registration

_TEXT = tf.TensorSpec((), tf.string)
_ROW = {"inputs": _TEXT, "targets": _TEXT, "idx": _TEXT}


def _register(task: spec.TaskSpec) -> None:
  skill = skills.ALL[task.dataset]
  has_instruction = task.name.startswith(catalog.INSTRUCTED_PREFIX)

  def dataset(
    split: str, shuffle_files: bool, seed: int | None = None
  ) -> tf.data.Dataset:
    del shuffle_files, seed  # the pipeline shuffles examples

    def generate() -> Iterator[dict[str, str]]:
      for row in skills.examples(skill.name, split):
        if has_instruction:
          text = skills.instructed(row["inputs"], skill.instructions[0])
          row = {**row, "inputs": text}
        yield row

    return tf.data.Dataset.from_generator(generate, output_signature=_ROW)

  source = seqio.FunctionDataSource(dataset, splits=tuple(task.splits))
  registration.add_task(task, rendering=(), source=source)


for _name in (*catalog.NAMES, *catalog.HELD_OUT_NAMES):
  _register(spec.task(_name))
  _register(spec.task(catalog.instructed(_name)))
