"""Register AG News, DBpedia, Yahoo, IMDB, Amazon reviews, SST-5 and RACE."""

import functools

from prompt_tuning.data import preprocessors, spec
from prompt_tuning.data.catalog import text_classification as catalog
from prompt_tuning.data.tasks import registration


def _rendering(task: spec.TaskSpec) -> list[registration.Preprocessor]:
  return [
    functools.partial(
      preprocessors.labelled_fields,
      name=task.dataset,
      fields=catalog.TEXT_FEATURES[task.dataset],
      label_words=task.label_words,
    )
  ]


registration.add_catalogue(__name__, _rendering)
