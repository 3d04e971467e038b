"""Register SemEval-2010 task 8, TACRED's family and DialogRE."""

import functools

from prompt_tuning.data import preprocessors, spec
from prompt_tuning.data.tasks import registration

_FIELDS = ("text", "subject", "object")


def _rendering(task: spec.TaskSpec) -> list[registration.Preprocessor]:
  return [
    functools.partial(
      preprocessors.labelled_fields,
      name=task.dataset,
      fields=_FIELDS,
      label_words=task.label_words,
      others=task.eval_features,
    )
  ]


registration.add_catalogue(__name__, _rendering)
