"""Run the real preprocessors of a task on rows given in the test."""

import numpy as np
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from prompt_tuning.data import spec
from prompt_tuning.data.catalog import text_classification
from prompt_tuning.data.prepare import sources, writing
from prompt_tuning.data.tasks import registry

# Versions that TFDS no longer writes.
GONE = ("cnn_dailymail:3.1.0", "cnn_dailymail:3.2.0", "multi_news:1.0.0")


def features_of(task, data_dir, columns):
  """Return the TFDS features of a task's source, from the installed TFDS."""
  dataset = task.dataset
  if task.source in GONE:
    return tfds.features.FeaturesDict(
      {name: tfds.features.Text() for name in columns}
    )
  texts = text_classification.SOURCES.values()
  if task.source in texts and dataset not in text_classification.OF_TFDS:
    text = text_classification.TEXT_FEATURES[dataset]
    names = text_classification.CLASS_NAMES[dataset]
    label = tfds.features.ClassLabel(names=names)
    return tfds.features.FeaturesDict(
      {"label": label, **{name: tfds.features.Text() for name in text}}
    )
  if task.benchmark == "relation":  # nor here
    source = sources.Source(task.source.partition(":")[0], ())
    features = writing.make_builder(source, data_dir).info.features
  else:
    features = tfds.builder(task.source, data_dir=data_dir).info.features
  # Those that no text form reads may be left out.
  return tfds.features.FeaturesDict({name: features[name] for name in columns})


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
  made = {}

  def run(name, rows):
    """Render once for all tests: most of the time is TensorFlow's tracing."""
    key = name, id(rows)
    if key not in made:
      made[key] = rows, render_now(name, rows)
    return made[key][1]

  def render_now(name, rows):
    registry.get(name)
    task = spec.task(name)
    features = features_of(task, data_dir, rows[0])
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
