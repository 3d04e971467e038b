"""What training raises; importing it costs nothing."""


class DivergedError(RuntimeError):
  """The loss of every run is no longer a finite number."""
