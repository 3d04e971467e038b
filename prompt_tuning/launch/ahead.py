"""Compile the step while the weights are read."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import jax

from prompt_tuning.core.partition import TRAIN
from prompt_tuning.launch import host_kernels
from prompt_tuning.train.step import AbstractStep, Program

logger = logging.getLogger(__name__)


def jitted(program: Program) -> Callable[..., Any]:
  """Jit a program's step, which takes the place of its state, for this machine.

  Args:
    program: whose step.

  Returns:
    See `Program.step`.
  """
  leaves = program.partition.leaves
  largest = max((a.size for a in leaves if a.mode == TRAIN), default=0)
  options = host_kernels.step_options(largest)
  step: Callable[..., Any] = jax.jit(
    program.step, donate_argnums=0, compiler_options=options
  )
  return step


class Compiling:
  """A step that is being compiled in a thread.

  Called with such arguments, it runs that program, which JAX keeps in memory.
  Others have another one compiled then, as any new shape. The process cannot
  end before the thread does.

  Args:
    described: the step and what it will be given.

  Attributes:
    program: whose step it is.
  """

  def __init__(self, described: AbstractStep):
    self.program = described.program
    self._step: Any = jitted(self.program)
    self._thread = threading.Thread(
      target=self._compile, args=described.arguments
    )
    self._thread.start()

  def _compile(self, *arguments: Any) -> None:
    try:
      self._step.lower(*arguments).compile()
    except Exception:
      # What is wrong with the step, its first call meets too.
      logger.warning("The step was not compiled ahead.", exc_info=True)

  def __call__(self, *arguments: Any) -> Any:
    """Take a step, see `Program.step`; the first waits for the program."""
    self._thread.join()
    return self._step(*arguments)
