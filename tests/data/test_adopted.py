"""Tasks and mixtures of a user's own seqio module."""

import functools

import numpy as np
import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import cache, spec
from prompt_tuning.jobs import settings

LENGTHS = {"inputs": 12, "targets": 4}


def test_cached_tokens_are_seqios(own_module, tmp_path):
  """In its order, cut as it cuts, rates and all."""
  dataset = settings.Dataset("own_pets", LENGTHS, module="own_seqio_module")
  (cats, rate), (dogs, other) = cache.load(
    "own_pets", "train", dataset.lengths, tmp_path
  )
  assert (cats.task, dogs.task) == ("own_cats", "own_dogs")
  assert (rate, other) == (3.0, 6.0)
  for name, tokens in (("own_cats", cats), ("own_dogs", dogs)):
    theirs = seqio.get_mixture_or_task(name).get_dataset(
      sequence_length=LENGTHS, split="train", shuffle=False
    )
    for index, row in enumerate(theirs.as_numpy_iterator()):
      np.testing.assert_array_equal(tokens.inputs[index], row["inputs"])
      np.testing.assert_array_equal(tokens.targets[index], row["targets"])
    assert len(tokens) == index + 1 == 6
  assert max(np.diff(cats.inputs.offsets)) == 12
  assert cats.example(2)["answers"] == ["one", "two"]
  # A warm cache is found again, and other rows are not taken for these.
  again = cache.load("own_pets", "train", LENGTHS, tmp_path)
  assert [c.key for c, _ in again] == [cats.key, dogs.key]


def test_metrics_are_what_seqio_computes(own_module, tmp_path):
  ((tokens, _),) = cache.load("own_cats", "validation", LENGTHS, tmp_path)
  task = spec.task("own_cats")
  answers = ["0", "3", "no number", "3"]
  expected = own_module.distance([0, 1, 2, 3], [0, 3, -1, 3])
  assert task.evaluate(answers, tokens.examples()) == {
    "close": expected["close"],
    "seen": 4.0,
  }
  with pytest.raises(ValueError, match="3 predictions for 4 examples"):
    task.evaluate(answers[:3], tokens.examples())


def test_few_shots_of_it(own_module, tmp_path):
  ((tokens, _),) = cache.load("own_cats_k2_seed0", "train", LENGTHS, tmp_path)
  assert len(tokens) == 2


def test_what_a_function_reads_is_part_of_the_key(own_module, tmp_path):
  (before, _), _ = cache.load("own_pets", "train", LENGTHS, tmp_path)
  own_module.SIZES["train"] = 5
  try:
    (after, _), _ = cache.load("own_pets", "train", LENGTHS, tmp_path)
  finally:
    own_module.SIZES["train"] = 6
  assert (len(before), len(after)) == (6, 5)


def features(own_module, **changes):
  return {**own_module.FEATURES, **changes}


def scored(targets, scores):
  return {}


@pytest.mark.parametrize(
  ("name", "changes", "message"),
  [
    (
      "own_text_only",
      lambda m: {"output_features": {"text": m.FEATURES["inputs"]}},
      "has the output features text; expected inputs and targets. Rename",
    ),
    (
      "own_more",
      lambda m: {
        "output_features": features(m, extra=m.FEATURES["inputs"]),
      },
      "has the output features extra, inputs, targets; expected",
    ),
    (
      "own_scores",
      lambda m: {"metric_fns": [scored]},
      "a metric reads scores; expected metric functions of targets",
    ),
    (
      "own_floats",
      lambda m: {
        "output_features": features(
          m, targets=seqio.Feature(m.VOCABULARY, dtype=tf.float32, rank=2)
        )
      },
      "targets is float32 of rank 2; expected token ids",
    ),
  ],
)
def test_what_cannot_be_kept(own_module, name, changes, message):
  own_module.add(name, **changes(own_module))
  with pytest.raises(ValueError, match=message):
    settings.Dataset(name, LENGTHS)
  assert "\n" not in message


def test_another_vocabulary_is_named(own_module, tmp_path):
  other = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
  features = {"inputs": other, "targets": other}
  own_module.add("own_bytes", output_features=features)
  with pytest.raises(ValueError, match=r"another vocabulary .* VOCABULARY_FIL"):
    cache.load("own_bytes", "train", LENGTHS, tmp_path)


def test_a_rate_that_cannot_be_computed(own_module):
  source = seqio.FunctionDataSource(
    functools.partial(own_module.rows), splits=["train"]
  )
  own_module.add("own_uncounted", source=source)
  seqio.MixtureRegistry.add(
    "own_mix", [("own_uncounted", seqio.mixing_rate_num_examples)]
  )
  with pytest.raises(ValueError, match="rate of own_uncounted cannot"):
    spec.get("own_mix")
