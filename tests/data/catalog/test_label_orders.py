"""Label words, splits and versions, against the installed TFDS definitions."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from prompt_tuning.data import spec
from prompt_tuning.data.catalog import (
  glue,
  relation,
  spot,
  super_glue,
  text_classification,
)

# Versions that TFDS no longer writes.
GONE = {"cnn_dailymail:3.1.0", "cnn_dailymail:3.2.0", "multi_news:1.0.0"}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
  data_dir = tmp_path_factory.mktemp("no_tfds")
  return lambda name: tfds.builder(name, data_dir=data_dir)


def tasks(benchmark):
  found = [spec.get(name) for name in spec.names()]
  return [
    task
    for task in found
    if isinstance(task, spec.TaskSpec) and task.benchmark == benchmark
  ]


@pytest.mark.parametrize("dataset", super_glue.LABEL_WORDS)
def test_super_glue(builder, dataset):
  label = builder(f"super_glue/{dataset}:1.0.2").info.features["label"]
  words = super_glue.LABEL_WORDS[dataset]
  if super_glue.LABEL_WORDS[dataset] == ("False", "True"):
    # TFDS numbers them when it generates rows: see its `_cast_label`.
    assert [label.encode_example(word) for word in words] == [0, 1]
  else:
    assert tuple(label.names) == words


@pytest.mark.parametrize("dataset", glue.LABEL_WORDS)
@pytest.mark.parametrize("version", glue.VERSIONS.values())
def test_glue(builder, dataset, version):
  label = builder(f"glue/{dataset}:{version}").info.features["label"]
  if dataset == "stsb":
    assert label.np_dtype is np.float32
    assert glue.LABEL_WORDS[dataset] == ()
  else:
    assert tuple(label.names) == glue.LABEL_WORDS[dataset]


@pytest.mark.parametrize("dataset", spot.NLI)
def test_natural_language_inference(builder, dataset):
  source, premise, words = spot.NLI[dataset]
  features = builder(source).info.features
  names = {
    **{"e": "entailment", "n": "neutral", "c": "contradiction"},  # ANLI's
  }
  assert tuple(names.get(n, n) for n in features["label"].names) == words
  assert {premise, "hypothesis"} <= set(features)


def test_text_classification(builder):
  for dataset, source in text_classification.SOURCES.items():
    if dataset in text_classification.OF_TFDS:
      features = builder(source).info.features
      names = text_classification.CLASS_NAMES[dataset]
      assert tuple(features["label"].names) == names
      text = set(text_classification.TEXT_FEATURES[dataset])
      assert set(features) == {"label", *text}
    assert len(text_classification.LABEL_WORDS[dataset]) == len(
      text_classification.CLASS_NAMES[dataset]
    )


@pytest.mark.parametrize("dataset", relation.SOURCES)
def test_relations(shared_data, dataset):
  folders = {
    "semeval2010_task8": "semeval2010_task8",
    "dialogre": "dialogre",
    "dialogre_conversational": "dialogre",
  }
  folder = folders.get(dataset, f"label_maps/{dataset}")
  path = shared_data / "relation" / folder / "rel2id.json"
  ids = json.loads(path.read_text())
  names = sorted(ids, key=ids.__getitem__)
  names = ["no_relation" if name == "NA" else name for name in names]
  assert tuple(names) == relation.CLASS_NAMES[dataset]


@pytest.mark.parametrize("dataset", ["record", "wsc"])
def test_free_text_tasks_have_no_label_words(dataset):
  for task in tasks("super_glue"):
    if task.dataset == dataset:
      assert task.label_words == ()


def test_every_source_names_an_installed_version(builder):
  """But for those that TFDS has no builder for."""
  texts = text_classification.SOURCES
  own = {texts[d] for d in texts if d not in text_classification.OF_TFDS}
  own |= set(relation.SOURCES.values())
  found = [spec.get(name) for name in spec.names()]
  sources = {
    task.source
    for task in found
    if isinstance(task, spec.TaskSpec) and task.is_from_tfds
  }
  for source in sources - own - GONE:
    name, version = source.split(":")
    assert str(builder(source).version) == version, name


class Place(str):
  """A folder with every file."""

  def __truediv__(self, name):
    return self


def official_splits(builder):
  """Ask a TFDS builder which splits it would generate."""

  class Downloads:
    """Pretends to have downloaded: every path is a path."""

    def download(self, urls):
      place = Place("x")
      if isinstance(urls, dict):
        return {name: self.download(url) for name, url in urls.items()}
      if isinstance(urls, list):
        return [place for _ in urls]
      return place

    download_and_extract = download
    extract = download
    manual_dir = Place("x")

    def iter_archive(self, path):
      return iter(())

  generators = builder._split_generators(Downloads())
  if isinstance(generators, dict):
    return set(generators)
  return {str(generator.name) for generator in generators}


@pytest.mark.parametrize(
  "benchmark",
  [
    *("super_glue", "glue", "qa", "text_classification"),
    *("spot", "recycling", "perceptron"),
  ],
)
def test_splits_exist_in_the_source(builder, benchmark):
  checked = 0
  for task in tasks(benchmark):
    texts = text_classification.SOURCES.values()
    theirs = task.dataset in text_classification.OF_TFDS
    if (task.source in texts and not theirs) or task.source in GONE:
      continue
    available = official_splits(builder(task.source))
    used = {split.partition("[")[0] for split in task.splits.values()}
    assert used <= available, task.name
    checked += 1
  assert checked


def test_published_splits_are_all_there(builder):
  """A task without `_train` or `_eval` in its name has every split."""
  for task in tasks("super_glue") + tasks("glue"):
    if task.dataset != "wsc":
      splits = official_splits(builder(task.source))
      assert set(task.splits.values()) == splits, task.name
