"""Registration of specs as seqio tasks and mixtures of the same names."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import seqio

from prompt_tuning.data import preprocessors, spec, vocabulary
from prompt_tuning.data.catalog.variants import TASK_INDEX, TASKLESS

# tf.data.Dataset -> tf.data.Dataset
Preprocessor = Callable[..., Any]


class ConfiguredVocabulary(seqio.SentencePieceVocabulary):
  """A SentencePiece vocabulary whose file is found when first used.

  Tasks are registered on import, before the file is known; see
  `prompt_tuning.data.vocabulary.resolve`.
  """

  _model: Any
  _sentencepiece_model_file: str

  def __init__(self) -> None:
    super().__init__("", extra_ids=vocabulary.EXTRA_IDS)

  def _model_context(self) -> Any:
    path = vocabulary.resolve()
    if self._model is None or path != self._sentencepiece_model_file:
      loaded = vocabulary.load(path)
      self._model = seqio.vocabularies._ModelContext(
        tokenizer=loaded.processor, sp_model=loaded.model_proto
      )
      self._sentencepiece_model_file = path
    return self._model

  def __eq__(self, other: object) -> bool:
    """Say whether a vocabulary of seqio's gives every text the same ids.

    T5X compares a task's with its model's, which reads a file that holds the
    sentinels already, or lets seqio add them.
    """
    if self is other:
      return True
    if not isinstance(other, seqio.SentencePieceVocabulary):
      return False
    ours, theirs = self.sp_model, other.sp_model
    if ours == theirs or self.vocab_size != other.vocab_size:
      return ours == theirs
    try:
      form = vocabulary.normal_form(theirs, other.sentencepiece_model_file)
    except ValueError:  # other sentinels
      return False
    return vocabulary.decisive(ours) == vocabulary.decisive(form)

  # Two vocabularies may become equal when the file is chosen.
  __hash__ = None  # type: ignore[assignment]


VOCABULARY = ConfiguredVocabulary()
FEATURES = {
  "inputs": seqio.Feature(vocabulary=VOCABULARY, add_eos=True),
  "targets": seqio.Feature(vocabulary=VOCABULARY, add_eos=True),
}


def add_task(
  task: spec.TaskSpec,
  rendering: Sequence[Preprocessor],
  source: seqio.DataSource | None = None,
  noise: Sequence[Preprocessor] = (),
) -> None:
  """Register a task with seqio.

  Args:
    task: gives its name, source, splits, postprocessor and metrics.
    rendering: preprocessors from the source's rows to text.
    source: source of the rows, by default TFDS.
    noise: preprocessors from tokens to tokens.
  """
  seqio.TaskRegistry.add(
    task.name,
    source=source
    or seqio.TfdsDataSource(tfds_name=task.source, splits=dict(task.splits)),
    preprocessors=[
      *rendering,
      seqio.preprocessors.tokenize,
      *noise,
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos_after_trim,
    ],
    postprocess_fn=task.postprocess,
    metric_fns=list(task.metrics),
    output_features=FEATURES,
  )


def add_catalogue(
  module: str,
  rendering: Callable[[spec.TaskSpec], Sequence[Preprocessor]],
  position: Callable[[spec.TaskSpec], int] | None = None,
) -> None:
  """Register every task and mixture of one module of the catalogue.

  Args:
    module: the specs' `module`.
    rendering: a task -> its preprocessors; the task's name, which they put in
      front, is removed again for `taskless_` and `task_index_` tasks.
    position: a task -> its index, if there are `task_index_` tasks.
  """
  members = [spec.get(name) for name in spec.names()]
  members = [member for member in members if member.module == module]
  for member in members:
    if isinstance(member, spec.TaskSpec):
      steps = list(rendering(member))
      if member.name.startswith((TASKLESS, TASK_INDEX)):
        steps.append(preprocessors.drop_task_name)
      if position and member.name.startswith(TASK_INDEX):
        number = position(member)
        steps.append(
          functools.partial(preprocessors.put_sentinel, number=number)
        )
      add_task(member, steps)
  for member in members:
    if isinstance(member, spec.MixtureSpec):
      seqio.MixtureRegistry.add(member.name, list(member.rates.items()))
