"""`prompt-tuning vocabulary`: from text files to a vocabulary, or a message."""

import gzip
import json
import os
import pathlib
import re

import pytest
from sentencepiece import sentencepiece_model_pb2 as pb2

from prompt_tuning import api
from prompt_tuning.checkpoints import backbone
from prompt_tuning.core import embedded
from prompt_tuning.data import skills, vocabulary
from prompt_tuning.launch import main
from tests.failing_files import Disk, full_disk
from tests.invented_corpus import VOCABULARY_SIZE, documents


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """Work in a folder with text in three formats."""
  monkeypatch.chdir(tmp_path)
  texts = documents(60, seed=2)
  (tmp_path / "a.txt").write_text("\n\n".join(texts[:20]))
  rows = "".join(json.dumps({"text": text}) + "\n" for text in texts[20:40])
  (tmp_path / "b.jsonl").write_text(rows)
  (tmp_path / "c.txt.gz").write_bytes(
    gzip.compress("\n\n".join(texts[40:]).encode())
  )
  return tmp_path


FILES = ("a.txt", "b.jsonl", "c.txt.gz")
SIZE = str(VOCABULARY_SIZE)


SIZES = r"4,097 ids, sentinels included, .* has 4,096 rows: every id needs a"


@pytest.fixture
def larger(folder, vocabulary_file):
  """The embedded model's vocabulary with one more piece."""
  model = pb2.ModelProto.FromString(pathlib.Path(vocabulary_file).read_bytes())
  model.pieces.add(piece="▁one_more_piece", score=-20.0)
  path = folder / "larger.model"
  path.write_bytes(model.SerializeToString())
  return path


def run(*argv):
  return main.main(["vocabulary", *argv])


def load(folder, name):
  return vocabulary.Vocabulary(str(folder / name))


def test_text_of_several_files_becomes_a_vocabulary(folder, capsys):
  assert run("--input", *FILES, "--output", "v.model", "--size", SIZE) == 0
  assert capsys.readouterr().out == (
    f"v.model: {VOCABULARY_SIZE} ids, sentinels included\n"
  )
  made = load(folder, "v.model")
  assert made.size == VOCABULARY_SIZE
  for text in documents(5, seed=9):
    assert made.decode(made.encode(text)) == text


def test_what_is_read_decides(folder):
  """Every second document, or questions besides, give another vocabulary."""
  hashes = set()
  for number, more in enumerate([(), ("--every", "7"), ("--skills", "300")]):
    name = f"{number}.model"
    argv = ("--input", *FILES, "--output", name, "--size", SIZE, *more)
    assert run(*argv) == 0
    hashes.add(load(folder, name).sha256)
  assert len(hashes) == 3


def test_the_words_of_questions_are_learnt(folder):
  argv = ("--input", "a.txt", "--output", "s.model", "--skills", "500")
  assert run(*argv, "--size", "300") == 0
  made = load(folder, "s.model")
  for example in skills.pretraining(50, seed=77):
    for text in (example["inputs"], example["targets"]):
      assert made.unk_id not in made.encode(text)


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (("--input", "nowhere.txt"), "error: No corpus file nowhere.txt."),
    (("--input", "a.txt", "z.txt"), "z.txt:3: the line has a zero"),
    (("--input", "z.txt"), "z.txt:3: the line has a zero"),
    (("--input", "empty.txt"), "empty.txt: the corpus is empty"),
    (("--input", "a.txt", "--every", "0"), "every 0 must be positive"),
    (("--input", "a.txt", "--size", "100"), "raise --size"),
    (("--input", "a.txt", "--size", "9000"), "Choose another --size, or give"),
    (
      ("--input", "a.txt", "--output", "no/v.model"),
      "No directory no to write",
    ),
  ],
)
def test_bad_input_is_one_line_and_no_file(argv, message, folder, capsys):
  (folder / "z.txt").write_bytes(b"some text\n\nmore\0\n")
  (folder / "empty.txt").write_text("")
  before = sorted(os.listdir(folder))
  assert run("--output", "v.model", "--size", SIZE, *argv) == 2
  printed = capsys.readouterr()
  assert printed.err.startswith("error: ")
  assert message in printed.err
  assert printed.err.count("\n") == 1
  assert not printed.out
  assert sorted(os.listdir(folder)) == before


def test_a_full_disk(folder, capsys, monkeypatch):
  Disk(monkeypatch, lambda _, name, path: name == "_flush" and full_disk())
  before = sorted(os.listdir(folder))
  assert run("--input", *FILES, "--output", "v.model", "--size", SIZE) == 2
  assert "No space left on device" in capsys.readouterr().err
  assert sorted(os.listdir(folder)) == before


def test_input_and_output_are_needed(capsys):
  with pytest.raises(SystemExit, match="2"):
    run("--input", "a.txt")
  assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("command", "run"),
  [
    ("train", "prompt_finetune"),
    ("eval", "prompt_eval"),
    ("infer", "prompt_infer"),
    ("score", "prompt_score"),
  ],
)
def test_another_models_vocabulary_is_refused_before_the_model_is_read(
  command, run, larger, folder, task_gin, capsys, monkeypatch
):
  """Its ids have no rows: answers were empty, scores and losses NaN."""
  monkeypatch.setattr(backbone, "load", None)
  places = ["INFER_OUTPUT_DIR='out'", "PROMPT_FILE=None"]
  if command == "train":
    places = ["MODEL_DIR='run'", "TRAIN_STEPS=9001"]
    places.append("TASK_FEATURE_LENGTHS={'inputs': 9, 'targets': 9}")
  elif command == "eval":
    places[0] = "EVAL_OUTPUT_DIR='out'"
  else:
    places.append("INFER_SPLIT='validation'")
  if command != "train":
    places.append("CHECKPOINT_PATH='embedded:ladder_1'")
  argv = [
    "--gin_file=models/embedded_prompt.gin",
    "--gin_file=prompts/from_class_labels.gin",
    f"--gin_file=runs/{run}.gin",
    f"--gin_file={task_gin}",
    f"--gin.TOKEN_CACHE_DIR='{folder / 'cache'}'",
    f"--gin.VOCABULARY_FILE='{larger}'",
    *(f"--gin.{place}" for place in places),
  ]
  assert main.main([command, *argv]) == 2
  error = capsys.readouterr().err
  assert re.search(SIZES, error), error


def test_another_models_vocabulary_in_python(larger):
  with pytest.raises(ValueError, match=SIZES):
    api.load_model(embedded.DEFAULT, str(larger))
