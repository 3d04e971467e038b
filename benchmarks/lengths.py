"""Examples per second on the real length distributions of tasks.

Batches of eight rows, prompt of 100, texts up to 512 tokens, real vocabulary:

* fixed: every row padded to 512, the hand-written JAX step (T5X's way).
* peft: PEFT, every batch padded to its longest row.
* buckets: this project, at most four lengths; the same examples a step.
* packed: this project, several examples in a row; more examples a step.

The first three take as many examples of the same split, but not the same ones:
those of buckets are the first of the pipeline's order, whose lengths may not be
the split's (docs/performance.md).
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.sides import work
from benchmarks.steps import BARE, PEFT, PROJECT, ROWS
from benchmarks.turns import Worker
from prompt_tuning.core.placement import Placement
from prompt_tuning.data import cache, spec
from prompt_tuning.data.pipeline import Layout, TrainBatches

LENGTHS = {"inputs": 512, "targets": 16}
TASKS = {
  "BoolQ": "taskless_super_glue_boolq_v102",
  "CB": "taskless_super_glue_cb_v102",
  "RTE": "taskless_super_glue_rte_v102",
  "COPA": "taskless_super_glue_copa_v102",
  "WiC": "taskless_super_glue_wic_v102",
  "WSC": "taskless_super_glue_wsc_v102_simple_train",
  "MultiRC": "taskless_super_glue_multirc_v102",
}
PROMPT_LENGTH = 100
LAYOUT = Layout(Placement(tuple(range(PROMPT_LENGTH))))


def _own(tokens: cache.TokenCache, batching: str, count: int) -> list[dict]:
  """The first batches of the project's pipeline; those of one epoch at most."""
  batches = iter(
    TrainBatches(tokens, ROWS, seed=0, layout=LAYOUT, batching=batching)
  )
  return [dict(next(batches)) for _ in range(count)]


def _padded(
  tokens: cache.TokenCache, count: int, length: int | None
) -> list[dict]:
  """Batches in a shuffled order, padded to a length or their longest."""
  order = np.random.default_rng(0).permutation(len(tokens.inputs))
  batches = []
  for number in range(count):
    rows = np.take(
      order, range(number * ROWS, (number + 1) * ROWS), mode="wrap"
    )
    batch = {}
    for name, store, fixed in (
      ("inputs", tokens.inputs, length),
      ("targets", tokens.targets, length and LENGTHS["targets"]),
    ):
      texts = [np.asarray(store[int(row)]) for row in rows]
      width = fixed or max(map(len, texts))
      batch[name] = np.stack(
        [np.pad(text, (0, width - len(text))) for text in texts]
      ).astype(np.int32)
    batches.append(batch)
  return batches


def _examples(batch: dict) -> int:
  """Count a batch's examples: its rows, or its segments when packed."""
  segments = batch.get("decoder_segment_ids")
  return ROWS if segments is None else int(segments.max(axis=1).sum())


def measure(
  model: pathlib.Path,
  tokens: cache.TokenCache,
  batches: int,
  scratch: pathlib.Path,
) -> dict[str, Any]:
  """Time every way of making batches of one task.

  Args:
    model: made by `making.write`.
    tokens: of the split.
    batches: timed for each; of `fixed`, whose batches are alike, a third.
    scratch: for the batches.

  Returns:
    Way -> examples per second; `peak_gb` of each way's process.
  """
  ways = {
    "fixed": (BARE, _padded(tokens, max(2, batches // 3), LENGTHS["inputs"])),
    "peft": (PEFT, _padded(tokens, batches, None)),
    "buckets": (PROJECT, _own(tokens, "buckets", batches)),
    "packed": (PROJECT, _own(tokens, "packed", max(2, batches // 3))),
  }
  found: dict[str, Any] = {}
  workers, files = {}, {}
  for way, (side, made) in ways.items():
    files[way] = scratch / f"{way}.npz"
    work.save(files[way], made)
    workers[way] = Worker(side, model)
    # Each shape is compiled, or its memory found, before the clock starts.
    shapes = {tuple(a.shape for a in b.values()): n for n, b in enumerate(made)}
    warm = list(shapes.values()) if side != PEFT else [0]
    workers[way].ask(do="step", file=str(files[way]), numbers=warm)
  seconds, peak = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
  for number in range(batches):
    for way, (_, made) in ways.items():
      if number < len(made):
        answer = workers[way].ask(
          do="step", file=str(files[way]), numbers=[number]
        )
        seconds[way] += answer["seconds"][0]
        peak[way] = answer["peak_bytes"]
  for way, (_, made) in ways.items():
    workers[way].__exit__()
    examples = sum(map(_examples, made))
    found[way] = round(examples / seconds[way], 2)
  return found | {"peak_gb": {w: round(b / 1e9, 2) for w, b in peak.items()}}


def measure_tasks(
  model: pathlib.Path,
  data_dir: str,
  cache_dir: str,
  batches: int,
  scratch: pathlib.Path,
  tasks: Sequence[str],
) -> list[dict[str, Any]]:
  """Measure the named tasks, see `measure`.

  Args:
    model: made by `making.write`.
    data_dir: made by `prompt-tuning data prepare`.
    cache_dir: of tokens.
    batches: timed for each way.
    scratch: for batches.
    tasks: keys of `TASKS`.

  Returns:
    One row per task.
  """
  rows = []
  for name in tasks:
    tokens = cache.load_task(
      spec.task(TASKS[name]), "train", LENGTHS, cache_dir, data_dir
    )
    mean = float(np.mean(np.diff(tokens.inputs.offsets)))
    found = measure(model, tokens, batches, scratch)
    rows.append({"task": name, "mean_tokens": round(mean, 1), **found})
    print(rows[-1], flush=True)
  return rows
