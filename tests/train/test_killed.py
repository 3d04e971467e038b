"""SIGKILL at 20 random moments, against a run that nobody disturbed."""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = pathlib.Path(__file__).parent / "killed_run.py"


@contextlib.contextmanager
def server():
  """Start what makes processes; see `killed_run.serve`."""
  process = subprocess.Popen(
    [sys.executable, "-W", "ignore::RuntimeWarning", str(SCRIPT)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  with process:
    yield process
    process.stdin.close()
    assert process.wait(timeout=60) == 0


def run(makes, folder, steps=None, seconds=0.0):
  """Let one process run in a folder.

  Args:
    makes: the server.
    folder: of the run.
    steps: after so many, and some seconds, it is killed; None for never.
    seconds: see there.

  Returns:
    How it ended.
  """
  print(folder, file=makes.stdin, flush=True)
  word, number = makes.stdout.readline().split()
  assert word == "child"
  if steps is not None:
    for _ in range(steps):
      assert makes.stdout.readline() == "step\n"
    time.sleep(seconds)
    os.kill(int(number), signal.SIGKILL)
  for line in makes.stdout:
    if "ended" in line:
      return int(line.split()[-1])
  raise AssertionError("the server is gone")


def final_bytes(folder):
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for name in ("bundles", "best")
    for p in sorted((folder / name).rglob("*"))
    if p.is_file()
  }


@pytest.mark.slow
def test_twenty_kills_change_no_byte(tmp_path):
  chance = random.Random(0)
  with server() as makes:
    assert run(makes, tmp_path / "quiet") == 0
    for _ in range(20):
      # Some steps after the start, and then at any moment within one: steps,
      # evaluations and writes follow each other within milliseconds.
      moment = chance.randint(1, 15), chance.uniform(0, 0.03)
      assert run(makes, tmp_path / "killed", *moment) == -signal.SIGKILL
    assert run(makes, tmp_path / "killed") == 0
  assert final_bytes(tmp_path / "killed") == final_bytes(tmp_path / "quiet")
