"""From specs to seqio tasks and mixtures of the same names."""

from collections.abc import Callable, Sequence
from typing import Any

import seqio

from prompt_tuning.data import preprocessors, spec, vocabulary

# tf.data.Dataset -> tf.data.Dataset
Preprocessor = Callable[..., Any]


class ConfiguredVocabulary(seqio.SentencePieceVocabulary):
  """A SentencePiece vocabulary whose file is looked up when first used.

  Tasks are registered on import, when nobody has said yet where the file is;
  see `prompt_tuning.data.vocabulary.resolve`.
  """

  def __init__(self) -> None:
    super().__init__("", extra_ids=vocabulary.EXTRA_IDS)
    self._resolved = ""

  def _model_context(self) -> Any:
    path = vocabulary.resolve()
    if path != self._resolved:
      vocabulary.load(path)  # its errors say more than TensorFlow's
      self._resolved = self._sentencepiece_model_file = path
      self._model = None
    return super()._model_context()


VOCABULARY = ConfiguredVocabulary()
FEATURES = {
  "inputs": seqio.Feature(vocabulary=VOCABULARY, add_eos=True),
  "targets": seqio.Feature(vocabulary=VOCABULARY, add_eos=True),
}


def add_task(
  task: spec.TaskSpec,
  rendering: Sequence[Preprocessor],
  source: seqio.DataSource | None = None,
) -> None:
  """Register a task with seqio.

  Args:
    task: gives its name, source, splits, postprocessor and metrics.
    rendering: preprocessors from the source's rows to text.
    source: where the rows come from, by default TFDS.
  """
  seqio.TaskRegistry.add(
    task.name,
    source=source
    or seqio.TfdsDataSource(tfds_name=task.source, splits=dict(task.splits)),
    preprocessors=[
      *rendering,
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos_after_trim,
    ],
    postprocess_fn=task.postprocess,
    metric_fns=list(task.metrics),
    output_features=FEATURES,
  )


def add_catalogue(
  module: str, rendering: Callable[[spec.TaskSpec], Sequence[Preprocessor]]
) -> None:
  """Register every task and mixture of one module of the catalogue.

  Args:
    module: the specs' `module`.
    rendering: a task -> its preprocessors; the task's name, which they put in
      front, is dropped again for `taskless_` tasks.
  """
  members = [spec.get(name) for name in spec.names()]
  members = [member for member in members if member.module == module]
  for member in members:
    if isinstance(member, spec.TaskSpec):
      steps = list(rendering(member))
      if member.name.startswith("taskless_"):
        steps.append(preprocessors.drop_task_name)
      add_task(member, steps)
  for member in members:
    if isinstance(member, spec.MixtureSpec):
      seqio.MixtureRegistry.add(member.name, list(member.rates.items()))
