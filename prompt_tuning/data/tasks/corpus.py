"""Register pre-training tasks with seqio, see `prompt_tuning.data.corpus`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data import corpus, denoising, spec, vocabulary
from prompt_tuning.data.tasks import registration

_TEXT = tf.TensorSpec((), tf.string)
_DOCUMENTS = {"inputs": _TEXT, "targets": _TEXT}
_TOKENS = tf.TensorSpec((None,), tf.int32)
_EXAMPLES = {
  "inputs": _TOKENS,
  "targets": _TOKENS,
  "inputs_pretokenized": _TEXT,
  "targets_pretokenized": _TEXT,
}


def register(task: spec.TaskSpec) -> None:
  """Register a task made by `corpus.declare`."""
  source = corpus.of_task(task.name)

  def dataset(
    split: str, shuffle_files: bool, seed: int | None = None
  ) -> tf.data.Dataset:
    del shuffle_files, seed  # the pipeline shuffles examples
    # Read here: from inside TensorFlow, errors would be TensorFlow's.
    documents = list(source.documents(split))

    def generate() -> Iterator[dict[str, str]]:
      for text, answer in documents:
        yield {"inputs": text, "targets": answer}

    return tf.data.Dataset.from_generator(generate, output_signature=_DOCUMENTS)

  seqio.TaskRegistry.add(
    task.name,
    source=seqio.FunctionDataSource(dataset, splits=tuple(task.splits)),
    preprocessors=[
      seqio.preprocessors.tokenize,
      denoise(corpus.Denoising(**task.content["how"])),
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features=registration.FEATURES,
  )


def denoise(how: corpus.Denoising) -> registration.Preprocessor:
  """Make the preprocessor that turns documents into examples.

  Args:
    how: which examples.

  Returns:
    Tokenised documents -> tokenised examples. Their texts are left out: a
    cache would hold each as often as it has chunks.
  """

  def preprocess(documents: tf.data.Dataset) -> tf.data.Dataset:
    def generate() -> Iterator[dict[str, Any]]:
      for number, document in enumerate(documents.as_numpy_iterator()):
        text, answer = document["inputs"], document["targets"]
        for inputs, targets in examples(how, text, answer, number):
          yield {
            "inputs": inputs,
            "targets": targets,
            "inputs_pretokenized": "",
            "targets_pretokenized": "",
          }

    return tf.data.Dataset.from_generator(generate, output_signature=_EXAMPLES)

  return preprocess


def examples(
  how: corpus.Denoising, text: np.ndarray, answer: np.ndarray, number: int
) -> Iterator[denoising.Pair]:
  """Make the examples of one document.

  Args:
    how: which.
    text: [n] ids.
    answer: [m] ids; none for running text.
    number: of the document.

  Yields:
    Token rows of inputs and targets, without EOS.
  """
  codec = vocabulary.load()
  spans = how.objective == denoising.SPAN_CORRUPTION
  if len(answer):
    yield (
      denoising.blank(text, answer, codec.sentinel) if spans else (text, answer)
    )
    return
  for index in range(how.passes):
    for piece, tokens in enumerate(denoising.chunks(text, how.chunk_length)):
      key = (how.seed, index, number, piece)
      if spans:
        yield denoising.corrupt_spans(
          tokens, codec.sentinel, how.noise_density, how.mean_span, *key
        )
      else:
        yield denoising.cut(tokens, *key)
