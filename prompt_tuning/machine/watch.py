"""Notice at once that a process of a job is gone, and say which.

The connections of `processes` stay open. A process that ends says goodbye on
them; a killed one, or one that loses its machine, does not. The others would
wait for it in a step that never finishes, so they end, with a message. Without
this, JAX's service needs 100 s, and ends them with a stack trace.
"""

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

# Exit status of a process that lost another one: start all processes again.
LOST = os.EX_TEMPFAIL  # 75
# Seconds to wait after another process's error: often this process has the same
# error.
GRACE_S = 5.0
# The kernel probes silent connections even while this process computes. It
# notices a lost machine within 45 s.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


def end_process(message: str) -> None:
  """End this process, even if other threads wait."""
  print(f"error: {message}", file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(LOST)


class Watch(threading.Thread):
  """Listens to the other processes of a job until this one ends.

  Process 0 has a connection to every other process, and tells them who is gone.
  The others have one connection, to process 0.

  Attributes:
    status: exit status of this process if it fails; None if it does not.
    lost: number of a process that is gone.
    error: the error with which it ended; None if it left none.
    heard: message about it.
  """

  def __init__(
    self,
    lines: Mapping[int, socket.socket],
    index: int,
    count: int,
    end: Callable[[str], None] = end_process,
  ):
    """Take connections over.

    Args:
      lines: process index -> connection.
      index: of this process.
      count: processes of the job.
      end: ends this process with a message.
    """
    super().__init__(name="watch of the other processes", daemon=True)
    self._lines = dict(lines)
    self._index = index
    self._count = count
    self._end = end
    self._is_leaving = threading.Event()
    self.status: int | None = None
    self.lost: int | None = None
    self.error: str | None = None
    self.heard: str | None = None
    for line in self._lines.values():
      _keep_alive(line)

  def run(self) -> None:
    """Listen until all others have said goodbye, or one of them is gone."""
    with selectors.DefaultSelector() as selector:
      for index, line in self._lines.items():
        selector.register(line, selectors.EVENT_READ, (index, bytearray()))
      while selector.get_map() and not self._is_leaving.is_set():
        for key, _ in selector.select(timeout=0.5):
          index, unread = key.data
          message = _hear(self._lines[index], unread)
          if message is None:  # not complete yet
            continue
          selector.unregister(key.fileobj)
          if "bye" not in message:
            lost = message.get("lost", index)
            self._lose(lost, message.get("error"))
            return

  def _lose(self, lost: int, error: str | None) -> None:
    """Tell the others, and end."""
    if self._is_leaving.is_set():
      return
    self._tell({"lost": lost, "error": error})
    self.lost, self.error = lost, error
    why = (
      f"ended with an error: {error}"
      if error is not None
      else "stopped and left no error: it was killed, or its machine is down"
    )
    self.heard = (
      f"process {lost} of {self._count} {why}. Process {self._index} cannot go "
      f"on without it, and stops. Read the log of process {lost}, then start "
      "the same command again on all machines: it continues from what was "
      "saved."
    )
    # Often this process has the same error, and then reports it itself.
    if error is None or not self._is_leaving.wait(GRACE_S):
      self._end(self.heard)

  def leave(self, error: str | None = None) -> None:
    """Say goodbye; after an error, the other processes end too.

    Args:
      error: why this process ends before the job does.
    """
    self._is_leaving.set()
    if error is None:
      self._tell({"bye": True})
    else:
      self._tell({"lost": self._index, "error": error})

  def _tell(self, message: Mapping[str, Any]) -> None:
    for line in self._lines.values():
      with contextlib.suppress(OSError):
        line.sendall(json.dumps(message).encode() + b"\n")


def _hear(line: socket.socket, unread: bytearray) -> dict[str, Any] | None:
  """Read a message; None if it is not complete yet, {} at the end."""
  data = b""
  with contextlib.suppress(OSError):
    data = line.recv(1 << 16)
  unread += data
  text, newline, _ = unread.partition(b"\n")
  if not newline:
    return None if data else {}
  try:
    message = json.loads(text)
  except ValueError:
    return {}
  return message if isinstance(message, dict) else {}


def _keep_alive(line: socket.socket) -> None:
  line.settimeout(None)
  line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
  for name, value in _KEEPALIVE.items():
    if hasattr(socket, name):  # not on every system
      line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
