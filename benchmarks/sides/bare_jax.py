"""Prompt tuning as one writes it in JAX in an afternoon, see `bare_t5`."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import bare_t5
from benchmarks.sides import work
from prompt_tuning.checkpoints import restore, sizes
from prompt_tuning.models.t5 import network


class Side:
  """The hand-written T5 with a prompt in front; weights through our restore.

  Args:
    folder: made by `making.write`.

  Attributes:
    device: what it computes on.
  """

  def __init__(self, folder: pathlib.Path):
    self.device = jax.devices()[0].device_kind
    checkpoint = restore.open_checkpoint(folder / work.MODEL)
    config = sizes.infer_config(checkpoint)
    heads, layers = config.num_heads, config.num_encoder_layers
    self.params = restore.restore(checkpoint, network.abstract_params(config))
    self.prompt = jnp.asarray(np.load(work.prompt_file(folder)))
    optimizer = optax.adam(work.RATE)
    self.state = optimizer.init(self.prompt)

    def step(prompt, state, params, batch):
      loss, gradient = jax.value_and_grad(bare_t5.prompt_loss)(
        prompt, params, batch, heads, layers
      )
      updates, state = optimizer.update(gradient, state, prompt)
      return optax.apply_updates(prompt, updates), state, loss

    self._step = jax.jit(step, donate_argnums=(0, 1))

  def step(self, text: work.Batch) -> float:
    """Train on a batch; returns the loss per target token before it."""
    batch = bare_t5.features(text, len(self.prompt))
    self.prompt, self.state, loss = self._step(
      self.prompt, self.state, self.params, batch
    )
    return float(loss)
