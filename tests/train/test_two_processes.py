"""Two processes joined by jax.distributed train as one does."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).parent / "two_processes.py"


def start(address, count, index, out):
  env = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
  return subprocess.Popen(
    [sys.executable, str(SCRIPT), address, str(count), str(index), str(out)],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=env,
  )


def finish(processes):
  for process in processes:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, tolerance):
  with socket.create_server(("localhost", 0)) as server:
    address = f"localhost:{server.getsockname()[1]}"
  one, two = tmp_path / "one.npy", tmp_path / "two.npy"
  finish([start(address, 1, 0, one)])
  finish([start(address, 2, index, two) for index in range(2)])
  np.testing.assert_allclose(np.load(two), np.load(one), **tolerance["same"])
