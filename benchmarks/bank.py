"""A bank of prompts trained in one program, against the same prompts in turn.

  python -m benchmarks.bank --runs 1 4 8 16

Both sides do the same work: every run has its own seed, learning rate and rows.
Steps of the bank and of the solo runs alternate in one process; compilation is
timed apart, once per side (the solo runs share one program). Prints JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.turns import spread
from prompt_tuning.core import partition, tree
from prompt_tuning.models.t5 import network
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.train import objectives, optimizers, state, step
from prompt_tuning.tuners import bank, initializers, prompt

MODEL = T5Config(
  vocab_size=512,
  emb_dim=16,
  num_heads=4,
  head_dim=4,
  mlp_dim=32,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
PROMPT, INPUTS, TARGETS = 8, 12, 3


def random_params(config: T5Config) -> Any:
  """Draw weights of sensible size."""
  rng = np.random.default_rng(0)
  return tree.unflatten(
    {
      path: jnp.asarray(
        rng.normal(scale=leaf.shape[0] ** -0.5, size=leaf.shape), leaf.dtype
      )
      for path, leaf in tree.flatten(network.abstract_params(config)).items()
    }
  )


def make_batch(runs: list[int], rows: int) -> dict[str, np.ndarray]:
  """Draw rows for some runs; a run's rows depend on its number only."""
  encoder, targets = [], []
  for run in runs:
    rng = np.random.default_rng(run)
    text = rng.integers(2, MODEL.vocab_size, (rows, INPUTS))
    virtual = np.tile(MODEL.vocab_size + np.arange(PROMPT), (rows, 1))
    encoder.append(np.concatenate([virtual, text], axis=1))
    targets.append(rng.integers(2, MODEL.vocab_size, (rows, TARGETS)))
  target = np.concatenate(targets).astype(np.int32)
  return {
    "encoder_input_tokens": np.concatenate(encoder).astype(np.int32),
    "decoder_input_tokens": np.pad(target[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": target,
    "run_ids": np.repeat(np.arange(len(runs), dtype=np.int32), rows),
  }


def build(
  params: Any, runs: list[int], rows: int
) -> tuple[Callable[[], Any], float]:
  """Compile one side; returns its step and the seconds that took."""
  model = network.T5(MODEL)
  tuner = prompt.Prompt(
    MODEL.emb_dim,
    encoder_length=PROMPT,
    encoder_init=initializers.UNIFORM_PAPER,
  )
  context = initializers.InitializerContext(
    params["token_embedder"]["embedding"]
  )
  tuned = bank.init_bank(
    [tuner] * len(runs),
    [jax.random.key(run) for run in runs],
    [context] * len(runs),
  )
  whole = {"model": params, "tuner": tuned.params}
  parts = partition.build(partition.TUNER_ONLY, whole)
  trainable, frozen = parts.split(whole)
  optimizer = optimizers.bank_optimizer(
    optimizers.Adafactor(), [0.3] * len(runs), start_step=0
  )
  program = step.StepProgram(
    forward=lambda p, b, d, k: model.apply(
      {"params": p}, b, d, k, method="outputs"
    ),
    produce=lambda p, _: bank.apply_bank(tuner, p),
    partition=parts,
    objective=objectives.CrossEntropy(),
    optimizer=optimizer,
    num_runs=len(runs),
  )
  current = state.create(trainable, optimizer, runs)
  batch = make_batch(runs, rows)
  start = time.perf_counter()
  compiled = jax.jit(program.step).lower(current, frozen, batch).compile()
  seconds = time.perf_counter() - start
  return lambda: compiled(current, frozen, batch), seconds


def measure(params: Any, runs: int, rows: int, rounds: int) -> dict[str, Any]:
  """Time one bank against its runs in turn."""
  together, bank_compile = build(params, list(range(runs)), rows)
  # The solo runs share one compiled program, whatever their numbers.
  alone, solo_compile = build(params, [0], rows)
  times: dict[str, list[float]] = {"bank": [], "in turn": []}
  for _ in range(rounds + 1):
    start = time.perf_counter()
    jax.block_until_ready(together())
    middle = time.perf_counter()
    for _ in range(runs):
      jax.block_until_ready(alone())
    times["bank"].append(middle - start)
    times["in turn"].append(time.perf_counter() - middle)
  bank_s, turn_s = (statistics.median(v[1:]) for v in times.values())
  pairs = zip(times["in turn"][1:], times["bank"][1:], strict=True)
  return {
    "runs": runs,
    "bank_ms": round(1e3 * bank_s, 2),
    "in_turn_ms": round(1e3 * turn_s, 2),
    "speedups": spread(turn / bank for turn, bank in pairs),
    "bank_compile_s": round(bank_compile, 2),
    "solo_compile_s": round(solo_compile, 2),
  }


def main() -> None:
  """Run and print."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--runs", type=int, nargs="+", default=[1, 4, 8, 16, 64])
  parser.add_argument("--rows", type=int, default=4)
  parser.add_argument("--rounds", type=int, default=30)
  args = parser.parse_args()
  params = random_params(MODEL)
  results = [measure(params, k, args.rows, args.rounds) for k in args.runs]
  print(json.dumps({"settings": vars(args), "banks": results}, indent=2))


if __name__ == "__main__":
  main()
