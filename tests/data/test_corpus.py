"""Corpora: what is read of a file, and every way in which it is none."""

import gzip
import json
import lzma
import pathlib
import re

import pytest

from prompt_tuning.data import corpus, skills, spec
from prompt_tuning.data.corpus import Denoising, Document, Skills, Text

TEXTS = ["One line.", "Two lines,\nof one text. Grün.", "A third."]


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  monkeypatch.setattr(corpus, "_corpora", dict(corpus._corpora))


@pytest.fixture
def write(tmp_path):
  """A function (name, text or bytes) -> the path of a new file."""

  def write_file(name, content):
    data = content if isinstance(content, bytes) else content.encode()
    packers = {"gz": gzip.compress, "xz": lzma.compress}
    pack = packers.get(name.rpartition(".")[2], bytes)
    (tmp_path / name).write_bytes(pack(data))
    return str(tmp_path / name)

  return write_file


def jsonl(*rows):
  return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("packing", ["", ".gz", ".xz"])
def test_the_same_documents_from_every_format(write, packing):
  plain = write(f"a.txt{packing}", "\n\n".join(TEXTS))
  rows = write(f"a.jsonl{packing}", jsonl(*({"text": t} for t in TEXTS)))
  assert [d.text for d in corpus.read(rows)] == TEXTS
  shouted = write(f"A.JSONL{packing}".upper(), "")
  pathlib.Path(shouted).write_bytes(pathlib.Path(rows).read_bytes())
  assert [d.text for d in corpus.read(shouted)] == TEXTS
  assert [d.text.rstrip("\n") for d in corpus.read(plain)] == TEXTS
  assert not any(d.answer for d in corpus.read(plain))


def test_blank_lines_divide_text(write):
  """Any number of them, also with blanks or of Windows; a mark in front."""
  path = write("a.v1.txt", "\ufeff\n\na\nb\r\n \t\r\n\n\nc\n\n")
  documents = [d.text for d in corpus.read(path)]
  assert [text.split() for text in documents] == [["a", "b"], ["c"]]


def test_rows_of_questions_and_of_text(write):
  rows = [
    {"text": "whole", "inputs": "unused", "other": 1},
    {"inputs": "question", "targets": "answer", "id": 5},
    {"text": " \n"},
  ]
  path = write("a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
  assert list(corpus.read(path)) == [
    Document("whole"),
    Document("question", "answer"),
  ]


def test_every_so_manyth_document_of_the_training_files(write):
  first = write("a.txt", "\n\n".join("abcde"))
  second = write("b.txt", "\n\n".join("uvw"))
  files = {"train": [first, second], "validation": first}
  text = Text("t", files, every=2)
  assert [d.text.strip() for d in text.documents("train")] == list("aceuw")
  assert [d.text.strip() for d in text.documents("validation")] == list("abcde")
  assert text.splits == ("train", "validation")


def test_generated_questions():
  source = Skills(count=30, seed=3)
  train = list(source.documents("train"))
  held_out = list(source.documents("validation"))
  assert len(train) == 30
  assert all(document.text and document.answer for document in train)
  assert train == list(Skills(count=30, seed=3).documents("train"))
  others = [held_out, list(Skills(30, seed=4).documents("train"))]
  others.append(list(Skills(30, seed=4).documents("validation")))
  for other in others:
    assert sum(a == b for a, b in zip(train, other, strict=False)) < 5


def test_content_follows_the_files_not_their_places(write, tmp_path):
  path = write("a.txt", "one")
  text = Text("t", {"train": path})
  before = text.content()
  assert Text("u", {"train": write("b.txt", "one")}).content() == before
  assert Text("t", {"train": path}, every=2).content() != before
  assert Text("t", {"train": path, "validation": path}).content() != before
  write("a.txt", "two")
  assert text.content() != before
  json.dumps(before)


def test_content_of_generated_questions(monkeypatch):
  before = Skills(5).content()
  assert Skills(5, rate=2.0).content() == before
  assert Skills(6).content() != before
  assert Skills(5, seed=1).content() != before
  monkeypatch.setattr(skills, "VERSION", skills.VERSION + 1)
  assert Skills(5).content() != before


def test_tasks_and_mixtures_are_declared(write):
  path = write("a.txt", "one")
  novels = Text("novels", {"train": path, "validation": path}, rate=3.0)
  mixture = corpus.declare_mixture([novels, Skills(5)], Denoising())
  assert mixture.rates == {
    "novels_span_corruption": 3.0,
    "skills_span_corruption": 1.0,
  }
  assert spec.get("novels_skills_span_corruption_mixture") is mixture
  assert list(spec.task("novels_span_corruption").splits) == [
    "train",
    "validation",
  ]
  assert corpus.of_task("novels_span_corruption") is novels
  # Another objective stands beside it; the same once more changes nothing.
  corpus.declare_mixture([novels], Denoising("prefix_lm"))
  assert corpus.declare_mixture([novels, Skills(5)], Denoising()) == mixture


@pytest.mark.parametrize(
  "change", [{"passes": 2}, {"seed": 1}, {"chunk_length": 64}]
)
def test_other_examples_under_the_same_name_are_refused(write, change):
  text = Text("novels", {"train": write("a.txt", "one")})
  corpus.declare(text, Denoising())
  with pytest.raises(ValueError, match="different task or mixture named"):
    corpus.declare(text, Denoising(**change))


def test_another_text_under_the_same_name_is_refused(write):
  corpus.declare(Text("t", {"train": write("a.txt", "one")}), Denoising())
  with pytest.raises(ValueError, match="different task or mixture named"):
    corpus.declare(Text("t", {"train": write("b.txt", "two")}), Denoising())


XZ = lzma.compress(b"some text\n" * 500)
# No time in it: it is part of test names, which workers must agree on.
GZ = gzip.compress(b"some text\n" * 500, mtime=0)


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.txt", b"", r": the corpus is empty; expected some text"),
    ("a.txt", b"\n \n", r": the corpus is empty; expected some text"),
    ("a.jsonl", b"\n", r": the corpus is empty; expected some text"),
    ("a.jsonl", b'{"text": " "}\n', r": the corpus is empty"),
    ("a.txt", b"text\n\nmore\0\n", r":3: the line has a zero byte, so the"),
    ("a.txt", b"text\nd\xe9j\xe0\n", r":2: not UTF-8: byte 0xe9 at position 1"),
    ("a.txt", "text".encode("utf-16"), r":1: UTF-16; expected UTF-8"),
    ("a.jsonl", b'{"text": "a"}\n{"text": \n', r":2: not JSON: "),
    ("a.jsonl", b'{"text": "a"}\n\n["a"]\n', r":3: expected an object with"),
    ("a.jsonl", b'{"text": 5}\n', r":1: expected an object with the text"),
    ("a.jsonl", b'{"inputs": "a"}\n', r":1: .*'inputs' and 'targets'"),
    ("a.jsonl", b'{"inputs": "a", "targets": " "}', r":1: .*'targets'"),
    (
      "a.csv",
      b"text",
      r": expected a file name that ends in \.txt, \.jsonl, or in one of",
    ),
    ("corpus", b"text", r": expected a file name that ends in \.txt, \.js"),
    (
      "a.jsonl.zip",
      b"text",
      r": expected a file name that ends in \.txt, \.js",
    ),
    ("corpus.gz", b"text", r": expected a file name that ends in \.txt, \.js"),
  ],
)
def test_what_is_no_corpus(tmp_path, name, content, message):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(ValueError, match=re.escape(str(path)) + message):
    list(corpus.read(str(path)))


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("a.txt.xz", XZ[:-20]),
    ("a.txt.xz", XZ[:40] + b"????" + XZ[44:]),
    ("a.txt.xz", b"plain text"),
    ("a.txt.gz", GZ[:-10]),
    ("a.txt.gz", GZ[:20] + b"????" + GZ[24:]),
    ("a.txt.gz", GZ[:-8] + b"????" + GZ[-4:]),
    ("a.txt.gz", b"plain text"),
  ],
)
def test_damaged_archives(tmp_path, name, content):
  path = tmp_path / name
  path.write_bytes(content)
  message = re.escape(str(path)) + r": cannot be decompressed after line \d+"
  with pytest.raises(ValueError, match=message):
    list(corpus.read(str(path)))


def test_missing_files(tmp_path):
  path = str(tmp_path / "absent.txt")
  with pytest.raises(FileNotFoundError, match=r"No corpus file .*absent"):
    list(corpus.read(path))
  with pytest.raises(FileNotFoundError, match=r"No corpus file .*absent"):
    corpus.declare(Text("t", {"train": path}), Denoising())
  assert "t_span_corruption" not in spec.names()
  (tmp_path / "folder.txt").mkdir()
  with pytest.raises(FileNotFoundError, match="No corpus file"):
    list(corpus.read(str(tmp_path / "folder.txt")))


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"files": {}}, "Corpus 't' has files for nothing; expected 'train'"),
    ({"files": {"validation": "a.txt"}}, "has files for validation"),
    ({"files": {"train": "a.txt", "test": "a.txt"}}, "train, test; expected"),
    ({"every": 0}, "rate 1.0 and every 0 must be positive"),
    ({"rate": 0.0}, "rate 0.0 and every 1 must be positive"),
    ({"rate": float("nan")}, "rate nan and"),
  ],
)
def test_bad_settings_of_text(settings, message):
  with pytest.raises(ValueError, match=message):
    Text(**{"name": "t", "files": {"train": "a.txt"}} | settings)


@pytest.mark.parametrize("corpora", [[], [Skills(5), Skills(6)]])
def test_corpora_have_names_of_their_own(corpora):
  with pytest.raises(ValueError, match=r"CORPORA are .*name of its own"):
    corpus.declare_mixture(corpora, Denoising())


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"objective": "span_coruption"}, "Did you mean 'span_corruption'"),
    ({"objective": "mlm"}, "Expected one of span_corruption, prefix_lm"),
    ({"chunk_length": 2_048}, "102 noise spans, but there are 100 sentinels"),
    ({"chunk_length": 1}, "CHUNK_LENGTH 1 and PASSES 1: expected at least 2"),
    ({"passes": 0}, "PASSES 0: expected at least 2 tokens and 1 pass"),
    ({"noise_density": 0.0}, "NOISE_DENSITY 0.0 and MEAN_SPAN 3.0: expected"),
    ({"noise_density": 1.0}, "NOISE_DENSITY 1.0 and MEAN_SPAN"),
    ({"mean_span": 0.5}, "MEAN_SPAN 0.5: expected .* at least 1 token"),
  ],
)
def test_bad_settings_of_denoising(settings, message):
  with pytest.raises(ValueError, match=message):
    Denoising(**settings)


def test_texts_that_are_cut_in_two_need_no_sentinels():
  assert Denoising("prefix_lm", chunk_length=4_096).chunk_length == 4_096
