"""Processes meet, and the missing ones are named."""

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import time
import types

import pytest

from prompt_tuning.machine import processes, watch
from prompt_tuning.machine.processes import Distributed


@pytest.fixture
def address():
  with socket.create_server(("localhost", 0)) as server:
    port = server.getsockname()[1]
  return f"localhost:{port}"


def meet_all(address, count, indices, timeout):
  """Run `meet` of some processes in threads; returns their errors."""

  def meet(*args):
    for line in processes.meet(*args).values():
      line.close()

  with concurrent.futures.ThreadPoolExecutor() as pool:
    calls = [
      pool.submit(meet, address, count, index, timeout) for index in indices
    ]
    return [call.exception() for call in calls]


def test_all_come(address):
  assert meet_all(address, 4, [2, 0, 3, 1], 20) == [None] * 4


def test_the_missing_one_is_named_everywhere(address):
  errors = meet_all(address, 4, [0, 1, 3], 1.5)
  for error in errors:
    assert isinstance(error, processes.MissingHostError)
    assert "1 of 4 processes did not come" in str(error)
    assert "process 2." in str(error)
    assert "--process_index=2" in str(error)


def test_a_missing_coordinator_is_named(address):
  (error,) = meet_all(address, 2, [1], 1)
  assert isinstance(error, processes.MissingHostError)
  assert f"no coordinator (process 0) at {address}" in str(error)


def test_strangers_on_the_port_do_no_harm(address):
  host, _, port = address.rpartition(":")

  def bother():
    for data in (
      b"GET / HTTP/1.1\r\n\r\n",
      b'{"process_index": 99}\n',
      b"[]\n",
    ):
      for _ in range(50):
        try:
          with socket.create_connection((host, int(port)), 1) as line:
            line.sendall(data)
          break
        except OSError:
          pass

  with concurrent.futures.ThreadPoolExecutor() as pool:
    stranger = pool.submit(bother)
    errors = meet_all(address, 3, [0, 1, 2], 30)
    stranger.result()
  assert errors == [None] * 3


@pytest.mark.parametrize(
  "settings",
  [
    Distributed("localhost:1", None, 0, 5, True),
    Distributed("localhost:1", 2, 2, 5, True),
    Distributed("nowhere", 2, 0, 5, True),
  ],
)
def test_contradictions_are_refused(settings):
  with pytest.raises(ValueError, match="--coordinator_address"):
    processes.join(settings)


def test_one_process_joins_nothing():
  processes.join(Distributed())
  assert processes.all_come("alone")


_WAITS = """
import sys, time
from prompt_tuning.machine import processes
processes.join(processes.Distributed(requested=True))
processes._MEETING_S = 5  # two that share a core come late
print("joined", processes.all_come("to one place"), flush=True)
if sys.argv[1] == "0":
  print(processes.all_come("to another"), flush=True)
time.sleep(600)
"""


def start(index, port):
  """Start a process of a job that JAX finds by itself: Slurm's, of two."""
  first = 65_535 - 2**12 + 1  # the ports that JAX takes, by the job's number
  environment = {
    **os.environ,
    "SLURM_JOB_ID": str(port - first),
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": str(index),
    "SLURM_LOCALID": str(index),
  }
  return subprocess.Popen(
    [sys.executable, "-c", _WAITS, str(index)],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def free_port(first):
  """Find a port that nobody uses, from `first` on."""
  for port in range(first, 65_535):
    try:
      with socket.create_server(("localhost", port)):
        return port
    except OSError:
      pass
  raise AssertionError("no free port")


def test_processes_that_jax_finds_are_watched():
  """They say, too, which of them come to a place."""
  port = free_port(62_000 + os.getpid() % 3_000)
  both = [start(index, port) for index in (0, 1)]
  try:
    for process in both:
      said = process.stdout.readline()
      assert said == "joined True\n", process.stderr.read()
    assert both[0].stdout.readline() == "False\n"
    both[1].kill()
    killed = time.monotonic()
    _, text = both[0].communicate(timeout=60)
    assert time.monotonic() - killed < 10
    assert both[0].returncode == watch.LOST
    assert "error: process 1 of 2 stopped and left no error: it was" in text
  finally:
    for process in both:
      process.send_signal(signal.SIGKILL)
      process.communicate()


def test_a_job_goes_on_where_it_cannot_be_watched(monkeypatch, caplog):
  """Another version of JAX may keep elsewhere what it knows."""
  from jax._src import distributed

  job = types.SimpleNamespace(num_processes=2, process_id=0, client=None)
  monkeypatch.setattr(distributed, "global_state", job)
  processes._watch_job()
  assert processes._watch is None
  assert "cannot watch each other" in caplog.text
  assert "after 100 s" in caplog.text


def test_a_process_that_is_missing_stops_no_job(monkeypatch, caplog):
  from jax._src import distributed

  told = {}
  client = types.SimpleNamespace(key_value_set=told.__setitem__)
  job = types.SimpleNamespace(num_processes=2, process_id=0, client=client)
  monkeypatch.setattr(distributed, "global_state", job)
  monkeypatch.setattr(processes, "_MEETING_S", 0.05)
  processes._watch_job()
  assert told["prompt_tuning/port_of_watch"].isdecimal()
  assert "each other (process 1). If one" in caplog.text
