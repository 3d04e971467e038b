"""One writer per folder, whatever became of the others."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from prompt_tuning.core import sole_writer

ELSEWHERE = {"host": "elsewhere", "pid": 7, "since": "2026-01-01", "signs": 3}
_SCRIPT = """
import sys, time
from prompt_tuning.core import sole_writer
sole_writer.SIGN = 0.02
with sole_writer.hold(sys.argv[1], "MODEL_DIR"):
  print("held", flush=True)
  time.sleep(600)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
  monkeypatch.setattr(sole_writer, "SIGN", 0.04)
  monkeypatch.setattr(sole_writer, "WATCH", 0.5)


@contextlib.contextmanager
def another(folder):
  """Let another process hold a folder."""
  process = subprocess.Popen(
    [sys.executable, "-c", _SCRIPT, str(folder)],
    stdout=subprocess.PIPE,
    text=True,
  )
  with process:
    try:
      assert process.stdout.readline() == "held\n"
      yield process
    finally:
      process.kill()


def held(folder):
  """Hold a folder for a moment."""
  with sole_writer.hold(folder, "MODEL_DIR"):
    about = json.loads((folder / sole_writer.FILE).read_bytes())
    assert (about["host"], about["pid"]) == (socket.gethostname(), os.getpid())
  assert not (folder / sole_writer.FILE).exists()


def test_a_living_writer_is_named_and_a_dead_ones_place_taken(tmp_path):
  with another(tmp_path) as process:
    for _ in range(2):
      with pytest.raises(ValueError, match="choose another MODEL_DIR") as error:
        held(tmp_path)
      who = f"process {process.pid} on host {socket.gethostname()}"
      assert (
        f"MODEL_DIR {tmp_path} is in use: {who} writes to it, since 20"
        in (str(error.value))
      )
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / sole_writer.FILE).exists()
    (tmp_path / "manifest.tmp-0123abcd").write_text("half")
    (tmp_path / "notes.tmp-mine").write_text("the user's")
    held(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.tmp-mine"]


def test_it_may_be_nested_but_not_in_another_thread(tmp_path):
  refused = []

  def elsewhere():
    try:
      held(tmp_path)
    except ValueError as error:
      refused.append(str(error))

  with sole_writer.hold(tmp_path, "MODEL_DIR"):
    with sole_writer.hold(tmp_path / ".", "MODEL_DIR"):
      pass
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    sole_writer.insist(tmp_path)
  assert "is in use" in refused[0]
  held(tmp_path)


def on_another_machine(folder, thread_stops):
  """Write what a writer there would, with signs of life until it stops."""
  path = folder / sole_writer.FILE
  path.write_text(json.dumps(ELSEWHERE))

  def live():
    signs = 0
    while not thread_stops.wait(0.02):
      signs += 1
      path.write_text(json.dumps({**ELSEWHERE, "signs": signs}))

  return threading.Thread(target=live)


def test_a_living_writer_on_another_machine_is_refused(tmp_path):
  stops = threading.Event()
  thread = on_another_machine(tmp_path, stops)
  thread.start()
  try:
    with pytest.raises(ValueError, match="process 7 on host elsewhere writes"):
      held(tmp_path)
  finally:
    stops.set()
    thread.join()
  assert (tmp_path / sole_writer.FILE).exists()


def test_a_dead_writer_on_another_machine_is_watched_first(tmp_path, caplog):
  on_another_machine(tmp_path, threading.Event())
  held(tmp_path)
  assert "process 7 on host elsewhere may still be writing" in caplog.text


def test_a_disk_without_locks(tmp_path, monkeypatch):
  def none(descriptor, how):
    raise OSError(errno.ENOTSUP, "Operation not supported")

  monkeypatch.setattr(fcntl, "flock", none)
  with another(tmp_path) as process:
    there = json.loads((tmp_path / sole_writer.FILE).read_bytes())
    with pytest.raises(ValueError, match=f"process {process.pid} on host"):
      held(tmp_path)
  assert there["pid"] == process.pid
  held(tmp_path)


def test_a_writer_that_lost_its_place_writes_no_more(tmp_path):
  with sole_writer.hold(tmp_path, "MODEL_DIR"):
    path = tmp_path / sole_writer.FILE
    path.unlink()
    path.write_text(json.dumps(ELSEWHERE))
    with pytest.raises(ValueError, match="process 7 on host elsewhere took"):
      sole_writer.insist(tmp_path)
  assert json.loads(path.read_bytes()) == ELSEWHERE


def test_a_folder_that_was_removed_is_not_said_to_be_another_writer_s(tmp_path):
  with sole_writer.hold(tmp_path, "MODEL_DIR"):
    (tmp_path / sole_writer.FILE).unlink()
    with pytest.raises(ValueError, match=r"writer.json is gone: something rem"):
      sole_writer.insist(tmp_path)
