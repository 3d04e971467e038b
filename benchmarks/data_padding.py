"""How many encoder positions hold a token, batching by batching.

Counted is everything that is not padding, virtual tokens included, over one
pass through each training split (evaluation split where there is none) with a
prompt of 100 and texts of at most 512 tokens, in batches of 32 rows:

  python benchmarks/data_padding.py --tfds_data_dir DIR --vocabulary MODEL

`prompt-tuning data prepare` makes DIR. Writes padding.json and padding.md.
"""

import argparse
import json
import pathlib

from prompt_tuning.core.placement import Placement
from prompt_tuning.data import cache, installed, planning, spec, vocabulary
from prompt_tuning.data.pipeline import Layout, TrainBatches

BATCH_SIZE = 32
LAYOUT = Layout(Placement(tuple(range(100))))
LENGTHS = {"inputs": 512, "targets": 32}


def tasks_here(data_dir: str) -> list[tuple[spec.TaskSpec, str]]:
  """Return one task per dataset that is there, with a split to read."""
  chosen = {}
  for name in spec.names():
    task = spec.get(name)
    if not isinstance(task, spec.TaskSpec) or task.benchmark == "glue_transfer":
      continue
    is_taskless = name.startswith("taskless_") or task.benchmark == "qa"
    here = installed.splits(data_dir, task.source)
    splits = [split for split, rows in task.splits.items() if rows in here]
    if is_taskless and splits and not task.log_examples:
      chosen[task.benchmark, task.dataset] = (task, splits[0])
  return list(chosen.values())


def measure(tokens: cache.TokenCache, batching: str) -> dict:
  """Read one pass and count positions."""
  batches = TrainBatches(
    tokens, BATCH_SIZE, seed=0, layout=LAYOUT, batching=batching
  )
  held = positions = examples = 0
  shapes = set()
  for batch in batches:
    ids = batch["encoder_input_tokens"]
    held += int((ids != 0).sum())
    positions += ids.size
    # Every example has one first virtual token.
    examples += int((ids == LAYOUT.vocab_rows).sum())
    shapes.add((*ids.shape, batch["decoder_target_tokens"].shape[1]))
    if examples >= len(tokens):
      break
  return {
    "share": held / positions,
    "positions_per_example": positions / examples,
    "shapes": sorted(shapes) if batching != "longest" else len(shapes),
  }


def as_markdown(results: list[dict]) -> str:
  """Lay the shares out as a table."""
  lines = [
    "Share of encoder positions that hold a token (text or virtual), prompt "
    f"length 100, texts up to 512, {BATCH_SIZE} rows per batch. Last column: "
    "how many times fewer positions an example takes packed than fixed.",
    "",
    f"| task | examples | mean tokens | {' | '.join(planning.BATCHINGS)} | "
    "bucket lengths | packed row | fixed / packed |",
    "|---|---|---|---|---|---|---|---|---|---|",
  ]
  for row in results:
    found = row["batchings"]
    shares = " | ".join(f"{found[b]['share']:.3f}" for b in planning.BATCHINGS)
    ratio = (
      found["fixed"]["positions_per_example"]
      / found["packed"]["positions_per_example"]
    )
    buckets = ", ".join(str(shape[1]) for shape in found["buckets"]["shapes"])
    lines.append(
      f"| {row['task']} {row['split']} | {row['examples']:,} | "
      f"{row['mean_tokens']:.0f} | {shares} | {buckets} | "
      f"{found['packed']['shapes'][0][1]} | {ratio:.2f} |"
    )
  return "\n".join(lines) + "\n"


def main() -> None:
  """Measure every task that is there."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--tfds_data_dir", required=True)
  parser.add_argument("--vocabulary", required=True)
  parser.add_argument("--cache_dir", default=cache.default_cache_dir())
  parser.add_argument("--out", default="benchmarks/results")
  arguments = parser.parse_args()
  vocabulary.configure(arguments.vocabulary)
  results = []
  for task, split in tasks_here(arguments.tfds_data_dir):
    tokens = cache.load_task(
      task, split, LENGTHS, arguments.cache_dir, arguments.tfds_data_dir
    )
    row = {
      "task": task.name,
      "split": split,
      "examples": len(tokens),
      "mean_tokens": float(tokens.inputs.lengths.mean()),
      "batchings": {b: measure(tokens, b) for b in planning.BATCHINGS},
    }
    results.append(row)
    print(as_markdown([row]).splitlines()[-1], flush=True)
  out = pathlib.Path(arguments.out)
  out.mkdir(parents=True, exist_ok=True)
  (out / "padding.json").write_text(json.dumps(results, indent=2))
  (out / "padding.md").write_text(as_markdown(results))


if __name__ == "__main__":
  main()
