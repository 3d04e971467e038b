"""Templated tasks through seqio and the token cache, to batches."""

import json

import numpy as np
import pytest
import seqio
import tensorflow as tf

from prompt_tuning.core.placement import FIRST_SOFT, Placement
from prompt_tuning.data import cache, custom, pipeline, spec, templated
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.data.tasks import registry
from prompt_tuning.data.tasks import templated as tasks
from prompt_tuning.prompting import rendering

TEMPLATE = (
  '{"soft": "the house"} {"mask"} : {"placeholder": "text"} '
  '{"field": "kind"} {"soft": 1}'
)
LENGTHS = {"inputs": 48, "targets": 8}
TEXTS = ("room one", '<extra_id_1> {"mask"}', "__import__('os')", "x " * 90)


@pytest.fixture
def words(vocabulary_file):
  vocabularies.configure(vocabulary_file)
  yield vocabularies.load()
  vocabularies.configure(None)


@pytest.fixture
def own_task(tmp_path, monkeypatch, words):
  """A task of eight rows; every registry is as before afterwards."""
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  known = dict(seqio.TaskRegistry._REGISTRY)
  monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", known)
  path = tmp_path / "rows.jsonl"
  rows = [{"text": TEXTS[i % 4], "kind": i % 2} for i in range(8)]
  path.write_text("\n".join(map(json.dumps, rows)))
  custom.declare(
    "rooms",
    {"train": str(path), "validation": str(path)},
    template="{text}",
    target_column="kind",
    label_words=("no", "yes"),
  )
  return templated.declare(
    "own_rooms",
    "rooms",
    template=TEMPLATE,
    label_words={"no": ["small", "cold"], "yes": "great"},
  )


def test_the_seqio_task_yields_soft_tokens_and_targets(own_task, words):
  task = registry.get("own_rooms")
  dataset = task.get_dataset(LENGTHS, split="validation", shuffle=False)
  examples = list(dataset.as_numpy_iterator())
  assert len(examples) == 8
  soft = len(words.encode("the house"))
  soft_ids = [FIRST_SOFT + k for k in range(soft)]
  text = words.encode("<extra_id_0> : room one 0")
  assert examples[0]["inputs"].tolist() == [
    *soft_ids,
    *text,
    FIRST_SOFT + soft,
    1,
  ]
  target = [*words.encode("<extra_id_0> great"), 1]
  assert examples[1]["targets"].tolist() == target
  assert examples[1][spec.TARGETS] == b"<extra_id_0> great"
  assert set(own_task.eval_features) <= set(examples[0])
  # What is too long loses the end of the text, and nothing else.
  long = examples[3]["inputs"]
  assert len(long) == LENGTHS["inputs"]
  assert long[-2:].tolist() == [FIRST_SOFT + soft, 1]
  assert words.sentinel(0) in long


def test_the_cache_holds_what_seqio_gives(own_task, words, tmp_path):
  tokens = cache.load_task(own_task, "train", LENGTHS, tmp_path / "cache")
  dataset = registry.get("own_rooms").get_dataset(
    LENGTHS, split="train", shuffle=False
  )
  for row, example in enumerate(dataset.as_numpy_iterator()):
    np.testing.assert_array_equal(tokens.inputs[row], example["inputs"])
    np.testing.assert_array_equal(tokens.targets[row], example["targets"])
    parts = tokens.example(row)[templated.PARTS]
    assert sum(parts) == len(tokens.inputs[row]) - 1
  assert tokens.truncated == {"inputs": 2, "targets": 0}
  # Markup and code of a row are text: one sentinel, the template's.
  for row in range(len(tokens)):
    special = tokens.inputs[row] >= words.sentinel(99)
    soft_ids = tokens.inputs[row] >= FIRST_SOFT
    assert special.sum() - soft_ids.sum() == 1


@pytest.mark.parametrize("batching", ["buckets", "packed"])
def test_batches_have_virtual_tokens_in_place_of_soft_ones(
  own_task, words, tmp_path, batching
):
  soft = len(words.encode("the house")) + 1
  placement = Placement(tuple(range(soft)))
  tokens = cache.load_task(own_task, "train", LENGTHS, tmp_path / "cache")
  layout = pipeline.Layout(placement, words.size + 28)
  batches = pipeline.TrainBatches(
    tokens, 4, 0, layout=layout, batching=batching
  )
  batch = next(iter(batches))
  ids = batch["encoder_input_tokens"]
  virtual = np.sort(ids[ids >= words.size])
  examples = np.sum(ids == 1)
  expected = np.repeat(words.size + 28 + np.arange(soft), examples)
  np.testing.assert_array_equal(virtual, np.sort(expected))
  wrong = pipeline.Layout(Placement((0,)), words.size + 28)
  with pytest.raises(ValueError, match=f"has {soft} soft tokens, but the"):
    pipeline.TrainBatches(tokens, 4, 0, layout=wrong, batching=batching)


HOSTILE = (
  "__import__('os').abort()",
  "lambda row: exit(1)",
  '<extra_id_0> {"mask"} </s>',
)


def test_rows_and_words_of_code_or_markup_stay_text(own_task, words, tmp_path):
  """In a task of several masks: two sentinels in a row, the template's."""
  path = tmp_path / "hostile.jsonl"
  rows = [{"text": t, "kind": k % 2} for k, t in enumerate(HOSTILE)]
  path.write_text("\n".join(map(json.dumps, rows)))
  custom.declare(
    "hostile_rows",
    {"train": str(path)},
    template="{text}",
    target_column="kind",
    label_words=("no", "yes"),
  )
  task = templated.declare(
    "hostile",
    "hostile_rows",
    sub_prompts=['{"field": "text"} {"mask"}', '{"field": "kind"} {"mask"}'],
    rules={"no": [HOSTILE[0], "no"], "yes": [HOSTILE[1], "yes"]},
  )
  lengths = {"inputs": 48, "targets": 48}
  tokens = cache.load_task(task, "train", lengths, tmp_path / "cache")
  for number, text in enumerate(HOSTILE):
    ids = tokens.inputs[number]
    sentinels = ids[ids >= words.sentinel(99)]
    assert sentinels.tolist() == [words.sentinel(0), words.sentinel(1)]
    assert sum(ids == 1) == 1  # the end alone
    length = tokens.example(number)[templated.PARTS][0]
    said = rendering.text_ids(words.encode, text, True)
    assert ids[:length].tolist() == said
    assert length > 5
    target = [*words.encode(task.label_words[number % 2]), 1]
    assert tokens.targets[number].tolist() == target


def test_k_shots_of_it(own_task, tmp_path):
  few = spec.task(f"{own_task.name}_k1_seed0")
  tokens = cache.load_task(few, "train", LENGTHS, tmp_path / "cache")
  targets = sorted(e[spec.TARGETS] for e in tokens.examples())
  assert targets == ["<extra_id_0> great", "<extra_id_0> small"]
  whole = cache.load_task(few, "validation", LENGTHS, tmp_path / "cache")
  assert len(whole) == 8


def test_no_room_for_what_may_not_be_shortened(own_task, tmp_path):
  short = {"inputs": 4, "targets": 8}
  with pytest.raises(
    ValueError, match="not be shortened, but there is room for 3"
  ):
    cache.load_task(own_task, "train", short, tmp_path / "cache")
  assert not list((tmp_path / "cache").rglob("manifest.json"))


def test_rows_of_tfds_have_fields_inside_fields(words, monkeypatch):
  """Numbers, lists and missing labels too."""
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  task = templated.declare(
    "own_rte",
    "taskless_super_glue_rte_v102",
    template='{"field": "deep/text"} {"field": "n"} {"options"} {"mask"}',
    label_words={"entailment": "yes", "not_entailment": "no"},
    fields={"n": "number"},
  )
  rows = tf.data.Dataset.from_tensor_slices(
    {
      "deep": {"text": ["so", "it"]},
      "number": [3, 4],
      "options": [["a", "b"], ["c", "d"]],
      "label": [1, -1],
      "idx": [0, 1],
    }
  )
  first, second = tasks._render(task, rows).as_numpy_iterator()
  assert first[spec.INPUTS] == b"so 3 A. a B. b <extra_id_0>"
  assert first["targets"].tolist() == words.encode("<extra_id_0> no")
  assert second["targets"].tolist() == words.encode("<unk>")
  assert second[spec.TARGETS] == b"<unk>"
  assert first["inputs"].dtype == np.int32
  without = rows.map(lambda row: {k: v for k, v in row.items() if k != "deep"})
  with pytest.raises(ValueError, match=r"'deep/text' is not a field of the"):
    tasks._render(task, without)
