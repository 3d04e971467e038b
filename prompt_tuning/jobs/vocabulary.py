"""Train a vocabulary on your own text."""

import itertools
from collections.abc import Iterator, Sequence

from prompt_tuning.data import corpus, vocabulary_training
from prompt_tuning.data.vocabulary import Vocabulary


def train(
  texts: Sequence[str], output: str, size: int, every: int = 1, skills: int = 0
) -> Vocabulary:
  """Train a vocabulary with T5's special ids and sentinels.

  Args:
    texts: files, see `corpus.Text`.
    output: the model file to write.
    size: number of ids, with 100 sentinels.
    every: read only every n-th document, such as every third.
    skills: generated questions to add.

  Returns:
    The vocabulary.

  Raises:
    ValueError: files or settings at fault.
    OSError: a file cannot be read or written.
  """
  documents = _documents(texts, every, skills)
  return vocabulary_training.train(documents, output, size)


def _documents(texts: Sequence[str], every: int, skills: int) -> Iterator[str]:
  sources: list[corpus.Corpus] = [
    corpus.Text("input", {corpus.TRAIN: texts}, every=every)
  ]
  if skills:
    sources.append(corpus.Skills(skills))
  for document in itertools.chain.from_iterable(
    source.documents(corpus.TRAIN) for source in sources
  ):
    yield f"{document.text} {document.answer}".strip()
