"""Register XSum and CNN/Daily Mail."""

import functools

from prompt_tuning.data import preprocessors, spec
from prompt_tuning.data.catalog import summarization
from prompt_tuning.data.tasks import registration


def _rendering(task: spec.TaskSpec) -> list[registration.Preprocessor]:
  _, text, summary = summarization.SOURCES[task.dataset]
  write = functools.partial(preprocessors.summarise, text=text, summary=summary)
  # As in the T5 library's `summarize`; SPoT's own does not do this.
  return [write, preprocessors.single_blanks]


registration.add_catalogue(__name__, _rendering)
