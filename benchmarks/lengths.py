"""Examples per second on the real length distributions of tasks.

Batches of eight rows, prompt of 100, texts up to 512 tokens, real vocabulary:

* fixed: every row padded to 512, the hand-written JAX step (T5X's way).
* peft: PEFT, every batch padded to its longest row.
* buckets: this project, at most eight lengths; as many examples a step.
* packed: this project, several examples in a row; more examples a step.

All are rates of a whole epoch, whose time is put together from that of a few
batches (`epochs`). In every round each way takes its batches once; a ratio is
that of one round, so that all of it was measured within a minute or two.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import epochs
from benchmarks.epochs import Batch, Epoch
from benchmarks.sides import work
from benchmarks.steps import BARE, PEFT, PROJECT, insist_same
from benchmarks.turns import WARM, Worker, spread
from prompt_tuning.data import cache, spec
from prompt_tuning.data.pipeline import Tokens

TASKS = {
  "BoolQ": "taskless_super_glue_boolq_v102",
  "CB": "taskless_super_glue_cb_v102",
  "RTE": "taskless_super_glue_rte_v102",
  "COPA": "taskless_super_glue_copa_v102",
  "WiC": "taskless_super_glue_wic_v102",
  "WSC": "taskless_super_glue_wsc_v102_simple_train",
  "MultiRC": "taskless_super_glue_multirc_v102",
}
WAYS = {"fixed": BARE, "peft": PEFT, "buckets": PROJECT, "packed": PROJECT}
RATIOS = (("buckets", "peft"), ("packed", "peft"), ("buckets", "fixed"))
SAMPLES = 6  # of PEFT's batches, each of which has a shape of its own


def describe(tokens: Tokens) -> dict[str, Epoch]:
  """Describe an epoch of every way."""
  return {
    "fixed": epochs.fixed(tokens),
    "peft": epochs.longest(tokens, SAMPLES),
    "buckets": epochs.own(tokens, "buckets"),
    "packed": epochs.own(tokens, "packed"),
  }


def compared(ways: Mapping[str, Epoch]) -> dict[str, Batch]:
  """Give sides the same examples, each in its way.

  Returns:
    Way -> batch: the pipeline's own of the commonest bucket, and its texts for
    the others. A packed batch has other examples.
  """
  buckets = ways["buckets"]
  batch = buckets.batches[int(np.argmax(buckets.counts))]
  plain = epochs.without_prompt(batch)
  return {
    "fixed": epochs.pad(plain, epochs.LENGTHS),
    "peft": epochs.longest_of(
      {name: [row[row > 0] for row in rows] for name, rows in plain.items()}
    ),
    "buckets": batch,
  }


class _Runner:
  """One way's process and its batches: one to compare, then those to time."""

  def __init__(
    self,
    way: str,
    epoch: Epoch,
    shared: Batch | None,
    model: pathlib.Path,
    scratch: pathlib.Path,
  ):
    self.file = scratch / f"{way}.npz"
    given = [] if shared is None else [shared]
    work.save(self.file, [*epoch.batches, epoch.widest, *given])
    self._timed = list(range(len(epoch.batches)))
    self._widest, same = len(epoch.batches), len(epoch.batches) + 1
    self.worker = Worker(WAYS[way], model)
    self.losses = self._take([same] if given else [])["results"]
    # Each shape is compiled, or its memory found, before the clock starts.
    self._take([self._widest] if WAYS[way] == PEFT else self._timed)

  def take_turn(self) -> dict[str, Any]:
    """Time every batch, after one that does not count, see `turns.WARM`."""
    answer = self._take([self._widest] * WARM + self._timed)
    return {**answer, "seconds": answer["seconds"][WARM:]}

  def _take(self, numbers: Sequence[int]) -> dict[str, Any]:
    return self.worker.ask(do="step", file=str(self.file), numbers=numbers)


def measure(
  model: pathlib.Path, tokens: Tokens, rounds: int, scratch: pathlib.Path
) -> dict[str, Any]:
  """Time every way of making batches of one task.

  Args:
    model: made by `making.write`.
    tokens: of the split.
    rounds: turns of each way.
    scratch: for the batches.

  Returns:
    `examples_per_s`: way -> spread over rounds; `ratios` of them, likewise;
    `peak_gb` of each way's process; `epochs`: way -> width of what is timed and
    how many of the epoch's batches it stands for.

  Raises:
    RuntimeError: the sides' losses on the same examples differ.
  """
  ways = describe(tokens)
  shared = compared(ways)
  runners = {
    way: _Runner(way, epoch, shared.get(way), model, scratch)
    for way, epoch in ways.items()
  }
  insist_same({WAYS[way]: runners[way].losses for way in shared})
  rates: dict[str, list[float]] = {way: [] for way in ways}
  peaks = {}
  for _ in range(rounds):
    for way, epoch in ways.items():
      answer = runners[way].take_turn()
      rates[way].append(epoch.rate(answer["seconds"]))
      peaks[way] = round(answer["peak_bytes"] / 1e9, 2)
  for runner in runners.values():
    runner.worker.__exit__()
  return {
    "examples_per_s": {way: spread(found) for way, found in rates.items()},
    "ratios": {
      f"{way} / {other}": spread(np.divide(rates[way], rates[other]).tolist())
      for way, other in RATIOS
    },
    "peak_gb": peaks,
    "epochs": {
      way: [
        (epochs.size(batch) // epochs.ROWS, count)
        for batch, count in zip(epoch.batches, epoch.counts, strict=True)
      ]
      for way, epoch in ways.items()
    },
  }


def measure_tasks(
  model: pathlib.Path,
  data_dir: str,
  cache_dir: str,
  rounds: int,
  scratch: pathlib.Path,
  tasks: Sequence[str],
) -> list[dict[str, Any]]:
  """Measure the named tasks, see `measure`.

  Args:
    model: made by `making.write`.
    data_dir: made by `prompt-tuning data prepare`.
    cache_dir: of tokens.
    rounds: turns of each way.
    scratch: for batches.
    tasks: keys of `TASKS`.

  Returns:
    One row per task.
  """
  rows = []
  for name in tasks:
    tokens = cache.load_task(
      spec.task(TASKS[name]), "train", epochs.LENGTHS, cache_dir, data_dir
    )
    mean = float(np.mean(tokens.inputs.lengths))
    found = measure(model, tokens, rounds, scratch)
    rows.append({"task": name, "mean_tokens": round(mean, 1), **found})
    print(rows[-1], flush=True)
  return rows
