"""This project's initialisers, as T5X's network calls them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from prompt_tuning.checkpoints import restore
from prompt_tuning.data import vocabulary
from prompt_tuning.jobs import setup
from prompt_tuning.tuners.initializers import Initializer, InitializerContext

_EMBEDDINGS = "token_embedder/embedding"


@dataclasses.dataclass(frozen=True)
class Start:
  """The first value of a prompt.

  T5X draws a model before it reads the checkpoint. So an initialiser that needs
  embeddings reads them from the checkpoint itself.

  Attributes:
    initializer: one of `prompt_tuning.tuners`.
    checkpoint: the frozen model, for initialisers that need its embeddings.
    task: one of this project's tasks, for initialisers that need label words.
    seed: of the draw. T5X's own default is the time of day, and its generator
      differs between kinds of hardware.
  """

  initializer: Initializer
  checkpoint: str | None = None
  task: str | None = None
  seed: int = 0

  def __call__(
    self, rng: jax.Array, shape: Sequence[int], dtype: Any
  ) -> jax.Array:
    """Make it.

    Args:
      rng: not used, see `seed`.
      shape: [P, H].
      dtype: of the result.

    Returns:
      [P, H].
    """
    del rng
    # Otherwise T5X's compiled program would contain the whole table as a
    # constant.
    with jax.ensure_compile_time_eval():
      key = jax.random.key(self.seed, impl="threefry2x32")
      return self.initializer(key, tuple(shape), dtype, self._context())

  def _context(self) -> InitializerContext:
    embeddings = None
    if self.checkpoint is not None:
      leaf = restore.open_checkpoint(self.checkpoint).params[_EMBEDDINGS]
      embeddings = leaf.read(np.dtype(np.float32))
    return InitializerContext(
      embeddings=embeddings,
      tokenize=lambda text: vocabulary.load().encode(text),
      label_words=setup.task_words(self.task) if self.task else (),
      load_prompt=lambda path: restore.open_prompt(path).values,
    )
