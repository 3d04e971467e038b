"""A user's own seqio module: two tasks and their mixture."""

import importlib
import sys
import textwrap

import pytest

from prompt_tuning.data import spec, vocabulary

MODULE = """
import functools
import seqio
import tensorflow as tf
import tensorflow as tf

VOCABULARY = seqio.SentencePieceVocabulary({vocabulary!r}, extra_ids=100)
FEATURES = {{
  "inputs": seqio.Feature(VOCABULARY, add_eos=True),
  "targets": seqio.Feature(VOCABULARY, add_eos=True),
}}
SIZES = {{"train": 6, "validation": 4}}

def rows(split, shuffle_files, seed=None, word="cat"):
  texts = [f"{{i}} red {{word}}s " * (i + 1) for i in range(SIZES[split])]
  return tf.data.Dataset.from_tensor_slices(
    {{"text": texts, "number": list(range(SIZES[split])),
      "answers": [["one", "two"]] * SIZES[split]}})

@seqio.map_over_dataset
def ask(row):
  return {{**row, "inputs": tf.strings.join(["count: ", row["text"]]),
          "targets": tf.strings.as_string(row["number"])}}

def read(text, example=None, is_target=False):
  if is_target:
    assert isinstance(example["answers"][0], bytes)
    return int(example["number"])
  return int(text) if text.isdigit() else -1

def distance(targets, predictions):
  far = [abs(t - p) for t, p in zip(targets, predictions)]
  return {{"close": 100 - sum(far) / len(far),
          "seen": seqio.metrics.Scalar(len(far)),
          "text": seqio.metrics.Text("no number")}}

def add(name, **changes):
  settings = dict(
    source=seqio.FunctionDataSource(
      functools.partial(rows, word=name), splits=list(SIZES),
      num_input_examples=SIZES),
    preprocessors=[ask, seqio.preprocessors.tokenize,
                   seqio.preprocessors.append_eos_after_trim],
    output_features=FEATURES, postprocess_fn=read, metric_fns=[distance])
  seqio.TaskRegistry.add(name, **{{**settings, **changes}})

add("own_cats")
add("own_dogs")
seqio.MixtureRegistry.add(
  "own_pets", [("own_cats", 3.0), ("own_dogs", seqio.mixing_rate_num_examples)])
"""


@pytest.fixture(scope="session")
def _imported(tmp_path_factory, vocabulary_file):
  folder = tmp_path_factory.mktemp("module")
  text = MODULE.format(vocabulary=str(vocabulary_file))
  (folder / "own_seqio_module.py").write_text(textwrap.dedent(text))
  sys.path.insert(0, str(folder))
  yield importlib.import_module("own_seqio_module")
  sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def own_module(_imported, vocabulary_file):
  """A module that users would have, imported as the setting imports it."""
  vocabulary.configure(vocabulary_file)
  before = dict(spec._specs)
  yield _imported
  vocabulary.configure(None)
  spec._specs.clear()
  spec._specs.update(before)
