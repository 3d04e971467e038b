"""A process of several that is gone is named by the others, at once."""

import queue
import socket
import threading

import pytest

from prompt_tuning.machine import processes, watch
from prompt_tuning.machine.watch import Watch


def connected():
  """Make both ends of a connection."""
  with socket.create_server(("localhost", 0)) as server:
    caller = socket.create_connection(server.getsockname())
    return server.accept()[0], caller


@pytest.fixture
def job():
  """Three processes of a job, as threads; what each of them ends with."""
  ends = [queue.Queue() for _ in range(3)]
  pairs = {index: connected() for index in (1, 2)}
  lines = [
    {index: pair[0] for index, pair in pairs.items()},
    {0: pairs[1][1]},
    {0: pairs[2][1]},
  ]
  watches = [
    Watch(lines[index], index, 3, ends[index].put) for index in range(3)
  ]
  yield watches, lines, ends
  for one in watches:
    one.leave()
  for one in watches:
    if one.ident:
      one.join()
    for line in lines[watches.index(one)].values():
      line.close()


def message(ended):
  return ended.get(timeout=10)


@pytest.mark.parametrize("lost", [1, 2])
def test_one_is_gone(job, lost):
  watches, lines, ends = job
  survivors = [index for index in range(3) if index != lost]
  for index in survivors:
    watches[index].start()
  lines[lost][0].close()  # as the kernel does for a process that was killed
  for index in survivors:
    said = message(ends[index])
    assert said.startswith(f"process {lost} of 3 stopped and left no error: ")
    assert f"Process {index} cannot go on without it, and stops." in said
    assert f"Read the log of process {lost}, then start the same" in said


def test_process_0_is_gone(job):
  watches, lines, ends = job
  for index in (1, 2):
    watches[index].start()
    lines[0][index].close()
  for index in (1, 2):
    assert message(ends[index]).startswith("process 0 of 3 stopped")


def test_whoever_says_goodbye_is_not_missed(job):
  watches, lines, ends = job
  for one in watches:
    one.start()
  watches[1].leave()
  watches[0].join(0.1)
  assert watches[0].is_alive()  # there still is process 2
  lines[2][0].shutdown(socket.SHUT_RDWR)
  assert message(ends[0]).startswith("process 2 of 3 stopped")
  assert ends[1].empty()


def test_an_error_is_told_after_a_moment(job, monkeypatch):
  monkeypatch.setattr(watch, "GRACE_S", 0.05)
  watches, _, ends = job
  for one in watches:
    one.start()
  watches[2].leave("no space left")
  for index in (0, 1):
    said = message(ends[index])
    assert said.startswith("process 2 of 3 ended with an error: no space left.")
  assert ends[2].empty()


def test_the_same_error_everywhere_is_each_ones_own(job):
  """While the others' moment lasts, they say it themselves."""
  watches, _, ends = job
  for one in watches:
    one.start()
  for one in watches:
    one.leave("no such file")
  for one in watches:
    one.join(5)
  assert not any(one.is_alive() for one in watches)
  assert all(ended.empty() for ended in ends)


def test_one_error_is_not_said_twice(job, monkeypatch):
  """An error may be a list of failures that fills a screen."""
  monkeypatch.setattr(watch, "GRACE_S", 0.05)
  watches, _, ends = job
  watches[0].start()
  watches[2].leave("3 cells failed")
  message(ends[0])
  monkeypatch.setattr(processes, "_watch", watches[0])
  assert processes.settle("3 cells failed") == (
    "process 2 ended with the same error."
  )
  other = processes.settle("no space left")
  assert other.startswith("process 2 of 3 ended with an error: 3 cells failed.")


def test_damaged_messages_are_a_lost_process(job):
  watches, lines, ends = job
  watches[0].start()
  lines[1][0].sendall(b'{"by')
  watches[0].join(0.1)
  assert watches[0].is_alive()  # it may still be on its way
  lines[1][0].sendall(b'}"\n')
  assert message(ends[0]).startswith("process 1 of 3 stopped")


def test_machines_that_fall_silent_are_asked():
  line, caller = connected()
  with caller, line:
    Watch({1: line}, 0, 2)
    asked = line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    idle, pause, times = (
      line.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
      for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    )
  assert asked
  assert idle + pause * times <= 60


def test_no_thread_is_left(job):
  watches, _, _ = job
  before = threading.active_count()
  for one in watches:
    one.start()
  for one in watches:
    one.leave()
  for one in watches:
    one.join(5)
  assert threading.active_count() == before
