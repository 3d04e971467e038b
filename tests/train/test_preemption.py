"""Signals to a process that trains, and to one of several that do together."""

import os
import pathlib
import pty
import signal
import socket
import subprocess
import sys

import pytest

from prompt_tuning.checkpoints import bundle
from prompt_tuning.train import preemption
from prompt_tuning.train.preemption import Preemption

SCRIPT = pathlib.Path(__file__).parent / "killed_run.py"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def handlers():
  return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_for_a_save(number):
  before = handlers()
  with Preemption() as asked:
    assert not asked.reached(1)
    os.kill(os.getpid(), number)
    assert asked.reached(2)
    assert asked.signal == number
  assert handlers() == before


def test_a_second_ctrl_c_ends_it():
  with Preemption() as asked:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
  assert asked.signal == signal.SIGINT


def test_what_is_ignored_stays_ignored():
  """As `nohup` has it."""
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with Preemption() as asked:
      os.kill(os.getpid(), signal.SIGHUP)
      assert not asked.reached(1)
  finally:
    signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_hinders_no_save(monkeypatch):
  """Writing to it fails, as a progress bar would before the save."""
  ours, terminal = pty.openpty()
  with open(terminal, "w") as stream:
    monkeypatch.setattr(sys, "stderr", stream)
    os.close(ours)
    with pytest.raises(OSError, match="Input/output error"):
      os.write(terminal, b"step 3")
    with Preemption() as asked:
      os.kill(os.getpid(), signal.SIGHUP)
      print("step 4", file=sys.stderr, flush=True)
    monkeypatch.undo()
  assert asked.signal == signal.SIGHUP


def test_of_several_hosts_jax_s_service_is_told(monkeypatch):
  """It knows SIGTERM, and finds a step that all of them reach."""
  told = []
  before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
  monkeypatch.setattr(preemption.jax, "process_count", lambda: 2)
  try:
    with Preemption() as asked:
      os.kill(os.getpid(), signal.SIGINT)
  finally:
    signal.signal(signal.SIGTERM, before)
  assert (told, asked.signal) == ([signal.SIGTERM], signal.SIGINT)


def start(folder, count):
  """Start processes that take every step together."""
  with socket.create_server(("localhost", 0)) as server:
    address = f"localhost:{server.getsockname()[1]}"
  env = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
  return [
    subprocess.Popen(
      [
        sys.executable,
        str(SCRIPT),
        str(folder),
        address,
        str(count),
        str(index),
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=env,
    )
    for index in range(count)
  ]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("told", "number"), [(0, signal.SIGTERM), (1, signal.SIGINT)]
)
def test_all_processes_stop_at_the_same_step(told, number, tmp_path):
  processes = start(tmp_path, 2)
  try:
    # Among the first lines are some of the processes' finding each other.
    read = [processes[told].stdout.readline() for _ in range(20)]
    processes[told].send_signal(number)
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


@pytest.mark.slow
def test_the_others_name_a_process_that_is_gone(tmp_path):
  """JAX alone takes 100 s, and then its stack trace names nobody."""
  processes = start(tmp_path, 3)
  try:
    for _ in range(20):
      processes[1].stdout.readline()
    processes[1].kill()
    ended = [process.communicate(timeout=30) for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [p.returncode for p in processes] == [75, -signal.SIGKILL, 75], ended
  for survivor in (0, 2):
    said = ended[survivor][1]
    assert "error: process 1 of 3 stopped and left no error" in said
    assert "start the same command again on all machines" in said
