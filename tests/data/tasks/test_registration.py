"""seqio's registry equals the catalogue, and its tasks tokenise as T5 does."""

import importlib
import os
import subprocess
import sys

import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import catalog, spec, vocabulary
from prompt_tuning.data.tasks import registration, registry


@pytest.fixture(scope="module", autouse=True)
def _all_tasks():
  for module in catalog.BENCHMARKS:
    importlib.import_module(f"prompt_tuning.data.tasks.{module}")


@pytest.fixture
def words(vocabulary_file):
  """A vocabulary, configured for this test."""
  vocabulary.configure(vocabulary_file)
  yield vocabulary.load()
  vocabulary.configure(None)


def test_seqio_has_every_name():
  for name in spec.names():
    found = spec.get(name)
    if isinstance(found, spec.MixtureSpec):
      mixture = seqio.MixtureRegistry.get(name)
      assert {t.name for t in mixture.tasks} == set(found.rates)
      assert {t.name: mixture.get_rate(t) for t in mixture.tasks} == found.rates
    elif found.benchmark != "custom" and not found.kshot:
      task = seqio.TaskRegistry.get(name)
      assert dict.fromkeys(task.splits) == dict.fromkeys(found.splits)
      if found.is_from_tfds:
        assert task.source.tfds_dataset.name == found.source
      assert task.postprocessor is found.postprocess
      assert tuple(task.metric_fns) == found.metrics


def test_mixtures_use_the_same_splits_as_their_specs():
  for name in spec.names():
    found = spec.get(name)
    if isinstance(found, spec.MixtureSpec):
      tasks = seqio.MixtureRegistry.get(name).tasks
      for split in ("train", "validation"):
        used = {t.name for t in tasks if split in t.splits}
        rated = {t.name for t, rate in found.components(split) if rate > 0}
        # In training, seqio samples a task of rate 0 never.
        assert rated <= used
        if split == "validation":
          assert {t.name for t, _ in found.components(split)} == used


def test_tasks_register_without_vocabulary_or_network():
  code = """
from prompt_tuning.data import catalog
import importlib, seqio
for module in catalog.BENCHMARKS:
  importlib.import_module(f"prompt_tuning.data.tasks.{module}")
assert len(seqio.TaskRegistry.names()) > 190
"""
  environment = dict(os.environ)
  environment.pop(vocabulary.ENVIRONMENT_VARIABLE, None)
  subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_without_a_vocabulary_the_error_says_so(monkeypatch):
  monkeypatch.delenv(vocabulary.ENVIRONMENT_VARIABLE, raising=False)
  monkeypatch.setattr(vocabulary, "_configured", None)
  with pytest.raises(ValueError, match=vocabulary.ENVIRONMENT_VARIABLE):
    registration.ConfiguredVocabulary().encode("a")


def test_vocabularies_are_equal_when_their_pieces_are(
  words, vocabulary_file, tmp_path
):
  """T5X asks: "Model and Task vocabularies do not match"."""
  ours, tasks = registration.ConfiguredVocabulary(), registration.VOCABULARY
  assert ours == tasks
  held = tmp_path / "with_sentinels.model"
  held.write_bytes(words.model_proto)
  t5x = seqio.SentencePieceVocabulary
  for model in (t5x(str(held)), t5x(vocabulary_file, extra_ids=100)):
    assert ours == model
    assert model == ours
  for model in (
    t5x(vocabulary_file),
    t5x(vocabulary_file, extra_ids=100, reverse_extra_ids=False),
    seqio.ByteVocabulary(),
  ):
    assert ours != model
    assert model != ours
  # Every task's vocabulary follows the file that is chosen last.
  vocabulary.configure(str(held))
  assert ours == t5x(vocabulary_file, extra_ids=100)


def dataset_of(name, rows, **lengths):
  """Run a task to the end on given rows."""
  task = registry.get(name)
  whole = task.replace(
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files, seed=None: rows, splits=["validation"]
    )
  )
  return list(
    whole.get_dataset(
      sequence_length=lengths or None, split="validation", shuffle=False
    ).as_numpy_iterator()
  )


def boolq_rows(passages):
  return tf.data.Dataset.from_tensor_slices(
    {
      "passage": passages,
      "question": ["is it"] * len(passages),
      "label": tf.constant([0] * len(passages), tf.int64),
      "idx": list(range(len(passages))),
    }
  )


def test_tokens_are_the_text_and_eos(words):
  name = "taskless_super_glue_boolq_v102"
  (example,) = dataset_of(name, boolq_rows(["The house is wonderful."]))
  text = example[spec.INPUTS].decode()
  assert text == "passage: The house is wonderful. question: is it"
  assert example["inputs"].tolist() == [*words.encode(text), words.eos_id]
  assert example["targets"].tolist() == [*words.encode("False"), words.eos_id]
  assert example[spec.TARGETS] == b"False"
  assert example["idx"] == 0


def test_long_text_is_trimmed_to_the_length_with_eos(words):
  name = "taskless_super_glue_boolq_v102"
  rows = boolq_rows(["word " * 1_000])
  (example,) = dataset_of(name, rows, inputs=16, targets=2)
  text = example[spec.INPUTS].decode()
  assert example["inputs"].tolist() == [*words.encode(text)[:15], words.eos_id]
  assert example["targets"].tolist() == [words.encode("False")[0], words.eos_id]


def test_evaluation_needs_no_more_than_the_declared_features(words):
  """`eval_features` and the two texts suffice for the task's metrics."""
  name = "taskless_super_glue_boolq_v102"
  task = spec.task(name)
  examples = dataset_of(name, boolq_rows(["a", "b"]))
  kept = {spec.INPUTS, spec.TARGETS, *task.eval_features}
  small = [{k: v for k, v in e.items() if k in kept} for e in examples]
  assert task.evaluate(["False", "True"], small)["accuracy"] == 50.0
