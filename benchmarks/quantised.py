"""Frozen weights as floats, int8 and int4: bytes, loss, scores, time.

  python -m benchmarks.quantised --skills first,count,opposite

The loss is that of the embedded models on held-out examples of all generated
skills, asked for in words: nats per target token. Scores are exact matches of
prompts on the test split, of skills without the words; a prompt is trained on
one form of the weights and used with another. Times are of one prompt's
gradient, forms interleaved in one process. Prints JSON, then Markdown.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import api
from prompt_tuning.core.delta import Delta
from prompt_tuning.data import skills
from prompt_tuning.models.t5 import network, quantized
from prompt_tuning.tuners import initializers

MODELS = ("embedded:ladder_1", "embedded:ladder_2")
WEIGHTS = ("float32", "bfloat16", "int8", "int4")
PAIRS = (  # trained on, used with
  ("float32", "float32"),
  ("float32", "int8"),
  ("int8", "int8"),
  ("int8", "float32"),
  ("float32", "int4"),
  ("int4", "int4"),
)
INPUTS, TARGETS = 40, 16


def held_out_loss(model: api.Model, count: int) -> float:
  """Compute the loss on the first `count` test examples of every skill."""
  texts, targets = [], []
  for name, skill in skills.SKILLS.items():
    for row in list(skills.examples(name, "test"))[:count]:
      texts.append(skills.instructed(row["inputs"], skill.instructions[0]))
      targets.append(row["targets"])
  tokens = sum(len(model.predictor.vocabulary.encode(t)) + 1 for t in targets)
  return -sum(model.score(texts, targets)) / tokens


def prompt_scores(path: str, names: list[str], steps: int) -> dict:
  """Train a prompt per skill on each form of the weights, and use it."""
  forms = sorted({form for pair in PAIRS for form in pair})
  models = {form: api.load_model(path, weights=form) for form in forms}
  trained = {}
  for form in forms:
    for name in names:
      trained[form, name] = models[form].train(
        f"skill_{name}",
        steps=steps,
        prompt_length=8,
        initializer=initializers.SampledVocabulary(3996),
        batch_size=8,
        dropout_rate=0.0,
        eval_period=0,
      )
  found: dict = {}
  for on, used in PAIRS:
    scores = []
    for name in names:
      tuned = models[used].with_prompts({name: trained[on, name]})
      rows = list(skills.examples(name, "test"))
      answers = tuned.predict([row["inputs"] for row in rows])
      right = [a == r["targets"] for a, r in zip(answers, rows, strict=True)]
      scores.append(100 * float(np.mean(right)))
    found[f"{on} -> {used}"] = [round(score, 1) for score in scores]
  return found


def gradients(path: str, rounds: int, rows: int) -> dict:
  """Time one prompt's gradient, and say what it needs on the way."""
  results: dict = {}
  steps = {}
  for form in WEIGHTS:
    model = api.load_model(path, weights=form)
    steps[form], results[form] = _gradient(model, rows)
    jax.block_until_ready(steps[form]())
  times: dict[str, list[float]] = {form: [] for form in steps}
  for _ in range(rounds):
    for form, step in steps.items():
      start = time.perf_counter()
      jax.block_until_ready(step())
      times[form].append(time.perf_counter() - start)
  for form, values in times.items():
    results[form]["step_ms"] = round(1e3 * statistics.median(values), 1)
  return results


def _gradient(model: api.Model, rows: int):
  config = dataclasses.replace(model.backbone.config, dropout_rate=0.0)
  ids = jnp.full((rows, INPUTS), 7, jnp.int32)
  prompt = jnp.tile(config.vocab_size + jnp.arange(8), (rows, 1))
  targets = jnp.full((rows, TARGETS), 9, jnp.int32)
  batch = {
    "encoder_input_tokens": jnp.concatenate([prompt, ids], axis=1),
    "decoder_input_tokens": network.shift_right(targets),
    "decoder_target_tokens": targets,
  }

  def loss(virtual, params, batch):
    net = network.T5(config)
    logits = net.apply({"params": params}, batch, Delta(virtual=virtual))
    return -jnp.sum(network.score(logits, targets))

  virtual = jnp.full((1, 8, config.emb_dim), 0.1)
  arguments = (virtual, model.backbone.params, batch)
  program = jax.jit(jax.value_and_grad(loss))
  stats = program.lower(*arguments).compile().memory_analysis()
  return (lambda: program(*arguments)), {
    "argument_bytes": stats.argument_size_in_bytes,
    "temporary_bytes": stats.temp_size_in_bytes,
  }


def table(results: dict) -> str:
  """Write the losses and times as Markdown."""
  lines = [
    "| model | weights | bytes | of float32 | loss | difference "
    "| step (CPU) | temporaries |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for path, forms in results.items():
    first = forms["float32"]
    for form, one in forms.items():
      lines.append(
        f"| {path} | {form} | {one['bytes']:,} "
        f"| {one['bytes'] / first['bytes']:.3f} | {one['loss']:.5f} "
        f"| {one['loss'] - first['loss']:+.5f} | {one['step_ms']:.1f} ms "
        f"| {one['temporary_bytes'] / 2**20:.1f} MiB |"
      )
  return "\n".join(lines)


def main() -> None:
  """Run and print."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--examples", type=int, default=32)
  parser.add_argument("--skills", default="first,count,opposite")
  parser.add_argument("--steps", type=int, default=150)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--rows", type=int, default=32)
  args = parser.parse_args()
  losses: dict = {}
  for path in MODELS:
    losses[path] = {}
    for form in WEIGHTS:
      model = api.load_model(path, weights=form)
      losses[path][form] = {
        "bytes": quantized.nbytes(model.backbone.params),
        "loss": held_out_loss(model, args.examples),
      }
    print(path, json.dumps(losses[path]), file=sys.stderr, flush=True)
  names = args.skills.split(",")
  scores = prompt_scores(MODELS[0], names, args.steps)
  print(json.dumps(scores), file=sys.stderr, flush=True)
  for path in MODELS:
    for form, costs in gradients(path, args.rounds, args.rows).items():
      losses[path][form] |= costs
  print(
    json.dumps(
      {"settings": vars(args), "models": losses, "scores": scores}, indent=2
    )
  )
  print(table(losses))
  print(f"\n| trained on -> used with | {' | '.join(names)} |")
  print("|---" * (len(names) + 1) + "|")
  for pair, values in scores.items():
    print(f"| {pair} | {' | '.join(map(str, values))} |")


if __name__ == "__main__":
  main()
