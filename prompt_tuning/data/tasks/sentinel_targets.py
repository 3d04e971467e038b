"""Register tasks whose targets begin with a sentinel with seqio."""

from collections.abc import Mapping
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import sentinel_targets, spec


def register(task: spec.TaskSpec, base: seqio.Task) -> None:
  """Register a task of `sentinel_targets`.

  Args:
    task: the task.
    base: the seqio task whose targets get a sentinel.

  Raises:
    ValueError: the base task does not make texts before tokens.
  """
  steps = list(base.preprocessors)
  if seqio.preprocessors.tokenize not in steps:
    raise ValueError(
      f"{task.name}: {base.name} has no step that tokenises text; expected one."
    )
  steps.insert(steps.index(seqio.preprocessors.tokenize), _put)
  seqio.TaskRegistry.add_provider(
    task.name,
    base.replace(
      name=task.name, preprocessors=steps, postprocess_fn=task.postprocess
    ),
  )


@seqio.map_over_dataset
def _put(row: Mapping[str, Any]) -> dict[str, Any]:
  prefix = sentinel_targets.put("")
  return {**row, "targets": tf.strings.join([prefix, row["targets"]])}
