"""Text of an invented language, and a vocabulary of it: to pre-train on."""

import json
import random

import pytest

from prompt_tuning.data import vocabulary, vocabulary_training

# Rows of a table that holds the vocabulary.
VOCABULARY_SIZE, ROWS = 170, 256
_WORDS = {
  "adjective": "small old red quiet bright cold warm heavy narrow gentle",
  "noun": "cat dog bird fish tree house river stone cloud king ship garden "
  "window letter mountain brother market candle",
  "verb": "sees finds takes likes hears follows leaves brings watches carries",
}


def documents(count, seed):
  """Make texts of six sentences each."""
  rng = random.Random(seed)
  return [" ".join(_sentence(rng) for _ in range(6)) for _ in range(count)]


def _sentence(rng):
  kinds = ("adjective", "noun", "verb", "noun")
  first, who, does, what = (rng.choice(_WORDS[k].split()) for k in kinds)
  return f"the {first} {who} {does} the {what} ."


def write_jsonl(path, rows):
  """Write one JSON object per line; returns the path as text."""
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


@pytest.fixture(scope="session")
def invented_vocabulary(tmp_path_factory):
  """The path of a SentencePiece model of 170 ids."""
  path = tmp_path_factory.mktemp("vocabulary") / "invented.model"
  vocabulary_training.train(documents(60, seed=2), path, VOCABULARY_SIZE)
  return str(path)


@pytest.fixture(scope="session")
def invented_files(tmp_path_factory):
  """Text files: split -> path."""
  folder = tmp_path_factory.mktemp("corpus")
  rows = {"train": documents(120, seed=0), "validation": documents(12, seed=1)}
  return {
    split: write_jsonl(folder / f"{split}.jsonl", [{"text": t} for t in texts])
    for split, texts in rows.items()
  }


@pytest.fixture
def use_invented_vocabulary(invented_vocabulary):
  """Configure it for one test."""
  vocabulary.configure(invented_vocabulary)
  yield vocabulary.load()
  vocabulary.configure(None)
