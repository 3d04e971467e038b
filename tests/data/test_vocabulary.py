"""The TF-free vocabulary, against seqio's and published ids."""

import itertools
import json
import pathlib
import subprocess
import sys

import pytest
from sentencepiece import sentencepiece_model_pb2 as pb2

from prompt_tuning.core import object_store
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
  empty = tmp_path / "empty.model"
  empty.touch()
  with pytest.raises(ValueError, match=r"empty\.model is empty; expected"):
    vocabulary.load(str(empty))
  broken = tmp_path / "broken.model"
  broken.write_text("not a model")
  with pytest.raises(ValueError, match=r"broken\.model is not a Sentence"):
    vocabulary.load(str(broken))


def test_refuses_special_ids_other_than_t5s(tmp_path):
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


def with_pieces(path, tmp_path, pieces, kind="USER_DEFINED"):
  """Write a copy of a vocabulary that holds more pieces."""
  model = pb2.ModelProto.FromString(pathlib.Path(path).read_bytes())
  for piece in pieces:
    code = getattr(pb2.ModelProto.SentencePiece, kind)
    model.pieces.add(piece=piece, score=0.0, type=code)
  copy = tmp_path / "with_sentinels.model"
  copy.write_bytes(model.SerializeToString())
  return str(copy)


def sentinels(first, last, blank="▁"):
  step = 1 if last > first else -1
  return [f"{blank}<extra_id_{k}>" for k in range(first, last + step, step)]


@pytest.mark.parametrize("kind", ["USER_DEFINED", "CONTROL", "NORMAL"])
@pytest.mark.parametrize("blank", ["▁", ""])
def test_sentinels_in_the_file_are_not_added_again(
  vocabulary_file, tmp_path, kind, blank
):
  """T5's published `cc_all.32000.100extra` and mT5's hold them."""
  plain = vocabulary.load(vocabulary_file)
  path = with_pieces(vocabulary_file, tmp_path, sentinels(99, 0, blank), kind)
  held = vocabulary.Vocabulary(path)
  assert held.size == plain.size
  assert held.model_proto == plain.model_proto
  for text in HARD:
    ids = plain.encode(text)
    assert held.encode(text) == ids
    assert held.decode(ids) == plain.decode(ids)
  # What was cached or trained with the other file goes on with this one.
  assert held.sha256 == plain.sha256


def test_a_published_file_with_sentinels(
  published_vocabulary_file, shared_data, real_texts
):
  plain = vocabulary.load(published_vocabulary_file)
  folder = shared_data / "t5_vocab" / "with_sentinels"
  held = vocabulary.load(str(folder / "sentencepiece.model"))
  assert held.size == 32_100
  assert held.sentinel(0) == 32_099
  assert held.encode_batch(real_texts) == plain.encode_batch(real_texts)


@pytest.mark.parametrize(
  ("pieces", "message"),
  [
    (sentinels(0, 99), r"100 of 4096 pieces.*id 3996 is ▁<extra_id_0>"),
    (sentinels(49, 0), r"50 of 4046 pieces are sentinels, and id 3946 is"),
    (sentinels(199, 0), r"200 of 4196 pieces.*id 3996 is ▁<extra_id_199>"),
    ([*sentinels(99, 0), "more"], r"100 of 4097 pieces.*id 3996 is"),
    ([*sentinels(99, 1), "<extra_id_1>"], "as the last pieces"),
  ],
)
def test_sentinels_under_other_ids_are_an_error(
  vocabulary_file, tmp_path, pieces, message
):
  path = with_pieces(vocabulary_file, tmp_path, pieces)
  with pytest.raises(ValueError, match=message):
    vocabulary.Vocabulary(path)


def test_a_vocabulary_that_does_not_fit_the_model(vocab, caplog):
  vocab.check_fits(vocab.size)
  vocab.check_fits(vocab.size + 28)
  assert not caplog.text
  sizes = f"{vocab.size:,} ids, .* {vocab.size - 1:,} rows: every id needs a"
  with pytest.raises(ValueError, match=sizes):
    vocab.check_fits(vocab.size - 1)
  for _ in range(2):
    vocab.check_fits(250_112)
  assert caplog.text.count("250,112 rows. If the file is another model's") == 1


def test_imports_no_tensorflow(path):
  code = (
    "import sys; from prompt_tuning.data import vocabulary as v; "
    f"v.load({path!r}).encode('a'); "
    "bad = {'tensorflow', 'seqio', 'tensorflow_datasets'} & set(sys.modules); "
    "assert not bad, bad"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
  "path", ["gs://b/sentencepiece.model", "s3://b/v.model", "https://h/v.model"]
)
def test_a_vocabulary_elsewhere_is_one_line(path, monkeypatch):
  """Whatever the libraries say that would reach it."""

  def no_route(scheme, process):
    raise RuntimeError(f"no route to {scheme}\nwhen reading metadata")

  monkeypatch.setattr(object_store, "_file_system", no_route)
  why = "expected a file" if path[0] == "h" else "no route"
  with pytest.raises(OSError, match=f"from here.*{why}") as e:
    vocabulary.load(path)
  assert "Copy it to this machine" in str(e.value)
  assert "\n" not in str(e.value)
