"""Tuning by this project: its step, its restore, its decoding."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.sides import methods, work
from prompt_tuning.checkpoints import backbone, restore, sizes
from prompt_tuning.checkpoints import bundle as bundles
from prompt_tuning.core import axes, partition, tree
from prompt_tuning.core.types import Array, Params
from prompt_tuning.infer import programs
from prompt_tuning.models.t5 import decoding, network
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.train import objectives, optimizers, state
from prompt_tuning.train.compiled_step import Compiling, Jitted
from prompt_tuning.train.step import AbstractStep, StepProgram
from prompt_tuning.tuners import bank, initializers
from prompt_tuning.tuners.method import Method


class Side:
  """A restored model, one run of a method, a jitted step.

  Args:
    folder: made by `making.write`.
    first: shape of the first step, which is then compiled while the model is
      read, as `jobs.train` does; None compiles it when it is taken.
    dtype: of weights and activations; what trains is float32.
    method: prompt tuning, or one of `methods.METHODS`.

  Attributes:
    device: what it computes on.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    first: work.Shape | None = None,
    dtype: str = "float32",
    method: str = work.PROMPT,
  ):
    self.device = jax.devices()[0].device_kind
    values = np.load(work.prompt_file(folder))
    checkpoint = restore.open_checkpoint(folder / work.MODEL)
    given = dataclasses.replace(
      sizes.infer_config(checkpoint),
      dropout_rate=0.0,
      dtype=jnp.dtype(dtype),
      param_dtype=jnp.dtype(dtype),
    )
    self.config = backbone.for_machine(given, None)
    shapes = network.abstract_params(self.config)
    tuner = methods.build(method, self.config, len(values))
    self.length = tuner.placement.encoder_length
    self.program, drawn = _program(self.config, tuner, shapes)
    self._step: Callable[..., Any]
    if first is None:
      self._step = Jitted(self.program)
    else:
      batch = self.batch(work.text(first, self.config.vocab_size))
      self._step = Compiling(self._described(shapes, drawn, batch))

    params = backbone.load(checkpoint, self.config, None, (), dtype).params
    if method == work.PROMPT:
      start = jax.tree.map(lambda _: jnp.asarray(values)[None], drawn)
    else:
      start = jax.tree.map(jnp.asarray, methods.read(folder, method))
    trainable, self.frozen = self.program.partition.split(
      {"model": params, "tuner": start}
    )
    fresh = state.create(trainable, self.program.optimizer, [0])
    # Bound to the device, as `jobs.setup` does.
    self.state = jax.tree.map(lambda a: jax.device_put(a, a.sharding), fresh)

  def _described(
    self, shapes: Params, drawn: Params, batch: Mapping[str, Any]
  ) -> AbstractStep:
    """Describe a step on the device."""
    trainable, frozen = self.program.partition.split(
      {"model": shapes, "tuner": drawn}
    )
    fresh = jax.eval_shape(
      lambda params: state.create(params, self.program.optimizer, [0]),
      trainable,
    )
    device = axes.everywhere(None)
    placed = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=device
      ),
      (fresh, frozen),
    )
    return AbstractStep(self.program, *placed, batch)

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
    delta = self.program.produce(params["tuner"], None)
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


def _program(
  config: T5Config, tuner: Method, shapes: Params
) -> tuple[StepProgram, Params]:
  """Build the step from shapes; also describes the method's parameters."""

  def draw(table: Array) -> Params:
    context = initializers.InitializerContext(table)
    return bank.init_bank([tuner], [jax.random.key(0)], [context]).params

  drawn = jax.eval_shape(draw, shapes["token_embedder"]["embedding"])
  model = network.T5(config)
  program = StepProgram(
    forward=lambda p, b, d, k: model.apply(
      {"params": p}, b, d, k, method="outputs"
    ),
    produce=lambda p, _: bank.apply_bank(tuner, p),
    partition=partition.build(
      partition.TUNER_ONLY, {"model": shapes, "tuner": drawn}
    ),
    objective=objectives.CrossEntropy(
      z_loss=0.0, loss_normalizing_factor="NUM_REAL_TARGET_TOKENS"
    ),
    optimizer=optimizers.bank_optimizer(
      optimizers.Optax("adam"), [work.RATE], start_step=0
    ),
    dropout=False,
  )
  return program, drawn
