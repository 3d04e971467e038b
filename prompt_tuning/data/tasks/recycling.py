"""Register the tasks for recycling prompts."""

import functools

from prompt_tuning.data import preprocessors, spec
from prompt_tuning.data.tasks import glue, registration


def _rendering(task: spec.TaskSpec) -> list[registration.Preprocessor]:
  if task.dataset == "imdb":
    words = task.label_words
    return [functools.partial(preprocessors.labelled_text, label_words=words)]
  if task.dataset == "record":
    one = bool(task.candidates)
    write = functools.partial(preprocessors.record, one_per_query=one)
    return [write, preprocessors.drop_task_name]
  write_all = glue.rendering(task.dataset, task.label_words)
  return [*write_all, preprocessors.drop_task_name]


registration.add_catalogue(__name__, _rendering)
