"""Pre-training through the project against a bare loop over a jitted step.

  python -m benchmarks.pretraining --sizes ladder_1 ladder_2

Here: `loop.train` with packed batches that a thread makes from tokens, and
`pretrain`'s optimizer, metrics and log. The other side: a step written by hand
(`benchmarks.bare_t5`) in a `for` loop over one batch that is already on the
device; nothing is read back before the end. Evaluations and bundles are on
neither side. First, both must give the same losses from the same weights. The
sides take turns in one process. Prints JSON: median rates, where tokens are all
positions of a batch, and the ratios of project to bare; 1 is as fast.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import bare_t5
from benchmarks.turns import spread
from prompt_tuning.core import partition
from prompt_tuning.core.delta import Delta
from prompt_tuning.data import ragged
from prompt_tuning.data.pipeline import Layout, TrainBatches
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import cost, network
from prompt_tuning.train import loop, objectives, optimizers, schedules, state
from prompt_tuning.train.step import StepProgram

ROWS, PACKED = 32, (128, 64)
RATE, CLIP, ADAM = 3e-3, 1.0, {"b2": 0.98, "weight_decay": 0.0}
SCHEDULE = schedules.FactorSchedule(
  "constant * linear_warmup * cosine_decay", warmup_steps=100
)
CHECKED = 3  # steps after which the sides must still agree


@dataclasses.dataclass(frozen=True)
class Tokens:
  """A token store in memory: chunks and short texts, half of each."""

  inputs: ragged.Ragged
  targets: ragged.Ragged
  lengths: Mapping[str, int | None]
  key: str = "benchmark"


def make_tokens(config: t5_config.T5Config, examples: int = 8192) -> Tokens:
  """Draw examples as long as `pretrain` makes them from 96 tokens of text."""
  rng = np.random.default_rng(0)
  short = rng.random(examples) < 0.5

  def rows(lengths: np.ndarray) -> ragged.Ragged:
    draw = lambda n: rng.integers(2, config.vocab_size, n)  # noqa: E731
    return ragged.from_rows([draw(n) for n in lengths], np.int32)

  inputs = np.where(short, rng.integers(8, 40, examples), 88)
  targets = np.where(short, rng.integers(4, 12, examples), 21)
  limits = {"inputs": 128, "targets": 64}
  return Tokens(rows(inputs), rows(targets), limits)


class Project:
  """The project's side."""

  def __init__(self, config: t5_config.T5Config, params: Any):
    model: Any = network.T5(config)
    whole = {"model": params}
    parts = partition.build(partition.EVERYTHING, whole)
    self.optimizer = optimizers.bank_optimizer(
      optimizers.ClipByGlobalNorm(optimizers.Optax("adamw", **ADAM), CLIP),
      [RATE],
      start_step=0,
      schedule=SCHEDULE,
    )
    self.objective = objectives.CrossEntropy(
      loss_normalizing_factor="NUM_REAL_TARGET_TOKENS"
    )
    program = StepProgram(
      forward=lambda p, b, d, k: model.apply(
        {"params": p}, b, d, k, method="outputs"
      ),
      produce=lambda *_: Delta(),
      partition=parts,
      objective=self.objective,
      optimizer=self.optimizer,
      dropout=config.dropout_rate > 0,
    )
    self.step = jax.jit(program.step, donate_argnums=0)
    self.weights = jax.tree.map(lambda a: np.asarray(a)[None], whole)
    self.flops = cost.flops_per_token(config)

  def start(self) -> state.TrainState:
    """Make a new state of the same weights."""
    weights = jax.tree.map(jnp.array, self.weights)
    return state.create(weights, self.optimizer, [0])

  def losses(self, batch: Any, steps: int) -> list[float]:
    """Train on one batch; returns the loss of every step."""
    current, found = self.start(), []
    for _ in range(steps):
      current, metrics = self.step(current, {}, batch)
      found.append(float(self.objective.divide(metrics.sums)[0]))
    return found

  def time_loop(self, batches: Any, steps: int) -> float:
    """Return the seconds that steps take in `loop.train`."""
    marks: list[float] = []

    # It evaluates right before the first step and right after the last.
    def mark(trainable: Any) -> list[loop.RunEvaluation]:
      jax.block_until_ready(trainable)
      marks.append(time.perf_counter())
      return []

    with tempfile.TemporaryDirectory() as folder:
      loop.train(
        self.step,
        self.start(),
        {},
        batches,
        settings=loop.Settings(
          steps,
          log_period=50,
          eval_period=0,
          eval_at_start=True,
          save_period=0,
          flops_per_token=self.flops,
        ),
        folder=folder,
        manifest={},
        summarise=self.objective.summarise,
        evaluate=mark,
      )
    return marks[1] - marks[0]


class Bare:
  """The other side."""

  def __init__(self, config: t5_config.T5Config, params: Any):
    adamw = optax.adamw(lambda count: SCHEDULE(count, RATE), **ADAM)
    self.optimizer = optax.chain(optax.clip_by_global_norm(CLIP), adamw)
    self.step = bare_t5.make_step(
      config.num_heads, config.num_encoder_layers, self.optimizer
    )
    self.weights = jax.tree.map(np.asarray, params)

  def start(self) -> tuple[Any, Any]:
    """Make new weights and optimizer state."""
    weights = jax.tree.map(jnp.array, self.weights)
    return weights, self.optimizer.init(weights)

  def losses(self, batch: Any, steps: int) -> list[float]:
    """Train on one batch; returns the loss of every step."""
    (weights, moments), found = self.start(), []
    for _ in range(steps):
      weights, moments, loss = self.step(weights, moments, batch)
      found.append(float(loss))
    return found

  def time_loop(self, batch: Any, steps: int) -> float:
    """Return the seconds of steps on one batch."""
    weights, moments = jax.block_until_ready(self.start())
    start = time.perf_counter()
    for _ in range(steps):
      weights, moments, _ = self.step(weights, moments, batch)
    jax.block_until_ready(weights)
    return time.perf_counter() - start


def check_same(project: Project, bare: Bare, batch: Any) -> list[float]:
  """Assert that both sides compute the same; returns their losses."""
  ours, theirs = (side.losses(batch, CHECKED + 1) for side in (project, bare))
  np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
  # Updates agree too, as far as Adam lets rounding errors grow.
  np.testing.assert_allclose(ours, theirs, rtol=1e-3)
  return ours


def measure(size: str, rounds: int, steps: int) -> dict[str, Any]:
  """Let the sides take turns on one size."""
  config = t5_config.get(size, dropout_rate=0.0)
  params = network.init_params(config, jax.random.key(0))
  project, bare = Project(config, params), Bare(config, params)
  train_batches = TrainBatches(
    make_tokens(config),
    ROWS,
    seed=0,
    layout=Layout(vocab_rows=config.vocab_size),
    batching="packed",
    packed_size=PACKED,
  )
  batches: Iterator[Any] = iter(train_batches.prefetch())
  batch = jax.device_put(next(batches))
  losses = check_same(project, bare, batch)
  sides: dict[str, Callable[[], float]] = {
    "project": lambda: project.time_loop(batches, steps),
    "bare": lambda: bare.time_loop(batch, steps),
  }
  times: dict[str, list[float]] = {name: [] for name in sides}
  for _ in range(rounds):
    for name, run in sides.items():
      times[name].append(run())
  tokens = ROWS * sum(PACKED) * steps
  rates = {
    name: round(tokens / statistics.median(found))
    for name, found in times.items()
  }
  return {
    "size": size,
    "losses": [round(loss, 4) for loss in losses],
    "tokens_per_second": rates,
    "ratios": spread(
      bare / project
      for project, bare in zip(times["project"], times["bare"], strict=True)
    ),
  }


def main() -> None:
  """Run and print."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--sizes", nargs="+", default=["ladder_1", "ladder_2"])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--steps", type=int, default=5)
  args = parser.parse_args()
  results = [measure(size, args.rounds, args.steps) for size in args.sizes]
  print(json.dumps({"settings": vars(args), "sizes": results}, indent=2))


if __name__ == "__main__":
  main()
