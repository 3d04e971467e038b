"""Text tokens per second: the warm pipeline against seqio itself, on 2 cores.

Counted are the tokens of the examples' own inputs and targets; neither padding
nor virtual tokens. Both sides give shuffled, repeated, padded batches of 32
under T5X's feature names:

* seqio: `get_dataset` with the encoder-decoder feature converter at 512 / 32,
  batched, as T5X reads a task without an offline cache.
* here: `TrainBatches` on a warm cache with a prompt of 100, prefetched.

  python benchmarks/data_throughput.py --tfds_data_dir DIR --vocabulary MODEL

`prompt-tuning data prepare` makes DIR. The sides take turns; the median of the
rounds is reported. Writes throughput.json and throughput.md.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator

from prompt_tuning.core.placement import Placement
from prompt_tuning.data import cache, planning, spec, vocabulary
from prompt_tuning.data.pipeline import Layout, TrainBatches

BATCH_SIZE = 32
CORES = 2
ROUNDS = 3
SECONDS = 2.0
LENGTHS = {"inputs": 512, "targets": 32}
LAYOUT = Layout(Placement(tuple(range(100))))
TASKS = (
  "taskless_glue_sst2_v200",
  "taskless_super_glue_rte_v102",
  "taskless_super_glue_boolq_v102",
  "taskless_super_glue_multirc_v102",
)


def seqio_batches(name: str, data_dir: str) -> Iterator[dict]:
  """Read a task as T5X does."""
  import seqio

  from prompt_tuning.data.tasks import registry

  registry.get(name).source.tfds_dataset.override_data_dir(data_dir)
  dataset = seqio.get_dataset(
    name,
    LENGTHS,
    dataset_split="train",
    shuffle=True,
    num_epochs=None,
    feature_converter=seqio.EncDecFeatureConverter(pack=False),
    seed=0,
  )
  batches = dataset.batch(BATCH_SIZE, drop_remainder=True)
  return batches.prefetch(2).as_numpy_iterator()


def own_batches(tokens: cache.TokenCache, batching: str) -> Iterator[dict]:
  """Read the warm cache."""
  batches = TrainBatches(
    tokens, BATCH_SIZE, seed=0, layout=LAYOUT, batching=batching
  )
  return iter(batches.prefetch())


def text_tokens(batch: dict) -> int:
  """Count tokens that are neither padding nor virtual."""
  ids = batch["encoder_input_tokens"]
  text = ((ids > 0) & (ids < LAYOUT.vocab_rows)).sum()
  return int(text + (batch["decoder_target_tokens"] > 0).sum())


def rate(batches: Iterator[dict]) -> float:
  """Return text tokens per second over `SECONDS`; counting is not timed."""
  next(batches)  # start-up: graphs, shuffle buffers, the first window
  read = []
  start = time.perf_counter()
  while time.perf_counter() - start < SECONDS:
    read.append(next(batches))
  spent = time.perf_counter() - start
  return sum(map(text_tokens, read)) / spent


def compare(sides: dict[str, Callable[[], Iterator[dict]]]) -> dict[str, float]:
  """Let the sides take turns."""
  rates: dict[str, list[float]] = {side: [] for side in sides}
  for _ in range(ROUNDS):
    for side, start in sides.items():
      batches = start()
      rates[side].append(rate(batches))
      getattr(batches, "close", lambda: None)()
  return {side: statistics.median(found) for side, found in rates.items()}


def measure(name: str, data_dir: str, cache_dir: str) -> dict[str, float]:
  """Return the rate of every side for one task."""
  tokens = cache.load_task(
    spec.task(name), "train", LENGTHS, cache_dir, data_dir
  )
  sides: dict[str, Callable[[], Iterator[dict]]] = {
    "seqio": lambda: seqio_batches(name, data_dir)
  }
  for batching in planning.BATCHINGS:
    sides[batching] = functools.partial(own_batches, tokens, batching)
  return compare(sides)


def as_markdown(results: list[dict]) -> str:
  """Lay the rates out as a table."""
  sides = ("seqio", *planning.BATCHINGS)
  lines = [
    "### Reading batches\n",
    f"Thousand text tokens per second on {CORES} cores, batches of "
    f"{BATCH_SIZE}, median of {ROUNDS} rounds; in brackets the ratio to seqio.",
    "",
    f"| task | {' | '.join(sides)} |",
    "|---" * (len(sides) + 1) + "|",
  ]
  for row in results:
    base = row["rates"]["seqio"]
    cells = [
      f"{row['rates'][side] / 1e3:,.0f}"
      + (f" ({row['rates'][side] / base:.0f}x)" if side != "seqio" else "")
      for side in sides
    ]
    lines.append(f"| {row['task']} | {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def main() -> None:
  """Measure the tasks that are there."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--tfds_data_dir", required=True)
  parser.add_argument("--vocabulary", required=True)
  parser.add_argument("--cache_dir", default=cache.default_cache_dir())
  parser.add_argument("--out", default="benchmarks/results")
  arguments = parser.parse_args()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
  vocabulary.configure(arguments.vocabulary)
  results = []
  for name in TASKS:
    found = measure(name, arguments.tfds_data_dir, arguments.cache_dir)
    results.append({"task": name, "rates": found})
    print(as_markdown(results[-1:]).splitlines()[-1], flush=True)
  out = pathlib.Path(arguments.out)
  out.mkdir(parents=True, exist_ok=True)
  (out / "throughput.json").write_text(json.dumps(results, indent=2))
  (out / "throughput.md").write_text(as_markdown(results))


if __name__ == "__main__":
  main()
