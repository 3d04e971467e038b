"""Unrolled, scanned and rematerialised layers: compile and step time.

  python -m benchmarks.layer_layout --size t5_1_1_small --inputs 64

Times one prompt-tuning gradient of each layout, interleaved in one process, and
prints ratios to unrolled layers that keep everything, as JSON. `temp_mib` is
what the compiler reserves for intermediate values.
"""

import argparse
import dataclasses
import json
import statistics
import time

import jax
import jax.numpy as jnp

from prompt_tuning.core import tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network

LAYOUTS = {
  f"{layout}, {policy}": {
    "scan_layers": layout == "scanned",
    "remat_policy": policy,
  }
  for layout in ("unrolled", "scanned")
  for policy in t5_config.REMAT_POLICIES
}
BASE = "unrolled, none"


def zeros(config: t5_config.T5Config) -> dict:
  """Make a model's tree; values do not change the time."""
  flat = tree.flatten(network.abstract_params(config))
  return tree.unflatten(
    {path: jnp.full(s.shape, 0.01, s.dtype) for path, s in flat.items()}
  )


def make_batch(config: t5_config.T5Config, args: argparse.Namespace) -> dict:
  """A batch of virtual tokens and text, no padding."""
  prompt = config.vocab_size + jnp.arange(args.prompt)
  text = jnp.full((args.inputs,), 5)
  row = jnp.concatenate([prompt, text]).astype(jnp.int32)
  targets = jnp.full((args.batch, args.targets), 7, jnp.int32)
  return {
    "encoder_input_tokens": jnp.tile(row, (args.batch, 1)),
    "decoder_input_tokens": network.shift_right(targets),
    "decoder_target_tokens": targets,
  }


def compiled_gradient(config: t5_config.T5Config, args: argparse.Namespace):
  """Compile the gradient of one layout; returns it with its costs."""
  model, batch, params = network.T5(config), make_batch(config, args), None

  def loss(virtual, params, batch):
    logits = model.apply({"params": params}, batch, Delta(virtual=virtual))
    return -jnp.sum(network.score(logits, batch["decoder_target_tokens"]))

  params = zeros(config)
  virtual = jnp.full((1, args.prompt, config.emb_dim), 0.1)
  start = time.perf_counter()
  lowered = jax.jit(jax.value_and_grad(loss)).lower(virtual, params, batch)
  traced = time.perf_counter()
  program = lowered.compile()
  done = time.perf_counter()
  costs = {
    "trace_s": round(traced - start, 2),
    "compile_s": round(done - traced, 2),
    "temp_mib": program.memory_analysis().temp_size_in_bytes >> 20,
  }
  return (lambda: program(virtual, params, batch)), costs


def main() -> None:
  """Run and print."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--size", default="t5_1_1_small")
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--inputs", type=int, default=64)
  parser.add_argument("--targets", type=int, default=8)
  parser.add_argument("--prompt", type=int, default=100)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  base = t5_config.get(args.size)
  results, steps = {}, {}
  for name, changes in LAYOUTS.items():
    config = dataclasses.replace(base, **changes)
    steps[name], results[name] = compiled_gradient(config, args)
    jax.block_until_ready(steps[name]())
  times: dict[str, list[float]] = {name: [] for name in LAYOUTS}
  for _ in range(args.rounds):
    for name, step in steps.items():
      start = time.perf_counter()
      jax.block_until_ready(step())
      times[name].append(time.perf_counter() - start)
  for name, values in times.items():
    results[name]["step_s"] = round(statistics.median(values), 3)
  reference = results[BASE]
  for result in results.values():
    for key in ("compile_s", "step_s", "temp_mib"):
      result[f"{key} ratio"] = round(result[key] / reference[key], 2)
  print(json.dumps({"settings": vars(args), "layouts": results}, indent=2))


if __name__ == "__main__":
  main()
