"""Register SuperGLUE, its diagnostics, WSC as generation, and DPR."""

import functools
from collections.abc import Sequence

from prompt_tuning.data import preprocessors, spec
from prompt_tuning.data.catalog import super_glue as catalog
from prompt_tuning.data.catalog import variants
from prompt_tuning.data.tasks import registration

# The fields that are written, in this order: alphabetical, except for WiC,
# whose offsets are left out.
_FIELDS = {
  "boolq": ("passage", "question"),
  "cb": ("hypothesis", "premise"),
  "copa": ("choice1", "choice2", "premise", "question"),
  "rte": ("hypothesis", "premise"),
  "wic": ("sentence1", "sentence2", "word"),
  "axb": ("hypothesis", "premise"),
  "axg": ("hypothesis", "premise"),
}
# The RTE prompt reads the diagnostics, so they have its name.
_NAMES = {"axb": "rte", "axg": "rte"}
_AXB_FEATURES = {"premise": "sentence1", "hypothesis": "sentence2"}


def rendering(
  dataset: str, label_words: Sequence[str]
) -> list[registration.Preprocessor]:
  """Return the preprocessors of a data set whose fields are written in order.

  Args:
    dataset: its TFDS configuration, such as `boolq`.
    label_words: words by class id.
  """
  return [
    functools.partial(
      preprocessors.labelled_fields,
      name=_NAMES.get(dataset, dataset),
      fields=_FIELDS[dataset],
      label_words=label_words,
    )
  ]


def _rendering(task: spec.TaskSpec) -> Sequence[registration.Preprocessor]:
  if task.dataset == "multirc":
    words = task.label_words
    return [functools.partial(preprocessors.multirc, label_words=words)]
  if task.dataset == "record":
    return [preprocessors.record]
  if task.dataset == "wsc":
    only = "train" in task.splits
    return [functools.partial(preprocessors.wsc, correct_only=only)]
  if task.dataset == "dpr":
    return [preprocessors.dpr]
  write = rendering(task.dataset, task.label_words)
  if task.dataset == "axb":
    rename = functools.partial(preprocessors.rename, names=_AXB_FEATURES)
    return [rename, *write]
  return write


def _position(task: spec.TaskSpec) -> int:
  """Return a data set's index in the original, see `variants.position`."""
  datasets = {*catalog.LABEL_WORDS, "record", "wsc"}
  name = {**_NAMES, "dpr": "wsc"}.get(task.dataset, task.dataset)
  return variants.position(name, datasets, _NAMES)


registration.add_catalogue(__name__, _rendering, _position)
