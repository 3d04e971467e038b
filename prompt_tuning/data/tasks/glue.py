"""Register GLUE."""

import functools
from collections.abc import Sequence

from prompt_tuning.data import preprocessors, spec
from prompt_tuning.data.catalog import glue as catalog
from prompt_tuning.data.catalog import variants
from prompt_tuning.data.tasks import registration

_PAIR = ("sentence1", "sentence2")
_NLI = ("hypothesis", "premise")
# The fields that are written, in alphabetical order.
FIELDS = {
  "cola": ("sentence",),
  "sst2": ("sentence",),
  "mrpc": _PAIR,
  "qqp": ("question1", "question2"),
  "mnli": _NLI,
  "mnli_mismatched": _NLI,
  "mnli_matched": _NLI,
  "qnli": ("question", "sentence"),
  "rte": _PAIR,
  "wnli": _PAIR,
  "ax": _NLI,
}
# The MNLI prompt reads these evaluation sets, so they have its name.
_NAMES = dict.fromkeys(("mnli_mismatched", "mnli_matched", "ax"), "mnli")


def rendering(
  dataset: str, label_words: Sequence[str]
) -> list[registration.Preprocessor]:
  """Return the preprocessors of one GLUE data set.

  Args:
    dataset: its TFDS configuration, such as `mrpc`.
    label_words: words by class id.
  """
  if dataset == "stsb":
    return [preprocessors.stsb]
  return [
    functools.partial(
      preprocessors.labelled_fields,
      name=_NAMES.get(dataset, dataset),
      fields=FIELDS[dataset],
      label_words=label_words,
    )
  ]


def _of_task(task: spec.TaskSpec) -> list[registration.Preprocessor]:
  return rendering(task.dataset, task.label_words)


def position(dataset: str) -> int:
  """Return a data set's index in the original, see `variants.position`."""
  name = _NAMES.get(dataset, dataset)
  return variants.position(name, catalog.LABEL_WORDS, _NAMES)


registration.add_catalogue(
  __name__, _of_task, lambda task: position(task.dataset)
)
