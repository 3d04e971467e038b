"""Training of a SentencePiece vocabulary with T5's special ids."""

import io
import itertools
import os
from collections.abc import Iterable, Iterator

import sentencepiece

from prompt_tuning.core import files, types
from prompt_tuning.data import vocabulary

# SentencePiece ignores longer lines; documents have no line breaks to keep.
_LONGEST_LINE = 4_000
_MAX_LINES = 1_000_000
# Share of the characters in the texts that get their own piece.
_COVERAGE = 0.9999


def train(
  texts: Iterable[str],
  path: str | os.PathLike[str],
  size: int,
) -> vocabulary.Vocabulary:
  """Train a unigram vocabulary and write it.

  Args:
    texts: training texts.
    path: the file to write; it appears complete or not at all.
    size: total number of ids: pieces, then 100 sentinels.

  Returns:
    The vocabulary.

  Raises:
    ValueError: no text, too little text for the number of pieces, or a size
      that leaves no pieces besides the sentinels.
    FileNotFoundError: no such folder.

  Source: T5, Raffel et al. 2020, section 2.1: unigram pieces; padding is 0, EOS
    1, unknown 2; sentinels are the highest ids. Training is deterministic.
  """
  pieces = size - vocabulary.EXTRA_IDS
  if pieces < 3:
    raise ValueError(
      f"A vocabulary of {size} ids has no room for pieces beside "
      f"{vocabulary.EXTRA_IDS} sentinels; raise --size."
    )
  path = files.path(path)
  if not (files.is_url(path) or path.parent.is_dir()):
    raise FileNotFoundError(f"No directory {path.parent} to write {path.name}.")
  failures: list[Exception] = []
  lines = _noting(failures, _lines(texts))
  first = next(lines, None)
  if first is None:
    raise ValueError("No text to train a vocabulary on.")
  # Not to a separate file: the model would contain its name and differ by it.
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.Train(
      sentence_iterator=itertools.chain([first], lines),
      model_writer=model,
      model_type="unigram",
      vocab_size=pieces,
      character_coverage=_COVERAGE,
      pad_id=types.PAD_ID,
      eos_id=types.EOS_ID,
      unk_id=types.UNK_ID,
      bos_id=-1,
      input_sentence_size=_MAX_LINES,
      shuffle_input_sentence=False,
      max_sentence_length=4 * _LONGEST_LINE,
      num_threads=1,
      minloglevel=2,
    )
  except RuntimeError as error:
    if failures:  # of reading; SentencePiece makes its own error of any
      raise failures[0] from None
    raise ValueError(
      f"SentencePiece cannot make {pieces} pieces of this text, and "
      f"{vocabulary.EXTRA_IDS} sentinels: {error} Choose another --size, or "
      "give more text."
    ) from error
  files.write_bytes(path, model.getvalue())
  return vocabulary.Vocabulary(str(path))


def _lines(texts: Iterable[str]) -> Iterator[str]:
  """Cut texts at line breaks, and long lines between words."""
  for text in texts:
    for line in text.splitlines():
      while line.strip():
        end = len(line)
        if end > _LONGEST_LINE:
          end = line.rfind(" ", 1, _LONGEST_LINE) + 1 or _LONGEST_LINE
        yield line[:end]
        line = line[end:]


def _noting(failures: list[Exception], lines: Iterator[str]) -> Iterator[str]:
  """Yield the lines; record an error that ends them."""
  try:
    yield from lines
  except Exception as error:
    failures.append(error)
    raise
