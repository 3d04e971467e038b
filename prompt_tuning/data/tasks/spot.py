"""Register the source tasks of SPoT."""

import functools

from prompt_tuning.data import preprocessors, spec
from prompt_tuning.data.tasks import glue, registration


def _rendering(task: spec.TaskSpec) -> list[registration.Preprocessor]:
  how = task.content
  if how["form"] == "glue":
    return glue.rendering(how["of"], task.label_words)
  if how["form"] == "mrqa":
    return [functools.partial(preprocessors.mrqa, name=how["of"])]
  if how["form"] == "summary":
    return [
      functools.partial(
        preprocessors.summarise,
        text=how["text"],
        summary=how["summary"],
        name=task.dataset,
      )
    ]
  write = functools.partial(
    preprocessors.labelled_fields,
    name=task.dataset,
    fields=("hypothesis", how["premise"]),
    label_words=task.label_words,
  )
  return [preprocessors.labelled_only, write, preprocessors.single_blanks]


registration.add_catalogue(__name__, _rendering)
