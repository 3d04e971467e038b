"""Signals to `prompt-tuning train` itself, on the real pipeline."""

import random
import signal
import subprocess
import sys
import time

import pytest

STEP = 1_100_000
KEPT = ("bundles", "best", "exports")


def start(flags):
  return subprocess.Popen(
    [sys.executable, "-m", "prompt_tuning.launch.train", *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def saved(folder):
  """The newest step that a bundle holds; 0 before the first."""
  names = (path.name for path in folder.glob("bundles/step_????????"))
  return max((int(name.removeprefix("step_")) for name in names), default=0)


def kept(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for name in KEPT
    for path in sorted((folder / name).rglob("*"))
    if path.is_file()
  }


@pytest.mark.slow
def test_kills_change_no_byte_of_what_is_kept(tmp_path, train_flags):
  """Shuffled buckets, dropout, evaluation, best prompts: all go on."""
  folder, whole = tmp_path / "run", tmp_path / "whole"
  flags = train_flags(
    folder,
    "--gin.SEEDS=(0, 1)",
    "--gin.PROMPT_LENGTH=3",
    "--gin.DROPOUT_RATE=0.1",
    "--gin.BATCHING='buckets'",
    f"--gin.TRAIN_STEPS={STEP + 40}",
    "--gin.EVAL_PERIOD=10",
    "--gin.CHECKPOINT_PERIOD=2",
  )
  undisturbed = start(flags)
  output, _ = undisturbed.communicate(timeout=300)
  assert undisturbed.returncode == 0, output
  # Bundles name the folder: the second run must lie where the first one did.
  folder.rename(whole)

  chance = random.Random(0)
  for signal_sent in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
    before = saved(folder)
    process = start(flags)
    deadline = time.monotonic() + 240
    while saved(folder) < before + 4 and process.poll() is None:
      assert time.monotonic() < deadline, "the run makes no progress"
      time.sleep(0.01)
    time.sleep(chance.uniform(0, 0.05))
    process.send_signal(signal_sent)
    output, _ = process.communicate(timeout=300)
    if signal_sent == signal.SIGKILL:
      assert process.returncode == -signal.SIGKILL, output
    else:  # saved, and not done
      assert process.returncode == 128 + signal_sent, output
      assert output.endswith("The same command continues it.\n")
    assert before < saved(folder) < 40
  last = start(flags)
  output, _ = last.communicate(timeout=300)
  assert last.returncode == 0, output
  assert kept(folder) == kept(whole)
