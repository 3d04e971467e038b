"""T5X itself trains a prompt: the commands of docs/t5x.md.

On the model and the rows of the trajectory that T5X left in the folder of real
data, all rows in every step, so that the recorded prompts are expected.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import prompt_tuning as pt
from prompt_tuning.checkpoints import prompts, restore
from prompt_tuning.launch import main

if importlib.util.find_spec("t5x") is None:
  pytest.skip("T5X is not installed: docs/t5x.md", allow_module_level=True)

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = "prompt_tuning/t5x/configs"
TASK = "taskless_super_glue_rte_v102"
FIRST, MIDDLE, LAST = 3, 13, 23  # steps; the checkpoint's is 3
MODEL = (
  "--gin_file=t5x/examples/t5/t5_1_1/tiny.gin",
  "--gin.network.T5Config.dtype='float32'",
  "--gin.network.T5Config.emb_dim=32",
  "--gin.network.T5Config.head_dim=8",
  "--gin.network.T5Config.mlp_dim=64",
  f"--gin.MIXTURE_OR_TASK_NAME='{TASK}'",
  "--gin.TASK_FEATURE_LENGTHS={'inputs': 96, 'targets': 8}",
  "--gin.DROPOUT_RATE=0.0",
)


@pytest.fixture(scope="module")
def recorded(shared_data):
  return shared_data / "t5x_trajectory"


@pytest.fixture(scope="module")
def tfds(shared_data, tmp_path_factory):
  """RTE with 32 rows to train on."""
  source = tmp_path_factory.mktemp("source")
  folder = source / "RTE"
  folder.mkdir()
  few = shared_data / "fewglue" / "RTE"
  for split, file in (("train", "train32"), ("val", "dev32")):
    shutil.copy(few / f"{file}.jsonl", folder / f"{split}.jsonl")
  shutil.copy(shared_data / "superglue/RTE/test.jsonl", folder)
  target = source / "tfds"
  arguments = ["--source", str(source), "--tfds_data_dir", str(target)]
  assert main.main(["data", "prepare", *arguments]) == 0
  return target


@pytest.fixture(scope="module")
def t5x(tfds, published_vocabulary_file, tmp_path_factory):
  """Start a script of T5X's: `t5x("train", *flags, devices=1) -> process`.

  It writes to a file, `process.said`: a pipe that nobody reads, as while the
  test waits for a checkpoint, fills, and the process stands still.
  """

  def start(script, *flags, devices=1):
    said = tmp_path_factory.mktemp("said") / "output"
    with said.open("w") as stream:
      process = run(script, stream, flags, devices)
    process.said = said
    return process

  def run(script, stream, flags, devices):
    return subprocess.Popen(
      [
        *(sys.executable, "-m", f"t5x.{script}"),
        *(*MODEL, *flags, f"--tfds_data_dir={tfds}"),
      ],
      env=os.environ
      | {
        "PYTHONPATH": str(ROOT),
        "PROMPT_TUNING_VOCABULARY": published_vocabulary_file,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
      },
      stdout=stream,
      stderr=subprocess.STDOUT,
    )

  return start


def finish(process):
  assert process.wait() == 0, process.said.read_text()[-5000:]


@pytest.fixture(scope="module")
def trained(t5x, recorded, tmp_path_factory):
  """Train on four devices, kill it behind a checkpoint, and go on."""
  folder = tmp_path_factory.mktemp("trained") / "run"
  start = folder.parent / "start.npy"
  prompts.write_npy(start, np.load(recorded / "prompts.npy")[0])
  flags = (
    "--gin_file=t5x/configs/runs/finetune.gin",
    f"--gin_file={CONFIGS}/prompt.gin",
    f"--gin_file={CONFIGS}/from_file.gin",
    f"--gin.PROMPT_FILE='{start}'",
    "--gin.PROMPT_LENGTH=10",
    f"--gin.INITIAL_CHECKPOINT_PATH='{recorded}/checkpoint_{FIRST}'",
    f"--gin.MODEL_DIR='{folder}'",
    "--gin.BATCH_SIZE=32",
    "--gin.train/utils.DatasetConfig.shuffle=False",
    "--gin.EVAL_PERIOD=10",
    "--gin.EVAL_STEPS=1",
    "--gin.utils.SaveCheckpointConfig.period=10",
    "--gin.partitioning.PjitPartitioner.num_partitions=2",
  )
  process = t5x("train", *flags, "--gin.TRAIN_STEPS=20003", devices=4)
  whole = folder / f"checkpoint_{MIDDLE}" / "commit_success.txt"
  while not whole.exists() and process.poll() is None:
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert whole.exists(), process.said.read_text()[-5000:]
  later = {int(p.name.split("_")[1]) for p in folder.glob("checkpoint_*[0-9]")}
  assert max(later) < LAST
  finish(t5x("train", *flags, f"--gin.TRAIN_STEPS={LAST}", devices=4))
  return folder


def test_the_prompt_is_the_recorded_one_and_the_model_the_same(
  trained, recorded, tolerance
):
  theirs = np.load(recorded / "prompts.npy")
  frozen = restore.open_checkpoint(recorded / f"checkpoint_{FIRST}").params
  for step in (FIRST, MIDDLE, LAST):
    checkpoint = restore.open_checkpoint(trained / f"checkpoint_{step}")
    assert checkpoint.step == step
    assert checkpoint.params.keys() - frozen.keys() == {prompts.PARAMETER}
    for path, leaf in frozen.items():
      np.testing.assert_array_equal(
        checkpoint.params[path].read(), leaf.read(), path
      )
    ours = checkpoint.params[prompts.PARAMETER].read()
    scale = np.abs(theirs[step - FIRST]).max()
    np.testing.assert_allclose(
      ours / scale, theirs[step - FIRST] / scale, **tolerance["steps"]
    )


def test_scores_are_the_same_in_t5x_and_here(
  trained, recorded, t5x, published_vocabulary_file, tmp_path, tolerance
):
  """T5X's checkpoint in T5X; its prompt as a file there, and here."""
  model = recorded / f"checkpoint_{FIRST}"
  checkpoint = trained / f"checkpoint_{LAST}"
  file = tmp_path / "rte.npy"
  assert main.main(["convert", str(checkpoint), str(file), "--to", "npy"]) == 0

  def lines(name, *flags):
    out = tmp_path / name
    finish(
      t5x(
        "infer",
        "--gin_file=t5x/configs/runs/infer.gin",
        f"--gin_file={CONFIGS}/prompt.gin",
        f"--gin_file={CONFIGS}/{name}.gin",
        *flags,
        "--gin.PROMPT_LENGTH=10",
        "--gin.infer.mode='score'",
        "--gin.utils.DatasetConfig.split='validation'",
        "--gin.utils.RestoreCheckpointConfig.dtype='float32'",
        f"--gin.INFER_OUTPUT_DIR='{out}'",
      )
    )
    (found,) = out.glob(f"{TASK}-score.jsonl-00000-of-00001")
    return [json.loads(line) for line in found.read_text().splitlines()]

  whole = lines("whole_checkpoint", f"--gin.CHECKPOINT_PATH='{checkpoint}'")
  constant = lines(
    "constant_prompt",
    f"--gin.CHECKPOINT_PATH='{model}'",
    f"--gin.PROMPT_FILE='{file}'",
  )
  theirs = [line["score"] for line in whole]
  assert len(theirs) == 32
  np.testing.assert_allclose(
    [line["score"] for line in constant], theirs, **tolerance["same"]
  )
  ours = pt.load_model(
    model, published_vocabulary_file, input_length=96
  ).with_prompts({"rte": file})
  texts, targets = (
    [line["inputs"][f"{name}_pretokenized"] for line in whole]
    for name in ("inputs", "targets")
  )
  np.testing.assert_allclose(
    ours.score(texts, targets, prompt="rte"), theirs, **tolerance["parity"]
  )


def test_our_tasks_in_a_training_that_is_all_t5xs(
  t5x, recorded, shared_data, tmp_path
):
  """T5X checks that its model and our task have the same vocabulary."""
  vocabulary = shared_data / "t5_vocab/with_sentinels/sentencepiece.model"
  flags = (
    "--gin_file=t5x/configs/runs/finetune.gin",
    "--gin.MIXTURE_OR_TASK_MODULE='prompt_tuning.data.tasks.super_glue'",
    f"--gin.INITIAL_CHECKPOINT_PATH='{recorded}/checkpoint_{FIRST}'",
    "--gin.utils.RestoreCheckpointConfig.fallback_to_scratch=True",
    "--gin.utils.RestoreCheckpointConfig.assignment_map=()",
    f"--gin.MODEL_DIR='{tmp_path}/run'",
    "--gin.USE_CACHED_TASKS=False",
    "--gin.BATCH_SIZE=8",
    "--gin.EVAL_STEPS=1",
    f"--gin.TRAIN_STEPS={FIRST + 2}",
  )

  def of(file):
    path = "--gin.seqio.SentencePieceVocabulary.sentencepiece_model_file"
    return f"{path}='{file}'"

  finish(t5x("train", *flags, of(vocabulary)))
  assert (tmp_path / "run" / f"checkpoint_{FIRST + 2}").is_dir()
  other = shared_data / "t5_vocab/seqio_test/sentencepiece.model"
  process = t5x("train", *flags, of(other))
  assert process.wait() != 0
  assert "Model and Task vocabularies do not match" in process.said.read_text()
