"""PPT's tasks through seqio and the token cache."""

import collections

import pytest
import seqio

from prompt_tuning.data import cache, corpus, ppt, spec
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.data.tasks import registry

LENGTHS = {"inputs": 400, "targets": 4}


@pytest.fixture
def text(tmp_path, monkeypatch, vocabulary_file):
  """A corpus; every registry is as before afterwards."""
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  monkeypatch.setattr(ppt, "_rows", dict(ppt._rows))
  known = dict(seqio.TaskRegistry._REGISTRY)
  monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", known)
  vocabularies.configure(vocabulary_file)
  documents = (
    "\n".join(f"Room {i} of house {d} is warm." for i in range(6))
    for d in range(8)
  )
  path = tmp_path / "a.txt"
  path.write_text("\n\n".join(documents))
  yield corpus.Text("houses", {"train": str(path)})
  vocabularies.configure(None)


def test_a_cache_of_unified_rows(text, tmp_path):
  task = ppt.pretraining("own", "unified", text, examples={"train": 45})
  tokens = cache.load_task(task, "train", LENGTHS, tmp_path / "cache")
  rows = ppt.rows_of("own_rows").of_split("train")
  assert len(tokens) == len(rows) == 45
  encode = vocabularies.load().encode
  for number, row in enumerate(rows):
    letter = "ABCDEFGHIJKLMNOP"[row["label"]]
    answer = encode(f"<extra_id_0>{letter}")
    assert tokens.targets[number].tolist() == [*answer, 1]
    written = tokens.example(number)[spec.INPUTS]
    assert written.startswith(f"{row['text_a']} ? A. {row['options'][0]} B. ")
    assert f" {letter}. {row['options'][row['label']]} " in written
    assert written.endswith("? The correct one is <extra_id_0>")
  sizes = collections.Counter(len(row["options"]) for row in rows)
  assert sizes == dict.fromkeys(range(2, 17), 3)


def test_k_shot_pairs(text):
  ppt.pretraining("own", "sentence_pair", text, examples={"train": 90})
  few = registry.get("own_k4_seed0").get_dataset(
    LENGTHS, split="train", shuffle=False
  )
  targets = collections.Counter(
    row[spec.TARGETS].decode() for row in few.as_numpy_iterator()
  )
  words = ("yes", "maybe", "no")
  assert targets == {f"<extra_id_0> {word}": 4 for word in words}
