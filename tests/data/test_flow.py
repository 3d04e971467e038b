"""All the real data: files -> TFDS -> seqio -> cache -> batches, no row lost.

Row counts are those of the data's README, which were counted from the files.
"""

import dataclasses
import json

import numpy as np
import pytest

from prompt_tuning.core.placement import Placement
from prompt_tuning.data import cache, preprocessors, spec, vocabulary
from prompt_tuning.data.evaluation import EvaluationBatches
from prompt_tuning.data.pipeline import Layout, TrainBatches
from prompt_tuning.data.prepare import prepare
from prompt_tuning.data.tasks import registration, text_classification

LENGTHS = {"inputs": 512, "targets": 32}
LAYOUT = Layout(Placement(tuple(range(100))), 32_128)
TRAIN, VALIDATION, TEST = "train", "validation", "test"


def three(train, validation, test):
  return {TRAIN: train, VALIDATION: validation, TEST: test}


# README rows per task and split. WSC trains on the 259 true referents.
ROWS = {
  "superglue": {
    "taskless_super_glue_boolq_v102": three(1_933, 3_270, 3_245),
    "taskless_super_glue_cb_v102": three(250, 56, 250),
    "taskless_super_glue_copa_v102": three(400, 100, 500),
    "taskless_super_glue_multirc_v102": three(27_243, 4_848, 9_693),
    "taskless_super_glue_rte_v102": three(2_490, 277, 3_000),
    "taskless_super_glue_wic_v102": three(5_428, 638, 1_400),
    "taskless_super_glue_wsc_v102_simple_train": {TRAIN: 259},
    "taskless_super_glue_wsc_v102_simple_eval": {VALIDATION: 104, TEST: 146},
    "taskless_super_glue_axb_v102": {TEST: 1_104},
    "taskless_super_glue_axg_v102": {TEST: 356},
  },
  "glue": {
    "taskless_glue_sst2_v200": {TRAIN: 67_349, VALIDATION: 872},
    "taskless_glue_mrpc_v200": three(3_668, 408, 1_725),
    "taskless_glue_qqp_v200": {TRAIN: 21_112 + 9_372, VALIDATION: 2_384},
    "taskless_glue_cola_v200": {TRAIN: 8_551, VALIDATION: 1_043},
    "taskless_glue_cola_v002": {TRAIN: 8_551, VALIDATION: 1_043},
    "taskless_glue_stsb_v200": {TRAIN: 5_749, VALIDATION: 1_500},
    "taskless_glue_qnli_v200": {TRAIN: 9_999, VALIDATION: 5_463},
    "taskless_glue_mnli_v200": {TRAIN: 9_000, "validation_matched": 999},
    "taskless_glue_mnli_matched_v200": {VALIDATION: 999},
    "taskless_glue_mrpc_from_qqp_v002": {VALIDATION: 408},
  },
  "squad": {
    "squad_v010_allanswers": {TRAIN: 3_939 + 4_149, VALIDATION: 3_994},
  },
  "mrqa": {
    "mrqa_duo_rc_v100": {VALIDATION: 127 + 126},
    "mrqa_race_v100": {VALIDATION: 127 + 128},
  },
  "textcls": {
    "taskless_ag_news_v100": {TRAIN: 9_991 + 1_000, TEST: 7_600},
    "taskless_dbpedia_v100": {TRAIN: 5_000, TEST: 5_000},
    "taskless_imdb_v100": {TRAIN: 1_707 + 900, TEST: 488 + 1_000},
    "taskless_amazon_v100": {TRAIN: 1_000, TEST: 1_000},
    "taskless_amazon_polarity_v100": {TRAIN: 800, TEST: 800},
    "taskless_imdb_other": {
      VALIDATION: 245,
      "train_counterfactual": 1_707,
      "validation_counterfactual": 245,
      "test_counterfactual": 488,
    },
  },
}


@pytest.fixture(autouse=True)
def words(published_vocabulary_file):
  vocabulary.configure(published_vocabulary_file)
  yield
  vocabulary.configure(None)


@pytest.fixture
def imdb_other(monkeypatch):
  """A task on the splits of IMDB that the published data does not have."""
  splits = list(ROWS["textcls"]["taskless_imdb_other"])
  task = dataclasses.replace(
    spec.task("taskless_imdb_v100"),
    name="taskless_imdb_other",
    splits=dict(zip(splits, splits, strict=True)),
  )
  monkeypatch.setattr(spec, "_specs", {**spec._specs, task.name: task})
  registration.seqio.TaskRegistry.remove(task.name)
  rendering = text_classification._rendering(task)
  registration.add_task(task, [*rendering, preprocessors.drop_task_name])


def record_rows(folder):
  """One example per different answer; one for a query without answers."""
  counts = {}
  for file, split in (("train", TRAIN), ("val", VALIDATION), ("test", TEST)):
    lines = (folder / f"ReCoRD/{file}_sample.jsonl").read_text().splitlines()
    queries = [query for line in lines for query in json.loads(line)["qas"]]
    answers = [{a["text"] for a in q.get("answers", ())} for q in queries]
    counts[split] = sum(max(1, len(texts)) for texts in answers)
  return counts


def check_batches(tokens):
  """Every example once in evaluation; whole packed windows in training."""
  batches = EvaluationBatches(tokens, 64, layout=LAYOUT)
  starts = [
    batch["encoder_input_tokens"] == LAYOUT.vocab_rows for batch in batches
  ]
  assert sum(map(np.sum, starts)) == len(tokens)
  packed = TrainBatches(tokens, 4, seed=0, layout=LAYOUT, batching="packed")
  planned, left = packed.plan(0, np.zeros(0, np.int64))
  examples = [*(i for places in planned for i in places.examples), *left]
  # A window is at most an epoch, but at least a batch.
  assert len(examples) == max(len(set(examples)), 4)
  for places in planned[:3]:
    batch = packed.assemble(places)
    starts = batch["encoder_input_tokens"] == LAYOUT.vocab_rows
    assert starts.sum() == len(places.examples)


@pytest.mark.slow
@pytest.mark.parametrize("folder", list(ROWS))
def test_every_row_arrives(folder, shared_data, tmp_path, imdb_other, request):
  if folder == "superglue":
    tfds_dir = request.getfixturevalue("prepared_superglue")
  else:
    tfds_dir = tmp_path / "tfds"
    prepare([shared_data / folder], tfds_dir)
  expected = dict(ROWS[folder])
  if folder == "superglue":
    name = "taskless_super_glue_record_v102"
    expected[name] = record_rows(shared_data / folder)
  for name, rows in expected.items():
    task = spec.task(name)
    for split, count in rows.items():
      tokens = cache.load_task(
        task, split, LENGTHS, tmp_path / "cache", tfds_dir
      )
      assert len(tokens) == count, f"{name} {split}"
      assert tokens.inputs.lengths.max() <= LENGTHS["inputs"]
      check_batches(tokens)
