"""The jitted step, and its compilation while weights are read."""

import logging
import math
import threading
from collections.abc import Mapping
from typing import Any

import jax

from prompt_tuning.core.partition import TRAIN
from prompt_tuning.machine import kernels, memory
from prompt_tuning.train.errors import UnreachedError
from prompt_tuning.train.step import AbstractStep, StepProgram

logger = logging.getLogger(__name__)


class Jitted:
  """A program's jitted step, compiled to suit the batch and the machine.

  Args:
    program: the program; its step overwrites its state in place.

  Attributes:
    peak_bytes: most bytes that a step so far needs on one device, arguments
      included, as the compiler counts; None before the first step.
  """

  peak_bytes: int | None

  def __init__(self, program: StepProgram):
    self._program = program
    leaves = program.partition.leaves
    trained = (leaf.size for leaf in leaves if leaf.mode == TRAIN)
    self._largest = max(trained, default=0)
    self._ways: dict[tuple[tuple[str, str], ...], Any] = {}
    self._measured: set[tuple[tuple[int, ...], ...]] = set()
    self.peak_bytes = None

  def suited(self, batch: Mapping[str, Any]) -> Any:
    """Return the jitted step for a batch, or for a description of one."""
    positions = math.prod(batch["encoder_input_tokens"].shape)
    positions //= self._program.num_microbatches
    options = kernels.step_options(positions, self._largest)
    way = tuple(sorted(options.items()))
    if way not in self._ways:
      self._ways[way] = jax.jit(
        self._program.step, donate_argnums=0, compiler_options=dict(options)
      )
    return self._ways[way]

  def __call__(self, state: Any, frozen: Any, batch: Mapping[str, Any]) -> Any:
    """Take a step, see `StepProgram.step`."""
    step = self.suited(batch)
    shapes = tuple(batch[name].shape for name in sorted(batch))
    if shapes not in self._measured:
      self._measured.add(shapes)
      # The call below takes this program from JAX's memory.
      self._measure(step.lower(state, frozen, batch).compile())
    return step(state, frozen, batch)

  def _measure(self, compiled: Any) -> None:
    stats = compiled.memory_analysis()
    if stats is None:  # not all compilers tell
      return
    needed = stats.peak_memory_in_bytes
    kept = stats.argument_size_in_bytes + stats.output_size_in_bytes
    if needed <= kept:  # XLA for CPU leaves temporaries out
      needed = kept - stats.alias_size_in_bytes + stats.temp_size_in_bytes
    self.peak_bytes = max(self.peak_bytes or 0, needed)


class Compiling:
  """A step that a thread compiles.

  If it is called with arguments as described, it runs the program that the
  thread compiled and that JAX keeps in memory. For other arguments it compiles
  another program, as for any new shape. The process cannot end before the
  thread does.

  Args:
    described: the step and a description of its arguments.

  Attributes:
    program: the program whose step it is.
  """

  def __init__(self, described: AbstractStep):
    self.program = described.program
    self._step = Jitted(self.program)
    self._thread = threading.Thread(
      target=self._compile, args=described.arguments
    )
    self._thread.start()

  def _compile(self, state: Any, frozen: Any, batch: Any) -> None:
    try:
      self._step.suited(batch).lower(state, frozen, batch).compile()
    except UnreachedError as error:
      logger.debug("%s", error)  # the first call raises it again
    except Exception as error:
      # If the step has an error, its first call raises the same error.
      if memory.is_exhausted(error):
        return
      logger.warning("The step was not compiled before the run.", exc_info=True)

  @property
  def peak_bytes(self) -> int | None:
    """See `Jitted`."""
    return self._step.peak_bytes

  def __call__(self, *arguments: Any) -> Any:
    """Take a step, see `StepProgram.step`; the first waits for the program."""
    self._thread.join()
    return self._step(*arguments)
