"""Processes meet, and the missing ones are named."""

import concurrent.futures
import socket

import pytest

from prompt_tuning.machine import processes
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
