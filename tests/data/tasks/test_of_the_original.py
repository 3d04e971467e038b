"""What names of the original do with tokens."""

import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import vocabulary
from prompt_tuning.data.tasks import registry

TEXT = "the old red house is very small and the new one is large " * 3


@pytest.fixture
def words(vocabulary_file):
  vocabulary.configure(vocabulary_file)
  yield vocabulary.load()
  vocabulary.configure(None)


def tokens_of(name, rows):
  task = registry.get(name)
  source = seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
      rows
    ),
    splits=["validation"],
  )
  dataset = task.replace(source=source).get_dataset(
    sequence_length=None, split="validation", shuffle=False
  )
  return [
    (row["inputs"].tolist(), row["targets"].tolist())
    for row in dataset.as_numpy_iterator()
  ]


def test_a_task_index_is_one_sentinel_before_the_text(words):
  """As where it is put before the tokens: `vocab_size - 1 - index`."""
  rows = {"sentence": ["a b"], "label": [1], "idx": [0]}
  (with_index,) = tokens_of("task_index_glue_sst2_v200", rows)
  (without,) = tokens_of("taskless_glue_sst2_v200", rows)
  assert with_index[0] == [words.size - 1 - 6, *without[0]]
  assert with_index[1] == without[1]


def c4(kind, words):
  ((inputs, targets),) = tokens_of(f"c4_v220_{kind}", {"text": [TEXT]})
  assert inputs[-1] == targets[-1] == words.eos_id
  return inputs[:-1], targets[:-1]


def test_text_infilling_asks_for_the_whole_text(words):
  inputs, targets = c4("bart_text_infilling", words)
  assert targets == words.encode(TEXT)
  sentinels = [i for i in inputs if i >= words.size - vocabulary.EXTRA_IDS]
  noise = round(0.15 * len(targets))
  assert sentinels == [words.sentinel(i) for i in range(round(noise / 3))]
  assert len(inputs) == len(targets) - noise + len(sentinels)


def test_token_deletion_leaves_some_tokens_out(words):
  inputs, targets = c4("bart_token_deletion", words)
  assert targets == words.encode(TEXT)
  assert len(targets) / 2 < len(inputs) < len(targets)
  rest = iter(targets)
  assert all(token in rest for token in inputs)  # in their order


def test_random_targets_follow_a_beginning_of_the_text(words):
  inputs, targets = c4("random_positive_negative_targets", words)
  assert words.encode(TEXT)[: len(inputs)] == inputs
  assert words.decode(targets) in ("positive", "negative")
  rows = {"text": [TEXT] * 20}
  drawn = tokens_of("c4_v220_random_positive_negative_targets", rows)
  assert len({tuple(target) for _, target in drawn}) == 2
  assert len({len(text) for text, _ in drawn}) > 5
  assert drawn[0] == ([*inputs, words.eos_id], [*targets, words.eos_id])
