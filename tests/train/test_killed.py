"""SIGKILL at 20 random moments, against a run that nobody disturbed."""

import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = pathlib.Path(__file__).parent / "killed_run.py"


def start(folder):
  return subprocess.Popen(
    [sys.executable, str(SCRIPT), str(folder)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def final_bytes(folder):
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for name in ("bundles", "best")
    for p in sorted((folder / name).rglob("*"))
    if p.is_file()
  }


@pytest.mark.slow
def test_twenty_kills_change_no_byte(tmp_path):
  quiet = start(tmp_path / "quiet")
  _, errors = quiet.communicate(timeout=300)
  assert quiet.returncode == 0, errors

  chance = random.Random(0)
  kills, attempts = 0, 0
  while True:
    attempts += 1
    assert attempts < 60, "the run makes no progress"
    process = start(tmp_path / "killed")
    if kills < 20:
      # Some steps after the start, and then at any moment within one: steps,
      # evaluations and writes follow each other within milliseconds.
      for _ in range(chance.randint(1, 15)):
        process.stdout.readline()
      time.sleep(chance.uniform(0, 0.03))
      process.kill()
    _, errors = process.communicate(timeout=300)
    if process.returncode == -signal.SIGKILL:
      kills += 1
      continue
    assert process.returncode == 0, errors
    break
  assert kills == 20
  assert final_bytes(tmp_path / "killed") == final_bytes(tmp_path / "quiet")
