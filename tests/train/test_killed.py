"""SIGKILL at 20 random moments, against a run that nobody disturbed."""

import contextlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from prompt_tuning.core import files

HOSTS = 4
KILLS_OF_HOSTS = 1  # ten were tried by hand
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


def run(makes, folder, steps=None, seconds=0.0, together=(), victim=0):
  """Let processes run in a folder.

  Args:
    makes: the server.
    folder: of the run.
    steps: after so many, and some seconds, one is killed; None for never.
    seconds: see there.
    together: address and number of several processes; one alone without.
    victim: which of them is killed.

  Returns:
    How each ended.
  """
  print(folder, *together, file=makes.stdin, flush=True)
  # A child may be faster than the line that tells of it.
  seen, numbers = 0, None
  while numbers is None:
    line = makes.stdout.readline()
    seen += "step" in line
    if line.startswith("children"):
      numbers = list(map(int, line.split()[1:]))
  if steps is not None:
    while seen < steps:
      line = makes.stdout.readline()
      assert line, "the server is gone"
      seen += "step" in line  # Gloo says things, too
    time.sleep(seconds)
    os.kill(numbers[victim], signal.SIGKILL)
  for line in makes.stdout:
    if line.startswith("ended"):
      return list(map(int, line.split()[1:]))
  raise AssertionError("the server is gone")


def final_bytes(folder):
  root = files.path(folder)
  return {
    f"{name}/{below}": (root / name / below).read_bytes()
    for name in ("bundles", "best")
    for below in sorted(files.names_below(root / name))
  }


@pytest.mark.slow
def test_twenty_kills_change_no_byte(tmp_path):
  chance = random.Random(0)
  with server() as makes:
    assert run(makes, tmp_path / "quiet") == [0]
    for _ in range(20):
      # Some steps after the start, and then at any moment within one: steps,
      # evaluations and writes follow each other within milliseconds.
      moment = chance.randint(1, 15), chance.uniform(0, 0.03)
      assert run(makes, tmp_path / "killed", *moment) == [-signal.SIGKILL]
    assert run(makes, tmp_path / "killed") == [0]
  assert final_bytes(tmp_path / "killed") == final_bytes(tmp_path / "quiet")


@pytest.mark.slow
def test_one_of_four_processes_is_killed(tmp_path, gs):
  """The others end, and all of them go on; in a bucket, for once."""
  chance, folder = random.Random(0), gs.folder()

  def together():
    with socket.create_server(("localhost", 0)) as listening:
      return f"localhost:{listening.getsockname()[1]}", str(HOSTS)

  with server() as makes:
    assert run(makes, tmp_path / "quiet", together=together()) == [0] * HOSTS
    for _ in range(KILLS_OF_HOSTS):
      victim = chance.randrange(HOSTS)
      moment = HOSTS * chance.randint(1, 4), chance.uniform(0, 0.03)
      ended = run(makes, folder, *moment, together(), victim=victim)
      assert ended.pop(victim) == -signal.SIGKILL
      assert all(ended), "nobody goes on alone"
    assert run(makes, folder, together=together()) == [0] * HOSTS
  assert final_bytes(folder) == final_bytes(tmp_path / "quiet")
