"""Register pre-training tasks with seqio, see `prompt_tuning.data.corpus`."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data import corpus, denoising, ragged, spec
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.data.tasks import registration

# Documents and examples pass between Python and TensorFlow in batches: single
# ones would take several times as long.
_BATCH = 512
_TEXTS = tf.TensorSpec((None,), tf.string)
_TOKENS = tf.RaggedTensorSpec((None, None), tf.int32, ragged_rank=1)
_Make = Callable[[np.ndarray, np.ndarray, int], Iterator[denoising.Pair]]
_EXAMPLES = {
  "inputs": _TOKENS,
  "targets": _TOKENS,
  "inputs_pretokenized": _TEXTS,
  "targets_pretokenized": _TEXTS,
}


def register(task: spec.TaskSpec) -> None:
  """Register a task made by `corpus.declare`."""
  source = corpus.of_task(task.name)

  def dataset(
    split: str, shuffle_files: bool, seed: int | None = None
  ) -> tf.data.Dataset:
    del shuffle_files, seed  # the pipeline shuffles examples
    # Read here, since TensorFlow would replace the error by its own.
    documents = list(source.documents(split))

    def generate() -> Iterator[dict[str, Sequence[str]]]:
      for start in range(0, len(documents), _BATCH):
        batch = documents[start : start + _BATCH]
        texts, answers = zip(*batch, strict=True)
        yield {"inputs": texts, "targets": answers}

    signature = {"inputs": _TEXTS, "targets": _TEXTS}
    batches = tf.data.Dataset.from_generator(
      generate, output_signature=signature
    )
    return batches.unbatch()

  seqio.TaskRegistry.add(
    task.name,
    source=seqio.FunctionDataSource(dataset, splits=tuple(task.splits)),
    preprocessors=[
      seqio.preprocessors.tokenize,
      denoise(
        functools.partial(examples, corpus.Denoising(**task.content["how"]))
      ),
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features=registration.FEATURES,
  )


def denoise(make: _Make) -> registration.Preprocessor:
  """Make the preprocessor that turns documents into examples.

  Args:
    make: makes the examples of one document, see `examples`.

  Returns:
    Tokenised documents -> tokenised examples. Their texts are left out: a cache
    would hold each text once per chunk.
  """

  def preprocess(documents: tf.data.Dataset) -> tf.data.Dataset:
    batches = documents.ragged_batch(_BATCH)

    def generate() -> Iterator[dict[str, Any]]:
      number = itertools.count()
      for batch in batches.as_numpy_iterator():
        pairs = [
          pair
          for text, answer in zip(
            _rows(batch["inputs"]), _rows(batch["targets"]), strict=True
          )
          for pair in make(text, answer, next(number))
        ]
        if pairs:
          yield _columns(pairs)

    example_batches = tf.data.Dataset.from_generator(
      generate, output_signature=_EXAMPLES
    )
    return example_batches.unbatch()

  return preprocess


def examples(
  how: corpus.Denoising, text: np.ndarray, answer: np.ndarray, number: int
) -> Iterator[denoising.Pair]:
  """Make the examples of one document.

  Args:
    how: settings of the objective.
    text: [n] ids of the text.
    answer: [m] ids; empty for running text.
    number: index of the document.

  Yields:
    Token rows of inputs and targets, without EOS.
  """
  vocabulary = vocabularies.load()
  spans = how.objective == denoising.SPAN_CORRUPTION
  if len(answer):
    yield (
      denoising.blank(text, answer, vocabulary.sentinel)
      if spans
      else (text, answer)
    )
    return
  for index in range(how.passes):
    for piece, tokens in enumerate(denoising.chunks(text, how.chunk_length)):
      key = (how.seed, index, number, piece)
      if spans:
        yield denoising.corrupt_spans(
          tokens, vocabulary.sentinel, how.noise_density, how.mean_span, *key
        )
      else:
        yield denoising.cut(tokens, *key)


def _rows(values: Any) -> list[np.ndarray]:
  """Split a batch of token rows; rows of one length come as an array."""
  if isinstance(values, np.ndarray):
    return list(values)
  return np.split(values.values, values.row_splits[1:-1])


def _columns(pairs: Sequence[denoising.Pair]) -> dict[str, Any]:
  """Collect examples into columns, without their texts."""
  features: dict[str, Any] = {}
  for name, rows in zip(
    ("inputs", "targets"), zip(*pairs, strict=True), strict=True
  ):
    array = ragged.from_rows(rows, np.int32)
    features[name] = tf.RaggedTensor.from_row_splits(
      array.values, array.offsets, validate=False
    )
    features[f"{name}_pretokenized"] = [""] * len(pairs)
  return features
