"""What training raises; importing it costs nothing."""

import signal


class DivergedError(RuntimeError):
  """The loss of every run is no longer a finite number."""


class UnreachedError(ValueError):
  """What should train has no gradient."""


class UnknownTargetError(ValueError):
  """Examples have targets that are no class's word."""


class DeadComponentError(ValueError):
  """A component of a mixture has no weight any more."""


class StoppedError(RuntimeError):
  """Training was asked to stop by a signal, and has saved what it is at.

  Attributes:
    status: of the process, as a shell tells of one that a signal ended: 143 for
      SIGTERM, 130 for Ctrl-C, 129 for a closed terminal.
  """

  def __init__(self, number: int, ending: str) -> None:
    """Say what happened.

    Args:
      number: of the signal.
      ending: after how many steps.
    """
    name = signal.Signals(number).name
    super().__init__(f"{ending} by {name}. The same command continues it.")
    self.status = 128 + number
