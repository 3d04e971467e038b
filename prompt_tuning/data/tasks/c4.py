"""Register C4 with noise."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data import denoising, spec
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.data.catalog import c4
from prompt_tuning.data.tasks import corpus, registration


@seqio.map_over_dataset
def _text(row: Mapping[str, Any]) -> dict[str, Any]:
  return {"inputs": row["text"], "targets": tf.constant("")}


def _examples(
  how: Mapping[str, Any], text: np.ndarray, answer: np.ndarray, number: int
) -> Iterator[denoising.Pair]:
  """Make the examples of one text, see `corpus.examples`."""
  del answer  # there is none
  vocabulary = vocabularies.load()
  for piece, tokens in enumerate(denoising.chunks(text, how["chunk_length"])):
    key = (number, piece)
    if how["noise"] == c4.TEXT_INFILLING:
      noisy, _ = denoising.corrupt_spans(
        *(tokens, vocabulary.sentinel, how["density"], how["mean_span"], *key)
      )
      yield noisy, tokens
    elif how["noise"] == c4.TOKEN_DELETION:
      yield denoising.delete(tokens, how["density"], *key), tokens
    else:
      words = how["targets"]
      word = words[int(np.random.default_rng(key).integers(len(words)))]
      target = np.asarray(vocabulary.encode(word), tokens.dtype)
      yield denoising.cut(tokens, *key)[0], target


def _register(task: spec.TaskSpec) -> None:
  registration.add_task(
    task,
    rendering=[_text],
    noise=[corpus.denoise(functools.partial(_examples, task.content))],
  )


for _name in spec.names():
  if spec.get(_name).module == __name__:
    _register(spec.task(_name))
