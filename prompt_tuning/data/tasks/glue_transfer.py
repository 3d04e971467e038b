"""Register the zero-shot transfer tasks between QQP and MRPC."""

from prompt_tuning.data import spec

# Imported first: the mixtures' training tasks are GLUE's own.
from prompt_tuning.data.tasks import glue, registration


def _target(task: spec.TaskSpec) -> str:
  return task.dataset.split("_from_")[0]


def _rendering(task: spec.TaskSpec) -> list[registration.Preprocessor]:
  return glue.rendering(_target(task), task.label_words)


registration.add_catalogue(
  __name__, _rendering, lambda task: glue.position(_target(task))
)
