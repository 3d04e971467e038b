"""The TF-free vocabulary, against seqio's and published ids."""

import itertools
import json
import subprocess
import sys

import pytest

from prompt_tuning.data import vocabulary

# Ids that reference data and the T5 paper's own example give.
GOLDEN = {
  "translate English to German: The house is wonderful.": [
    *(13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5)
  ],
  "True": [10998],
  "False": [10747, 7, 15],
  "entailment": [3, 35, 5756, 297],
  "choice2": [1160, 357],
}


@pytest.fixture(scope="module", params=["embedded", "published"])
def path(request):
  """A vocabulary that any clone has, and T5's own."""
  name = "vocabulary_file"
  if request.param == "published":
    name = "published_vocabulary_file"
  return request.getfixturevalue(name)


@pytest.fixture(scope="module")
def vocab(path):
  return vocabulary.load(path)


@pytest.fixture(scope="module")
def seqio_vocab(path):
  import seqio

  return seqio.SentencePieceVocabulary(path, extra_ids=100)


# What breaks tokenizers, and ordinary words.
HARD = (
  "",
  " ",
  "  two  blanks  ",
  "trailing blank ",
  "\ttab and\nnewline\r\n",
  "naïve café 東京 🙂 \u200b",
  "I like <extra_id_0> and <extra_id_99>ly <extra_id_100> things",
  "<unk> <pad> </s>",
  "{braces} ~ tilde \\ backslash",
  "It was the largest of 12 small, quick dogs; Ann's didn't (ever) bark!",
)


@pytest.fixture(scope="module")
def real_texts(shared_data):
  """Real text of two kinds."""
  with open(shared_data / "superglue" / "BoolQ" / "val.jsonl") as file:
    rows = [json.loads(line) for line in itertools.islice(file, 300)]
  with open(shared_data / "textcls" / "agnews" / "test.jsonl") as file:
    news = [json.loads(line) for line in itertools.islice(file, 300)]
  return [
    *(row["passage"] for row in rows),
    *(row["title"] + "\n" + row["description"] for row in news),
  ]


def test_published_ids(published_vocabulary_file):
  vocab = vocabulary.load(published_vocabulary_file)
  assert vocab.size == 32_100
  assert vocab.sentinel(0) == 32_099
  for text, ids in GOLDEN.items():
    assert vocab.encode(text) == ids


def check_encoding(vocab, seqio_vocab, texts):
  expected = [list(seqio_vocab.encode(text)) for text in texts]
  assert [vocab.encode(text) for text in texts] == expected
  assert vocab.encode_batch(texts) == expected
  for ids in expected:
    assert vocab.decode(ids) == seqio_vocab.decode(ids)


def test_encodes_as_seqio_does(vocab, seqio_vocab):
  check_encoding(vocab, seqio_vocab, HARD)
  for text in HARD:
    assert vocab.encode(text) == seqio_vocab.encode_tf(text).numpy().tolist()


def test_encodes_real_text_as_seqio_does(vocab, seqio_vocab, real_texts):
  check_encoding(vocab, seqio_vocab, real_texts)
  for text in real_texts[:50]:
    assert vocab.encode(text) == seqio_vocab.encode_tf(text).numpy().tolist()


def test_decodes_as_seqio_does(vocab, seqio_vocab):
  word, size = vocab.encode("dog")[0], vocab.size
  for ids in (
    [],
    [1],
    [word, 1, word],  # text after EOS
    [0, word, 0, 0],  # padding
    [size - 1, size - 100, size, size + 27, size + 28, 40_000, 2],
  ):
    assert vocab.decode(ids) == seqio_vocab.decode(ids)


def test_special_ids_and_sentinels(vocab, seqio_vocab):
  assert vocab.size == seqio_vocab.vocab_size
  assert (vocab.pad_id, vocab.eos_id, vocab.unk_id) == (
    seqio_vocab.pad_id,
    seqio_vocab.eos_id,
    seqio_vocab.unk_id,
  )
  assert vocab.sentinel(0) == vocab.size - 1
  assert vocab.encode("<extra_id_5>") == [vocab.sentinel(5)]
  with pytest.raises(ValueError, match="0 to 99, got 100"):
    vocab.sentinel(100)


def test_the_hash_follows_the_content(vocab, path, tmp_path):
  copy = tmp_path / "copy.model"
  with open(path, "rb") as file:
    copy.write_bytes(file.read())
  assert vocabulary.load(str(copy)).sha256 == vocab.sha256
  assert len(vocab.sha256) == 64


def test_where_the_path_comes_from(monkeypatch):
  monkeypatch.delenv(vocabulary.ENVIRONMENT_VARIABLE, raising=False)
  monkeypatch.setattr(vocabulary, "_configured", None)
  with pytest.raises(ValueError, match=vocabulary.ENVIRONMENT_VARIABLE):
    vocabulary.resolve()
  monkeypatch.setenv(vocabulary.ENVIRONMENT_VARIABLE, "from_environment")
  assert vocabulary.resolve() == "from_environment"
  vocabulary.configure("configured")
  assert vocabulary.resolve() == "configured"
  assert vocabulary.resolve("explicit") == "explicit"


def test_errors_name_the_file(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"absent\.model"):
    vocabulary.load(str(tmp_path / "absent.model"))
  broken = tmp_path / "broken.model"
  broken.write_text("not a model")
  with pytest.raises(ValueError, match=r"broken\.model is not a Sentence"):
    vocabulary.load(str(broken))


def test_refuses_special_ids_other_than_t5s(tmp_path):
  from sentencepiece import sentencepiece_model_pb2 as pb2

  model = pb2.ModelProto()
  kinds = pb2.ModelProto.SentencePiece
  for piece, kind in (
    ("<unk>", kinds.UNKNOWN),
    ("<s>", kinds.CONTROL),
    ("</s>", kinds.CONTROL),
    ("▁a", kinds.NORMAL),
  ):
    model.pieces.add(piece=piece, score=0.0, type=kind)
  path = tmp_path / "other.model"
  path.write_bytes(model.SerializeToString())
  with pytest.raises(ValueError, match=r"have ids \(-1, 2, 0\); T5's have"):
    vocabulary.load(str(path))


def test_imports_no_tensorflow(path):
  code = (
    "import sys; from prompt_tuning.data import vocabulary as v; "
    f"v.load({path!r}).encode('a'); "
    "bad = {'tensorflow', 'seqio', 'tensorflow_datasets'} & set(sys.modules); "
    "assert not bad, bad"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
