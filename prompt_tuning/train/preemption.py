"""Notice that this process should end, or that its machine goes away."""

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

# SIGTERM: the machine is taken away. SIGINT: Ctrl-C. SIGHUP: the terminal is
# closed.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Preemption:
  """A context in which signals ask for a save instead of ending the process.

  Signals that are ignored stay ignored, such as SIGHUP under `nohup`. A second
  Ctrl-C ends the process at once.

  Of several hosts, only some may get the signal. If a host stopped at a step of
  its own, the others would wait for it forever. JAX's coordination service
  already handles SIGTERM: it finds a step that all hosts still reach. Other
  signals are passed to it as SIGTERM.

  Attributes:
    signal: the number of the signal that came; None before. If only some hosts
      get a signal, it is SIGTERM on the others.
  """

  def __init__(self) -> None:
    self.signal: int | None = None
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> "Preemption":
    # Only the main thread may set handlers; a worker thread of a notebook has
    # none.
    if threading.current_thread() is not threading.main_thread():
      return self
    for number in _SIGNALS:
      # Our own handler would hide the signal from JAX's service.
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
      again = " Another Ctrl-C ends the program at once."
    name = signal.Signals(number).name
    logger.warning("%s: saving after the current step.%s", name, again)
    self.signal = number
    if jax.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)

  def reached(self, step: int) -> bool:
    """Say whether to save and stop after this step; all hosts agree."""
    if jax.process_count() == 1:
      return self.signal is not None
    from jax.experimental import multihost_utils

    stops = multihost_utils.reached_preemption_sync_point(step)
    if stops and self.signal is None:
      self.signal = signal.SIGTERM
    return stops


def _leave_terminal() -> None:
  """Write no more to a closed terminal; an error would prevent the save."""
  for stream in (sys.stdout, sys.stderr):
    try:
      number = stream.fileno()
      if stat.S_ISCHR(os.fstat(number).st_mode):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    except (OSError, ValueError, AttributeError):
      continue  # no file at all, as in a notebook
