"""k-shot tasks in seqio: the chosen rows, and only in training."""

import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import kshot as draw
from prompt_tuning.data import spec, vocabulary
from prompt_tuning.data.tasks import kshot, registry

SIZE = 20


@pytest.fixture
def _words(vocabulary_file):
  vocabulary.configure(vocabulary_file)
  yield
  vocabulary.configure(None)


def source_of(features):
  """A seqio source with the same rows in every split."""
  return seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
      features
    ),
    splits=["train", "validation"],
  )


@pytest.fixture
def boolq(monkeypatch):
  """BoolQ on invented rows; labels 0, 1, 0, 1, ... and ids from 100."""
  task = registry.get("taskless_super_glue_boolq_v102")
  rows = {
    "passage": [f"p{i}" for i in range(SIZE)],
    "question": ["q"] * SIZE,
    "label": tf.constant([i % 2 for i in range(SIZE)], tf.int64),
    "idx": list(range(100, 100 + SIZE)),
  }
  monkeypatch.setattr(task, "_source", source_of(rows))
  return task.name


@pytest.fixture
def derived(boolq):
  """The name of a 3-shot task, unregistered afterwards."""
  name = f"{boolq}_k3_seed7"
  yield name
  seqio.TaskRegistry.remove(name)


def select(name):
  """The rows that a k-shot task trains on."""
  task = spec.task(name)
  source = registry.get(task.kshot.base).source
  return kshot.select(task, source.get_dataset("train", shuffle=False))


def test_selection_is_the_draw_of_the_labels(derived):
  labels = [i % 2 for i in range(SIZE)]
  assert select(derived) == draw.choose(labels, 3, 7)


@pytest.mark.usefixtures("_words")
def test_training_sees_the_chosen_rows_and_evaluation_all(derived):
  task = registry.get(derived)
  lengths = {"inputs": 32, "targets": 8}
  train = task.get_dataset(lengths, split="train", shuffle=False)
  ids = [int(row["idx"]) for row in train.as_numpy_iterator()]
  assert ids == [100 + row for row in select(derived)]
  shuffled = task.get_dataset(lengths, split="train", shuffle=True, seed=1)
  assert {int(row["idx"]) for row in shuffled.as_numpy_iterator()} == set(ids)
  evaluation = task.get_dataset(lengths, split="validation", shuffle=False)
  assert len(list(evaluation)) == SIZE


def test_the_registered_task_keeps_postprocessor_and_metrics(derived, boolq):
  task, base = registry.get(derived), registry.get(boolq)
  assert task.postprocessor is base.postprocessor
  assert task.metric_fns == base.metric_fns
  assert registry.get(derived) is task  # registered once


def test_wsc_chooses_among_correct_referents(monkeypatch):
  base = registry.get("taskless_super_glue_wsc_v102_simple_train")
  labels = [i % 3 == 0 for i in range(SIZE)]
  rows = {"label": tf.constant(labels, tf.int64), "idx": list(range(SIZE))}
  monkeypatch.setattr(base, "_source", source_of(rows))
  rows = select(f"{base.name}_k5_seed0")
  assert len(rows) == 5
  assert all(row % 3 == 0 for row in rows)


def test_free_text_is_one_class(monkeypatch):
  base = registry.get("taskless_super_glue_record_v102")
  rows = {
    "idx": {"passage": [0] * SIZE, "query": list(range(SIZE))},
    "query": ["q"] * SIZE,
  }
  monkeypatch.setattr(base, "_source", source_of(rows))
  assert select(f"{base.name}_k4_seed0") == draw.choose([0] * SIZE, 4, 0)


def test_too_few_rows_say_which_class(boolq):
  with pytest.raises(ValueError, match="Class 0 has 10 rows; expected at"):
    select(f"{boolq}_k11_seed0")
