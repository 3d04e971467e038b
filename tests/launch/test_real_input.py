"""The whole job on real SuperGLUE with a T5 1.1 small, seven tasks in a bank.

Weights are random, so no score is claimed: what is shown is that official
files, the real vocabulary, the official metrics and the full shapes go through
preparation, training, evaluation, selection, export and reloading.
"""

import json

import numpy as np
import pytest

from prompt_tuning import api
from prompt_tuning.checkpoints import restore, t5x_writer
from prompt_tuning.launch import main
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.train import logs

STEP = 1_100_000
PREFIX = "taskless_super_glue_"
TASKS = {
  f"{PREFIX}boolq_v102": {"accuracy"},
  f"{PREFIX}cb_v102": {"mean_3class_f1", "accuracy"},
  f"{PREFIX}rte_v102": {"accuracy"},
  f"{PREFIX}copa_v102": {"accuracy"},
  f"{PREFIX}wic_v102": {"accuracy"},
  f"{PREFIX}wsc_and_dev_v102_simple": {"accuracy"},
  f"{PREFIX}multirc_v102": {"f1", "exact_match"},
}


@pytest.fixture(scope="module")
def finished(
  tmp_path_factory, prepared_superglue, published_vocabulary_file, random_params
):
  root = tmp_path_factory.mktemp("real")
  params = random_params(t5_config.get("t5_1_1_small"))
  checkpoint = root / f"checkpoint_{STEP}"
  t5x_writer.write_t5x(checkpoint, restore.leaves_of(params), step=STEP)
  lengths = "{'inputs': 64, 'targets': 8}"
  flags = [
    "--gin_file=models/t5_1_1_small_prompt.gin",
    "--gin_file=prompts/from_class_labels.gin",
    "--gin_file=runs/prompt_finetune.gin",
    "--gin_file=meshes/single.gin",
    f"--gin.MODEL_DIR='{root / 'run'}'",
    f"--gin.INITIAL_CHECKPOINT_PATH='{checkpoint}'",
    f"--gin.MIXTURE_OR_TASK_NAME={tuple(TASKS)}",
    f"--gin.TASK_FEATURE_LENGTHS={lengths}",
    f"--gin.EVAL_FEATURE_LENGTHS={lengths}",
    f"--gin.VOCABULARY_FILE='{published_vocabulary_file}'",
    f"--gin.TOKEN_CACHE_DIR='{root / 'tokens'}'",
    f"--gin.TRAIN_STEPS={STEP + 2}",
    "--gin.ACTIVATION_DTYPE='float32'",
    "--gin.BATCH_SIZE=1",
    "--gin.BATCHING='fixed'",
    "--gin.EVAL_BATCH_SIZE=4",
    "--gin.EVAL_STEPS=0",
    "--gin.EVAL_PERIOD=2",
    "--gin.EVALUATOR_NUM_EXAMPLES=4",
    "--gin.MAX_DECODE_LENGTH=4",
    "--gin.LOG_PERIOD=1",
    "--gin.train.progress_bar=False",
    f"--tfds_data_dir={prepared_superglue}",
  ]
  assert main.main(["train", *flags]) == 0
  return root


@pytest.mark.slow
def test_every_task_trains_and_is_scored_by_its_own_metric(finished):
  entries = logs.read(finished / "run")
  for run, metrics in enumerate(TASKS.values()):
    own = [entry for entry in entries if entry["run"] == run]
    losses = [e["train/loss"] for e in own if "train/loss" in e]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    found = {tag.split("/")[-1] for entry in own for tag in entry}
    assert metrics <= found, run


@pytest.mark.slow
def test_exported_prompts_predict_what_evaluation_saw(
  finished, published_vocabulary_file
):
  model = api.load_model(
    finished / f"checkpoint_{STEP}", published_vocabulary_file, input_length=64
  )
  exports = sorted((finished / "run" / "exports").iterdir())
  assert len(exports) == len(TASKS)
  model = model.with_prompts(
    {folder.name: folder / "prompt.npy" for folder in exports}
  )
  for folder in exports:
    (rows,) = (finished / "run" / "inference_eval" / folder.name).glob(
      f"*-{STEP + 2}.jsonl"
    )
    seen = [json.loads(line) for line in rows.read_text().splitlines()]
    again = model.predict(
      [row["input"]["inputs_pretokenized"] for row in seen],
      prompt=folder.name,
      length=4,
    )
    assert list(again) == [row["prediction"] for row in seen]
