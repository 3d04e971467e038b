"""SIGTERM to one of two processes that take every step together."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from prompt_tuning.checkpoints import bundle

SCRIPT = pathlib.Path(__file__).parent / "killed_run.py"


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_all_processes_stop_at_the_same_step(told, tmp_path):
  with socket.create_server(("localhost", 0)) as server:
    address = f"localhost:{server.getsockname()[1]}"
  env = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
  processes = [
    subprocess.Popen(
      [sys.executable, str(SCRIPT), str(tmp_path), address, "2", str(index)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=env,
    )
    for index in range(2)
  ]
  try:
    # Among the first lines are some of the processes' finding each other.
    read = [processes[told].stdout.readline() for _ in range(20)]
    processes[told].send_signal(signal.SIGTERM)
    ended = [process.communicate(timeout=120) for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0, 0], ended
  _, last = bundle.read_latest(tmp_path / "bundles")
  assert 10 < last.manifest["step"] < 400
  done = [out.splitlines().count("step") for out, _ in ended]
  done[told] += read.count("step\n")
  assert done == [last.manifest["step"]] * 2
