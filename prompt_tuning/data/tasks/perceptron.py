"""Register GLUE and SuperGLUE for losses over whole answers."""

from prompt_tuning.data import preprocessors, spec
from prompt_tuning.data.tasks import glue, registration, super_glue


def _rendering(task: spec.TaskSpec) -> list[registration.Preprocessor]:
  benchmark = task.source.partition("/")[0]
  module = {"glue": glue, "super_glue": super_glue}[benchmark]
  dataset = task.dataset.removeprefix(f"{benchmark}_")
  steps = module.rendering(dataset, task.label_words)
  return [*steps, preprocessors.drop_task_name]


registration.add_catalogue(__name__, _rendering)
