"""Prompt tuning by this project: its step, its restore, its decoding."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.sides import work
from prompt_tuning.checkpoints import bundle as bundles
from prompt_tuning.checkpoints import restore, sizes
from prompt_tuning.core import partition, tree
from prompt_tuning.infer import programs
from prompt_tuning.launch import backbone
from prompt_tuning.models.t5 import decoding, network
from prompt_tuning.train import objectives, optimizers, state
from prompt_tuning.train.step import Program
from prompt_tuning.tuners import bank, initializers, prompt


class Side:
  """A restored model, one prompt, a jitted step.

  Args:
    folder: made by `making.write`.
  """

  def __init__(self, folder: pathlib.Path):
    values = np.load(work.prompt_file(folder))
    checkpoint = restore.open_checkpoint(folder / work.MODEL)
    given = dataclasses.replace(
      sizes.infer_config(checkpoint), dropout_rate=0.0
    )
    restored = backbone.load(checkpoint, given, None, (), "float32")
    self.config, params = restored.config, restored.params
    self.length = len(values)
    tuner = prompt.Prompt(
      self.config.emb_dim,
      encoder_length=self.length,
      encoder_init=initializers.UNIFORM_PAPER,
    )
    context = initializers.Context(params["token_embedder"]["embedding"])
    drawn = bank.init_bank([tuner], [jax.random.key(0)], [context]).params
    start = jax.tree.map(lambda _: jnp.asarray(values)[None], drawn)
    whole = {"model": params, "tuner": start}
    parts = partition.build(partition.TUNER_ONLY, whole)
    trainable, self.frozen = parts.split(whole)
    optimizer = optimizers.bank_optimizer(
      optimizers.Optax("adam"), [work.RATE], start_step=0
    )
    model = network.T5(self.config)
    self.program = Program(
      forward=lambda p, b, d, k: model.apply({"params": p}, b, d, k),
      produce=functools.partial(bank.apply_bank, tuner),
      partition=parts,
      objective=objectives.CrossEntropy(
        z_loss=0.0, loss_normalizing_factor="NUM_REAL_TARGET_TOKENS"
      ),
      optimizer=optimizer,
      dropout=False,
    )
    fresh = state.create(trainable, optimizer, [0])
    # Bound to the device, as `launch.assembly` does.
    self.state = jax.tree.map(lambda a: jax.device_put(a, a.sharding), fresh)
    self._step = jax.jit(self.program.step, donate_argnums=0)

  def batch(self, text: work.Batch) -> dict[str, np.ndarray]:
    """Put the virtual tokens in front, the start token before the targets.

    A batch of the project's own pipeline has them already.
    """
    if "encoder_input_tokens" in text:
      return dict(text)
    inputs, targets = text["inputs"], text["targets"]
    virtual = self.config.vocab_size + np.arange(self.length, dtype=np.int32)
    virtual = np.broadcast_to(virtual, (len(inputs), self.length))
    return {
      "encoder_input_tokens": np.concatenate([virtual, inputs], axis=1),
      "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
      "decoder_target_tokens": targets,
    }

  def step(self, text: work.Batch) -> float:
    """Train on a batch; returns the loss per target token before it."""
    batch = self.batch(text)
    self.state, metrics = self._step(self.state, self.frozen, batch)
    return float(metrics.sums["loss"][0] / metrics.sums["weights"][0])

  def decode(self, text: work.Batch, length: int) -> np.ndarray:
    """Decode greedily: [B, S] ids."""
    params = self.program.partition.merge(self.state.trainable, self.frozen)
    delta = self.program.produce(params["tuner"])
    program = programs.decoder(self.config, decoding.Greedy(), length, None)
    tokens = self.batch(text)["encoder_input_tokens"]
    batch = {
      "encoder_input_tokens": tokens,
      "seed": np.int32(0),
      "numbers": np.arange(len(tokens), dtype=np.int32),
    }
    return np.asarray(program(params["model"], delta, batch).tokens[:, 0])

  def save(self, folder: pathlib.Path) -> None:
    """Write a bundle that training can go on from."""
    arrays = bundles.to_host(tree.flatten(self.state.trainable))
    resume = bundles.to_host(optimizers.flatten_state(self.state.opt_state))
    bundles.write(folder, bundles.Bundle({"run": {}}, arrays, resume))
