"""T5's SentencePiece vocabulary with its 100 sentinels, without TensorFlow.

Source: the ids are those of seqio's `SentencePieceVocabulary(path,
extra_ids=100)`, asserted by a test.
"""

import functools
import logging
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from prompt_tuning.core import embedded, files, types
from prompt_tuning.core.types import UNK_ID

EXTRA_IDS = 100
ENVIRONMENT_VARIABLE = "PROMPT_TUNING_VOCABULARY"
_PUBLISHED = "gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model"

_pb2: Any = sentencepiece_model_pb2  # generated code: no types
# In the form of seqio, and in that of other tools.
_SENTINEL = re.compile("▁?<extra_id_([0-9]+)>")

logger = logging.getLogger(__name__)

_configured: str | None = None


def configure(path: str | None) -> None:
  """Set the vocabulary file that this process uses by default.

  Args:
    path: a SentencePiece model; None selects the environment variable again.
  """
  global _configured
  _configured = path


def resolve(path: str | None = None) -> str:
  """Return the path of the chosen vocabulary file, without opening it.

  Args:
    path: an explicit path, or `embedded:` and the name of a model of the
      package; by default the path of `configure`, then the environment variable
      `PROMPT_TUNING_VOCABULARY`.

  Returns:
    The path.

  Raises:
    ValueError: no vocabulary was chosen.
  """
  source = path or _configured or os.environ.get(ENVIRONMENT_VARIABLE)
  if not source:
    raise ValueError(
      "No vocabulary: give the path of T5's sentencepiece.model, or set the "
      f"environment variable {ENVIRONMENT_VARIABLE}. The published file is "
      f"{_PUBLISHED}; that of the small model in this package is "
      f"{embedded.DEFAULT}."
    )
  return embedded.vocabulary(str(source))


def load(path: str | None = None) -> "Vocabulary":
  """Load a vocabulary, once per process and file.

  Args:
    path: see `resolve`.

  Returns:
    The vocabulary.

  Raises:
    FileNotFoundError: no such file.
    OSError: the file is remote and cannot be read.
    ValueError: no path, or not a SentencePiece model with T5's special ids.
  """
  return _load(resolve(path))


@functools.cache
def _load(path: str) -> "Vocabulary":
  return Vocabulary(path)


def _read(path: str) -> bytes:
  """Read a model file, perhaps from a bucket."""
  if "://" in path and not files.is_url(path):
    raise OSError(
      f"The vocabulary {path} cannot be read from here; expected a file on "
      "this machine, gs:// or s3://. Copy it to this machine, and give the "
      "path of the copy."
    )
  file = files.path(path)
  try:
    content = file.read_bytes() if file.is_file() else None
  except files.StoreError as error:
    raise OSError(
      f"The vocabulary {path} cannot be read from here ({error}). Copy it to "
      "this machine from a machine that can read it, and give the path of the "
      "copy."
    ) from error
  if content is None:
    raise FileNotFoundError(
      f"No vocabulary file {path}. Expected T5's sentencepiece.model; see "
      f"{ENVIRONMENT_VARIABLE}. The published file is {_PUBLISHED}."
    )
  return content


class Vocabulary:
  """Conversion of text to ids and back.

  Attributes:
    path: the SentencePiece model file.
    size: total number of ids, 32,100 for T5: pieces, then sentinels. The
      embedding table has more rows (32,128), see `check_fits`.
    processor: SentencePiece's own.
    model_proto: the SentencePiece model, serialised, with its sentinels: the
      same for a file that holds them and for one that does not.
    sha256: hash of the model file's bytes without sentinels, and of the number
      of sentinels; part of every cache key.
  """

  pad_id = types.PAD_ID
  eos_id = types.EOS_ID
  unk_id = types.UNK_ID

  def __init__(self, path: str):
    self.path = path
    content = _read(path)
    model = _parse(content, path)
    if _drop_sentinels(model, path):
      content = model.SerializeToString()
    self.sha256 = files.sha256(content + b"%d" % EXTRA_IDS)
    self.model_proto = _with_sentinels(model)
    self.processor = _processor(self.model_proto, path)
    self.size = self.processor.GetPieceSize()

  @functools.cached_property
  def ids_sha256(self) -> str:
    """Hash of everything that decides ids; equal for equal vocabularies."""
    return files.sha256(repr(decisive(self.model_proto)).encode())

  def encode(self, text: str) -> list[int]:
    """Return the ids of a text, without EOS."""
    return list(self.processor.EncodeAsIds(text))

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of many texts, each without EOS, on all cores.

    Raises:
      ValueError: UTF-8 cannot encode one of the texts.
    """
    for number, text in enumerate(texts):
      if not isinstance(text, str) or not files.is_text(text):
        raise ValueError(
          f"Text number {number} is {text!r:.80}; expected characters of "
          "Unicode, as a str."
        )
    return list(self.processor.EncodeAsIds(list(texts)))

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
    return str(self.processor.DecodeIds(clean))

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """Return the piece of every id, for people to read.

    Args:
      ids: integers below `size`.
    """
    return [self.processor.IdToPiece(int(token)) for token in ids]

  def sentinel(self, index: int) -> int:
    """Return the id of `<extra_id_index>`, counted down from the last id.

    Raises:
      ValueError: the index is not from 0 to 99.
    """
    if not 0 <= index < EXTRA_IDS:
      raise ValueError(f"Sentinels are 0 to {EXTRA_IDS - 1}, got {index}.")
    return self.size - 1 - index

  def check_fits(self, rows: int) -> None:
    """Check that this can be the vocabulary of a model.

    A table has a few more rows than there are ids (T5: 32,128 for 32,100). If
    it has twice as many, the vocabulary is probably another model's; a warning
    says so.

    Args:
      rows: number of rows of the model's embedding table.

    Raises:
      ValueError: an id without a row.
    """
    sizes = (
      f"{self.path} has {self.size:,} ids, sentinels included, and the model's "
      f"embedding table has {rows:,} rows"
    )
    if self.size > rows:
      raise ValueError(
        f"{sizes}: every id needs a row. This is another model's vocabulary, "
        "or the table was pruned. Set VOCABULARY_FILE (vocabulary_path) to "
        "the file that the model was trained with, or take a model with as "
        "many rows."
      )
    if rows >= 2 * self.size:
      _warn_once(
        f"{sizes}. If the file is another model's, answers mean nothing: check "
        "VOCABULARY_FILE (vocabulary_path)."
      )


def insist_distinct(
  words: Vocabulary, texts: Sequence[str], limit: int | None, what: str
) -> None:
  """Check that texts, such as the words of classes, have different ids.

  Args:
    words: the vocabulary of the model.
    texts: different texts.
    limit: maximum number of tokens of each, with EOS; None for no limit.
    what: what to call the texts, for the error.

  Raises:
    ValueError: two of them have the same ids: all characters that the
      vocabulary lacks are one piece, and the limit may cut the parts that
      differ.
  """
  seen: dict[tuple[int, ...], str] = {}
  end = None if limit is None else limit - 1
  for text, ids in zip(texts, words.encode_batch(texts), strict=True):
    other = seen.setdefault(tuple(ids[:end]), text)
    if other == text:
      continue
    cut = limit is not None and len(ids) >= limit
    raise ValueError(
      f"{what} {other!r} and {text!r} have the same ids, {ids[:end]}, "
      + (
        f"cut to {limit} tokens: raise TASK_FEATURE_LENGTHS of targets."
        if cut
        else (
          f"in the vocabulary {words.path}: the model cannot learn to tell "
          f"them apart. Id {UNK_ID} stands for every character that the "
          "vocabulary lacks. Choose other words."
        )
      )
    )


@functools.cache
def _warn_once(text: str) -> None:
  logger.warning("%s", text)


def normal_form(model_proto: bytes, path: str) -> bytes:
  """Add missing sentinels to a model, and write all of them in seqio's form.

  Args:
    model_proto: a serialised SentencePiece model.
    path: path of the model, for errors.

  Returns:
    The model, serialised. Equal ones have the same pieces under the same ids.

  Raises:
    ValueError: not a model, or one with other sentinels than T5's.
  """
  model = _parse(model_proto, path)
  _drop_sentinels(model, path)
  return _with_sentinels(model)


def decisive(model_proto: bytes) -> tuple[Any, ...]:
  """Return everything in a model that decides the ids of texts.

  Args:
    model_proto: in the form that `normal_form` gives.

  Returns:
    Plain values: those of two models are equal if all texts have the same ids.
  """
  model = _pb2.ModelProto.FromString(model_proto)
  trainer = model.trainer_spec
  return (
    [(piece.piece, piece.type, piece.score) for piece in model.pieces],
    (trainer.model_type, trainer.treat_whitespace_as_suffix),
    model.normalizer_spec.SerializeToString(deterministic=True),
    model.denormalizer_spec.SerializeToString(deterministic=True),
  )


def _parse(content: bytes, path: str) -> Any:
  if not content:
    raise ValueError(
      f"{path} is empty; expected a SentencePiece model, such as {_PUBLISHED}."
    )
  try:
    model = _pb2.ModelProto.FromString(content)
  except Exception as error:  # protobuf's DecodeError, by whichever backend
    raise ValueError(f"{path} is not a SentencePiece model.") from error
  if not model.pieces:
    raise ValueError(f"{path} is not a SentencePiece model: it has no pieces.")
  return model


def _drop_sentinels(model: Any, path: str) -> bool:
  """Remove T5's sentinels from a model; return whether it had them.

  Neither their type nor a blank before them matters: as user-defined or as
  control symbols, they have the same ids.
  """
  numbers = {
    token: int(match[1])
    for token, piece in enumerate(model.pieces)
    if "<extra_id_" in piece.piece
    and (match := _SENTINEL.fullmatch(piece.piece))
  }
  size = len(model.pieces)
  expected = {size - 1 - k: k for k in range(EXTRA_IDS)}
  if numbers and numbers != expected:
    first = min(
      token
      for token in numbers.keys() | expected.keys()
      if numbers.get(token) != expected.get(token)
    )
    raise ValueError(
      f"{path}: {len(numbers)} of {size} pieces are sentinels, and id {first} "
      f"is {model.pieces[first].piece}. Expected no sentinels, or "
      f"{EXTRA_IDS} as the last pieces, <extra_id_{EXTRA_IDS - 1}> first and "
      f"<extra_id_0> last, as in {_PUBLISHED}."
    )
  if numbers:
    del model.pieces[-EXTRA_IDS:]
  return bool(numbers)


def _with_sentinels(model: Any) -> bytes:
  for index in reversed(range(EXTRA_IDS)):
    model.pieces.add(
      piece=f"▁<extra_id_{index}>",
      score=0.0,
      type=_pb2.ModelProto.SentencePiece.USER_DEFINED,
    )
  return bytes(model.SerializeToString())


def _processor(
  model_proto: bytes, path: str
) -> sentencepiece.SentencePieceProcessor:
  processor = sentencepiece.SentencePieceProcessor()
  try:
    processor.LoadFromSerializedProto(model_proto)
  except RuntimeError as error:
    raise ValueError(
      f"{path} is not a SentencePiece model that can be used: {error}"
    ) from error
  ids = (processor.pad_id(), processor.eos_id(), processor.unk_id())
  t5_ids = (types.PAD_ID, types.EOS_ID, types.UNK_ID)
  if ids != t5_ids:
    raise ValueError(
      f"{path}: pad, EOS and unknown have ids {ids}; T5's have {t5_ids}."
    )
  return processor
