"""Signals to `prompt-tuning train` itself, on the real pipeline."""

import random
import signal
import subprocess
import sys
import time

import pytest

from prompt_tuning.checkpoints import bundle
from prompt_tuning.core import files

STEP = 1_100_000
KEPT = ("bundles", "best", "exports")
ARRAYS = (".safetensors", ".npy")


def start(flags):
  return subprocess.Popen(
    [sys.executable, "-m", "prompt_tuning.launch.train", *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def ends(process):
  """Wait for the end; returns its status and what was printed."""
  output, _ = process.communicate(timeout=300)
  return process.returncode, output


def saved(folder):
  """The newest step that a bundle holds; 0 before the first."""
  return max(bundle.steps(files.path(folder) / "bundles"), default=0)


def kept(folder):
  root = files.path(folder)
  return {
    name: (root / name).read_bytes()
    for name in sorted(files.names_below(root))
    if name.startswith(KEPT)
  }


def arrays(tree):
  return {n: data for n, data in tree.items() if n.endswith(ARRAYS)}


@pytest.fixture(scope="module")
def flags(train_flags):
  """Shuffled buckets, dropout, evaluation, best prompts, in a folder."""

  def flags(folder):
    return train_flags(
      folder,
      "--gin.SEEDS=(0, 1)",
      "--gin.PROMPT_LENGTH=3",
      "--gin.DROPOUT_RATE=0.1",
      "--gin.BATCHING='buckets'",
      f"--gin.TRAIN_STEPS={STEP + 40}",
      "--gin.EVAL_PERIOD=10",
      "--gin.CHECKPOINT_PERIOD=2",
    )

  return flags


@pytest.fixture(scope="module")
def folder_here(tmp_path_factory):
  return tmp_path_factory.mktemp("killed") / "run"


@pytest.fixture(scope="module")
def whole(flags, folder_here):
  """What a run keeps that nobody disturbed."""
  status, output = ends(start(flags(folder_here)))
  assert status == 0, output
  # Bundles name the folder: a second run must lie where the first one did.
  folder_here.rename(folder_here.with_name("whole"))
  return kept(folder_here.with_name("whole"))


# SIGKILL on a disk: see tests/jobs/test_every_operation.py.
@pytest.mark.slow
@pytest.mark.parametrize(
  ("place", "sent"), [("disk", signal.SIGTERM), ("gs", signal.SIGKILL)]
)
def test_a_kill_changes_no_byte_of_what_is_kept(
  place, sent, flags, folder_here, whole, request
):
  folder = folder_here
  if place != "disk":
    folder = request.getfixturevalue(place).folder()
  process = start(flags(folder))
  deadline = time.monotonic() + 240
  while saved(folder) < 4 and process.poll() is None:
    assert time.monotonic() < deadline, "the run makes no progress"
    time.sleep(0.05)
  time.sleep(random.uniform(0, 0.05))
  process.send_signal(sent)
  status, output = ends(process)
  if sent == signal.SIGKILL:
    assert status == -signal.SIGKILL, output
  else:  # saved, and not done
    assert status == 128 + sent, output
    assert output.endswith("The same command continues it.\n")
  assert 0 < saved(folder) < 40
  status, output = ends(start(flags(folder)))
  assert status == 0, output
  there = kept(folder)
  assert arrays(there) == arrays(whole)
  assert there.keys() == whole.keys()
  if place == "disk":
    assert there == whole
