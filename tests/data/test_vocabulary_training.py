"""Vocabularies of one's own: T5's ids, the same every time, whole or not."""

import os

import pytest
from sentencepiece import sentencepiece_model_pb2 as pb2

from prompt_tuning.data import vocabulary, vocabulary_training
from tests.failing_files import Disk, full_disk
from tests.invented_corpus import VOCABULARY_SIZE, documents

TEXTS = documents(60, seed=2)


def train(path, texts=TEXTS, size=VOCABULARY_SIZE, **settings):
  return vocabulary_training.train(texts, path, size, **settings)


@pytest.fixture
def invented(invented_vocabulary):
  return vocabulary.load(invented_vocabulary)


def test_special_ids_are_t5s(invented):
  assert invented.pieces([0, 1, 2]) == ["<pad>", "</s>", "<unk>"]
  assert invented.size == VOCABULARY_SIZE
  assert invented.sentinel(0) == VOCABULARY_SIZE - 1
  assert invented.encode("<extra_id_0>") == [VOCABULARY_SIZE - 1]
  assert invented.encode("<extra_id_99>") == [VOCABULARY_SIZE - 100]


def test_seqio_reads_the_same_ids(invented):
  import seqio

  theirs = seqio.SentencePieceVocabulary(invented.path, extra_ids=100)
  assert theirs.vocab_size == VOCABULARY_SIZE
  for text in [*TEXTS[:5], "a word of <extra_id_7> another kind?"]:
    assert invented.encode(text) == list(theirs.encode(text))
    assert invented.encode(text) == theirs.encode_tf(text).numpy().tolist()


def test_text_is_in_the_vocabulary_and_comes_back(invented):
  for text in documents(20, seed=5):
    ids = invented.encode(text)
    assert invented.unk_id not in ids
    assert len(ids) < 0.7 * len(text)
    assert invented.decode(ids) == text


def test_training_is_deterministic(tmp_path, invented):
  """To the byte, wherever the file lies: its hash is part of cache keys."""
  (tmp_path / "elsewhere").mkdir()
  again = train(tmp_path / "elsewhere" / "again.model", iter(TEXTS))
  assert again.sha256 == invented.sha256
  other = train(tmp_path / "other.model", documents(60, seed=3))
  assert other.sha256 != invented.sha256
  with open(again.path, "rb") as file:
    model = pb2.ModelProto.FromString(file.read())
  assert not model.trainer_spec.model_prefix, "no path of this machine"


@pytest.mark.parametrize("size", [VOCABULARY_SIZE - 10, VOCABULARY_SIZE])
def test_a_file_is_replaced_by_one_of_exactly_the_size(tmp_path, size):
  path = tmp_path / "a.model"
  train(path, size=size - 1)
  assert train(path, size=size).size == size
  assert os.listdir(tmp_path) == ["a.model"]
  with open(path, "rb") as file:
    assert len(pb2.ModelProto.FromString(file.read()).pieces) == size - 100


def test_long_lines_count(tmp_path):
  """SentencePiece itself would leave a document in one line out."""
  whole = train(tmp_path / "a.model", [" ".join(TEXTS)])
  assert whole.unk_id not in whole.encode(TEXTS[0])
  unbroken = train(tmp_path / "b.model", ["".join(TEXTS).replace(" ", "")])
  assert unbroken.unk_id not in unbroken.encode(TEXTS[0].replace(" ", ""))


@pytest.mark.parametrize("text", ["a b c  d\n", "word " * 5_000, "x" * 9_000])
def test_lines_lose_nothing(text):
  lines = list(vocabulary_training._lines([text]))
  assert "".join(lines).rstrip() == text.strip("\n").rstrip()
  assert max(map(len, lines)) <= 4_000


def failing():
  yield from TEXTS[:30]
  raise ValueError("file.txt:31: not UTF-8")


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"texts": []}, "No text to train a vocabulary on"),
    ({"texts": ["", " \n\t"]}, "No text to train a vocabulary on"),
    ({"size": 102}, "102 ids has no room for pieces beside 100 sentinels"),
    ({"size": -1}, "raise --size"),
    ({"size": 103}, r"cannot make 3 pieces .*Choose another --size"),
    ({"size": 5_000}, r"cannot make 4900 pieces .*or give more text"),
    ({"texts": failing()}, r"^file\.txt:31: not UTF-8$"),
  ],
)
def test_nothing_is_written_when_it_fails(tmp_path, settings, message):
  path = tmp_path / "a.model"
  path.write_bytes(b"old")
  with pytest.raises(ValueError, match=message):
    train(path, **settings)
  assert path.read_bytes() == b"old"
  assert os.listdir(tmp_path) == ["a.model"]


def test_no_folder(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"nowhere to write a\.model"):
    train(tmp_path / "nowhere" / "a.model", failing())


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
  Disk(monkeypatch, lambda _, name, path: name == "_flush" and full_disk())
  with pytest.raises(OSError, match="No space left"):
    train(tmp_path / "a.model")
  assert os.listdir(tmp_path) == []
