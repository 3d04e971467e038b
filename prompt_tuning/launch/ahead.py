"""Compile the step while the weights are read."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import jax

from prompt_tuning.train.step import AbstractStep

logger = logging.getLogger(__name__)


class Compiling:
  """A step that is being compiled in a thread.

  JAX finds the program again when the step is called with such arguments. With
  others, it compiles another one then, as for any new shape.

  Args:
    described: the step and what it will be given.

  Attributes:
    program: whose step it is.
  """

  def __init__(self, described: AbstractStep):
    self.program = described.program
    self._step = jax.jit(self.program.step, donate_argnums=0)
    self._thread = threading.Thread(
      target=self._compile, args=described.arguments
    )
    self._thread.start()

  def _compile(self, *arguments: Any) -> None:
    try:
      self._step.lower(*arguments).compile()
    except Exception:
      # Whatever it is, the first call meets it too, where it can be reported.
      logger.debug("The step was not compiled ahead.", exc_info=True)

  def step(self) -> Callable[..., Any]:
    """Return the jitted step, whose state is donated, once it is compiled."""
    self._thread.join()
    return self._step
