"""Noticing that this process is asked to end, or the machine about to go."""

import logging
import os
import signal
import stat
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

import jax

logger = logging.getLogger(__name__)

# The machine is taken away, Ctrl-C, the terminal is closed.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Preemption:
  """A context in which signals ask for a save instead of ending the process.

  Those that are ignored stay so, such as SIGHUP under `nohup`. A second Ctrl-C
  ends the process at once.

  On several hosts only some may get the signal, and a host that stops at a step
  of its own leaves the others waiting for it forever. There, JAX's coordination
  service has a handler of SIGTERM already and finds a step that all of them
  still reach; it is told of the other signals by that one.

  Attributes:
    signal: the number of the signal that came; of several hosts, SIGTERM on
      those that got none. None before.
  """

  def __init__(self) -> None:
    self.signal: int | None = None
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> "Preemption":
    # Only the main thread may set handlers; a notebook's worker does without.
    if threading.current_thread() is not threading.main_thread():
      return self
    for number in _SIGNALS:
      # A handler of ours would take the signal away from JAX's service.
      is_jaxs = number == signal.SIGTERM and jax.process_count() > 1
      if not is_jaxs and signal.getsignal(number) != signal.SIG_IGN:
        self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del frame
    again = ""
    if number == signal.SIGHUP:
      _leave_terminal()
    elif number == signal.SIGINT:
      signal.signal(number, self._previous[number])
      again = " Another Ctrl-C ends it at once."
    name = signal.Signals(number).name
    logger.warning("%s: saving after the current step.%s", name, again)
    self.signal = number
    if jax.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)

  def reached(self, step: int) -> bool:
    """Say whether to save and stop after this step, the same on every host."""
    if jax.process_count() == 1:
      return self.signal is not None
    from jax.experimental import multihost_utils

    stops = multihost_utils.reached_preemption_sync_point(step)
    if stops and self.signal is None:
      self.signal = signal.SIGTERM
    return stops


def _leave_terminal() -> None:
  """Write no more to a terminal that is gone: that would fail, and not save."""
  for stream in (sys.stdout, sys.stderr):
    try:
      number = stream.fileno()
      if stat.S_ISCHR(os.fstat(number).st_mode):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    except (OSError, ValueError, AttributeError):
      continue  # no file at all, as in a notebook
