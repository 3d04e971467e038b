"""Errors of training; this module imports fast."""

import signal


class DivergedError(RuntimeError):
  """The loss of every run is no longer a finite number."""


class UnreachedError(ValueError):
  """A parameter that should train has no gradient."""


class UnknownTargetError(ValueError):
  """Examples have targets that are not words of any class."""


class DeadComponentError(ValueError):
  """A component of a mixture has no weight any more."""


class StoppedError(RuntimeError):
  """A signal asked training to stop; training has saved its state.

  Attributes:
    number: of the signal.
    ending: after how many steps.
    status: exit status of the process, as shells report it after a signal: 143
      for SIGTERM, 130 for Ctrl-C, 129 for a closed terminal.
  """

  def __init__(
    self,
    number: int,
    ending: str,
    continuation: str = "The same command continues it.",
  ) -> None:
    """Say what happened.

    Args:
      number: of the signal.
      ending: after how many steps.
      continuation: a sentence that says how to go on.
    """
    name = signal.Signals(number).name
    super().__init__(f"{ending} by {name}. {continuation}")
    self.number, self.ending = number, ending
    self.status = 128 + number
