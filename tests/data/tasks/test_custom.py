"""A user's own task through seqio, whole and as a k-shot subset."""

import importlib
import json

import pytest
import seqio

from prompt_tuning.data import custom, spec, tokenise, vocabulary
from prompt_tuning.data.tasks import kshot, registry

LENGTHS = {"inputs": 64, "targets": 8}


@pytest.fixture
def own_task(tmp_path, monkeypatch, vocabulary_file):
  """A declared task of ten rows; every registry is as before afterwards."""
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  registry = dict(seqio.TaskRegistry._REGISTRY)
  monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", registry)
  vocabulary.configure(vocabulary_file)
  path = tmp_path / "rows.jsonl"
  rows = [
    {"text": f"room {i}", "kind": i % 2, "id": f"r{i}"} for i in range(10)
  ]
  path.write_text("\n".join(map(json.dumps, rows)))
  yield custom.declare(
    "own_rooms",
    {"train": str(path), "validation": str(path)},
    template="Is {text} free?",
    target_column="kind",
    label_words=("no", "yes"),
    id_column="id",
  )
  vocabulary.configure(None)


def test_the_seqio_task_yields_the_rendered_rows(own_task):
  task = registry.get("own_rooms")
  dataset = task.get_dataset(LENGTHS, split="validation", shuffle=False)
  examples = list(dataset.as_numpy_iterator())
  vocab = vocabulary.load()
  assert len(examples) == 10
  assert examples[3][spec.INPUTS] == b"Is room 3 free?"
  assert examples[3]["inputs"].tolist() == [*vocab.encode("Is room 3 free?"), 1]
  assert examples[3]["targets"].tolist() == [*vocab.encode("yes"), 1]
  assert examples[3]["idx"] == b"r3"
  assert set(own_task.eval_features) <= set(examples[3])
  got = own_task.evaluate(["yes"] * 10, examples)
  assert got["accuracy"] == 50.0


def test_k_shots_of_it(own_task):
  name = f"{own_task.name}_k2_seed0"
  source = registry.get(own_task.name).source.get_dataset(
    "train", shuffle=False
  )
  chosen = kshot.select(spec.task(name), source)
  assert sorted(row % 2 for row in chosen) == [0, 0, 1, 1]
  task = registry.get(name)
  train = task.get_dataset(LENGTHS, split="train", shuffle=False)
  ids = [row["idx"].decode() for row in train.as_numpy_iterator()]
  assert ids == [f"r{row}" for row in chosen]


def test_k_shots_read_the_file_once(own_task, monkeypatch):
  """The draw needs every label, the training only its rows."""
  readings = []
  real = custom.rows

  def rows(task, split):
    readings.append(split)
    return real(task, split)

  monkeypatch.setattr(custom, "rows", rows)
  task = registry.get(f"{own_task.name}_k3_seed1")
  train = task.get_dataset(LENGTHS, split="train", shuffle=False)
  assert len(list(train)) == 6
  assert readings == ["train"]


def test_a_misspelt_name_finds_it(own_task):
  with pytest.raises(ValueError, match="Did you mean 'own_rooms'"):
    registry.get("own_room")


def test_a_source_that_is_edited_meanwhile_changes_no_row(
  own_task, tmp_path, monkeypatch
):
  """AutoGraph would read it again, and another function at the old lines."""
  path = tmp_path / "own_steps.py"
  name, marks = "def mark(row):\n", '  return {**row, "inputs": "%s"}\n'
  path.write_text(f"\n{name}{marks % 'imported'}")
  monkeypatch.syspath_prepend(str(tmp_path))
  step = importlib.import_module("own_steps").mark
  path.write_text(f"\n{name}{marks % 'edited'}")
  base = registry.get(own_task.name)
  steps = [lambda rows: rows.map(step), *base.preprocessors]
  seqio.TaskRegistry.remove(own_task.name)
  seqio.TaskRegistry.add_provider(
    own_task.name, base.replace(preprocessors=steps)
  )
  made = tokenise.tokenise(own_task, "train", LENGTHS, tmp_path)
  ids = [*vocabulary.load().encode("imported"), 1]
  assert made.arrays["inputs"][0].tolist() == ids
