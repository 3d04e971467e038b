"""T5's SentencePiece vocabulary with its 100 sentinels, without TensorFlow.

Source: the ids are those of seqio's `SentencePieceVocabulary(path,
extra_ids=100)`, asserted by a test.
"""

import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import sentencepiece
from etils import epath
from sentencepiece import sentencepiece_model_pb2

from prompt_tuning.core import embedded, files, types

EXTRA_IDS = 100
ENVIRONMENT_VARIABLE = "PROMPT_TUNING_VOCABULARY"
_PUBLISHED = "gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model"

_pb2: Any = sentencepiece_model_pb2  # generated code: no types

_configured: str | None = None


def configure(path: str | None) -> None:
  """Set the vocabulary file that this process uses by default.

  Args:
    path: a SentencePiece model; None returns to the environment variable.
  """
  global _configured
  _configured = path


def resolve(path: str | None = None) -> str:
  """Find out which vocabulary file is meant, without opening it.

  Args:
    path: an explicit choice, perhaps `embedded:` and the name of a model that
      ships with the package; else that of `configure`, else the environment
      variable `PROMPT_TUNING_VOCABULARY`.

  Returns:
    The path.

  Raises:
    ValueError: nobody chose one.
  """
  chosen = path or _configured or os.environ.get(ENVIRONMENT_VARIABLE)
  if not chosen:
    raise ValueError(
      "No vocabulary: give the path of T5's sentencepiece.model, or set the "
      f"environment variable {ENVIRONMENT_VARIABLE}. The published file is "
      f"{_PUBLISHED}."
    )
  return embedded.vocabulary(str(chosen))


def load(path: str | None = None) -> "Vocabulary":
  """Load a vocabulary, once per process and file.

  Args:
    path: see `resolve`.

  Returns:
    The vocabulary.

  Raises:
    FileNotFoundError: no such file.
    ValueError: no path, or not a SentencePiece model with T5's special ids.
  """
  return _load(resolve(path))


@functools.cache
def _load(path: str) -> "Vocabulary":
  return Vocabulary(path)


class Vocabulary:
  """Text to ids and back.

  Attributes:
    path: the SentencePiece model file.
    size: ids in all, 32,100 for T5: pieces, then sentinels. The embedding table
      has more rows (32,128).
    sha256: of the model file's bytes and the number of sentinels; part of every
      cache key.
  """

  pad_id = types.PAD_ID
  eos_id = types.EOS_ID
  unk_id = types.UNK_ID

  def __init__(self, path: str):
    if not epath.Path(path).is_file():
      raise FileNotFoundError(
        f"No vocabulary file {path}. Expected T5's sentencepiece.model; see "
        f"{ENVIRONMENT_VARIABLE}. The published file is {_PUBLISHED}."
      )
    self.path = path
    content = epath.Path(path).read_bytes()
    self.sha256 = files.sha256(content + b"%d" % EXTRA_IDS)
    self._processor = _with_sentinels(content, path)
    self.size = self._processor.GetPieceSize()

  def encode(self, text: str) -> list[int]:
    """Return the ids of a text, without EOS."""
    return list(self._processor.EncodeAsIds(text))

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of many texts, each without EOS, on all cores."""
    return list(self._processor.EncodeAsIds(list(texts)))

  def decode(self, ids: Iterable[int]) -> str:
    """Return the text up to the first EOS.

    Args:
      ids: integers; those at or above `size` (padding rows of the table,
        virtual tokens) read as the unknown piece.

    Returns:
      The text.
    """
    clean = []
    for token in ids:
      if token == self.eos_id:
        break
      clean.append(int(token) if token < self.size else self.unk_id)
    return str(self._processor.DecodeIds(clean))

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """Return the piece of every id, for people to read.

    Args:
      ids: integers below `size`.
    """
    return [self._processor.IdToPiece(int(token)) for token in ids]

  def sentinel(self, index: int) -> int:
    """Return the id of `<extra_id_index>`, counted down from the last id.

    Raises:
      ValueError: there are only 100.
    """
    if not 0 <= index < EXTRA_IDS:
      raise ValueError(f"Sentinels are 0 to {EXTRA_IDS - 1}, got {index}.")
    return self.size - 1 - index


def _with_sentinels(
  content: bytes, path: str
) -> sentencepiece.SentencePieceProcessor:
  try:
    model = _pb2.ModelProto.FromString(content)
  except Exception as error:  # protobuf's DecodeError, by whichever backend
    raise ValueError(f"{path} is not a SentencePiece model.") from error
  for index in reversed(range(EXTRA_IDS)):
    model.pieces.add(
      piece=f"▁<extra_id_{index}>",
      score=0.0,
      type=_pb2.ModelProto.SentencePiece.USER_DEFINED,
    )
  processor = sentencepiece.SentencePieceProcessor()
  processor.LoadFromSerializedProto(model.SerializeToString())
  ids = (processor.pad_id(), processor.eos_id(), processor.unk_id())
  t5_ids = (types.PAD_ID, types.EOS_ID, types.UNK_ID)
  if ids != t5_ids:
    raise ValueError(
      f"{path}: pad, EOS and unknown have ids {ids}; T5's have {t5_ids}."
    )
  return processor
