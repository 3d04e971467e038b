"""Noticing that the machine is about to go away."""

import logging
import signal
import threading
from types import FrameType, TracebackType

import jax

logger = logging.getLogger(__name__)


class Preemption:
  """A context in which SIGTERM asks for a save instead of ending the process.

  On several hosts only some may get the signal, and a host that stops at a step
  of its own leaves the others waiting for it forever. There, JAX's coordination
  service has a handler already and finds a step that all of them still reach.
  """

  def __init__(self) -> None:
    self._asked = False
    self._previous: signal.Handlers | None = None

  def __enter__(self) -> "Preemption":
    # Only the main thread may set handlers; a notebook's worker does without.
    # And a handler of ours would take the signal away from JAX's service.
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and jax.process_count() == 1:
      previous = signal.signal(signal.SIGTERM, self._handle)
      self._previous = previous  # type: ignore[assignment]
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del number, frame
    logger.warning("SIGTERM: saving after the current step.")
    self._asked = True

  def reached(self, step: int) -> bool:
    """Say whether to save and stop after this step, the same on every host."""
    if jax.process_count() == 1:
      return self._asked
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)
