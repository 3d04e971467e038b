"""Run the real preprocessors of a task on rows given in the test."""

import numpy as np
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from prompt_tuning.data import spec
from prompt_tuning.data.catalog import text_classification
from prompt_tuning.data.tasks import registry


def features_of(task, data_dir):
  """Return the TFDS features of a task's source, from the installed TFDS."""
  dataset = task.dataset
  if dataset in ("dbpedia", "amazon"):  # no TFDS builder
    text = text_classification.TEXT_FEATURES[dataset]
    names = text_classification.CLASS_NAMES[dataset]
    label = tfds.features.ClassLabel(names=names)
    return tfds.features.FeaturesDict(
      {"label": label, **{name: tfds.features.Text() for name in text}}
    )
  return tfds.builder(task.source, data_dir=data_dir).info.features


def as_python(value):
  """Bytes to str, arrays to lists, NumPy numbers to Python's."""
  if isinstance(value, bytes):
    return value.decode("utf-8")
  if isinstance(value, np.ndarray):
    return [as_python(part) for part in value.tolist()]
  return value.item() if isinstance(value, np.generic) else value


@pytest.fixture(scope="session")
def render(tmp_path_factory):
  """A function (task name, rows as TFDS would generate them) -> examples.

  Labels may be given by name: the installed TFDS definition encodes them.
  """
  data_dir = tmp_path_factory.mktemp("no_tfds")

  def run(name, rows):
    registry.get(name)
    task = spec.task(name)
    features = features_of(task, data_dir)
    stored = [features.serialize_example(row) for row in rows]
    dataset = tf.data.Dataset.from_tensor_slices(stored)
    dataset = dataset.map(features.deserialize_example)
    for step in seqio.TaskRegistry.get(name).preprocessors:
      if step is seqio.preprocessors.tokenize:
        break
      dataset = step(dataset)
    return [
      {key: as_python(value) for key, value in example.items()}
      for example in dataset.as_numpy_iterator()
    ]

  return run
