"""What each way of making batches makes of one epoch, and what to time of it.

An epoch of BoolQ takes hours here. Its time is that of a few batches, each
counted as often as an epoch has batches like it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prompt_tuning.core.placement import Placement
from prompt_tuning.data.pipeline import Layout, Tokens, TrainBatches

ROWS = 8
PROMPT_LENGTH = 100
LENGTHS = {"inputs": 512, "targets": 16}
LAYOUT = Layout(Placement(tuple(range(PROMPT_LENGTH))))

Batch = Mapping[str, np.ndarray]


class Epoch(NamedTuple):
  """An epoch by a few of its batches.

  Attributes:
    batches: to time.
    counts: how many of the epoch's batches each of them stands for.
    examples: of the whole epoch.
    widest: as many positions as any batch of the epoch has.
  """

  batches: Sequence[Batch]
  counts: Sequence[float]
  examples: int
  widest: Batch

  def rate(self, seconds: Sequence[float]) -> float:
    """Compute examples per second.

    Args:
      seconds: of each batch.
    """
    pairs = zip(self.counts, seconds, strict=True)
    return self.examples / sum(count * spent for count, spent in pairs)


def own(tokens: Tokens, batching: str) -> Epoch:
  """Describe an epoch of the project's pipeline: every shape that occurs.

  Args:
    tokens: of a split.
    batching: see `TrainBatches`.
  """
  first: dict[tuple[int, ...], Batch] = {}
  counts: dict[tuple[int, ...], int] = {}
  examples = 0
  for batch in TrainBatches(
    tokens, ROWS, seed=0, layout=LAYOUT, batching=batching
  ):
    shape = tuple(n for array in batch.values() for n in array.shape)
    first.setdefault(shape, batch)
    counts[shape] = counts.get(shape, 0) + 1
    examples += count_examples(batch)
    if examples >= len(tokens.inputs):
      break
  batches = list(first.values())
  return Epoch(batches, list(counts.values()), examples, max(batches, key=size))


def fixed(tokens: Tokens) -> Epoch:
  """Describe an epoch of batches that are all padded to the limits."""
  total = len(tokens.inputs)
  batch = pad(texts(tokens, np.arange(total)[:ROWS]), LENGTHS)
  return Epoch([batch], [total / ROWS], total, batch)


def longest(tokens: Tokens, samples: int) -> Epoch:
  """Describe an epoch of shuffled batches, each padded to its longest row.

  Args:
    tokens: of a split.
    samples: batches to time. The epoch's are sorted by width and cut into as
      many equal parts; the one in the middle of each stands for all of it.
  """
  total = len(tokens.inputs)
  order = np.random.default_rng(0).permutation(total)
  whole = order[: total // ROWS * ROWS].reshape(-1, ROWS)
  widths = np.asarray(tokens.inputs.lengths)[whole].max(axis=1)
  parts = np.array_split(whole[np.argsort(widths, kind="stable")], samples)
  parts = [part for part in parts if len(part)]
  chosen = [longest_of(texts(tokens, part[len(part) // 2])) for part in parts]
  widest = longest_of(texts(tokens, whole[np.argmax(widths)]))
  return Epoch(chosen, [len(part) for part in parts], whole.size, widest)


def texts(tokens: Tokens, rows: np.ndarray) -> dict[str, list[np.ndarray]]:
  """Look up examples: `inputs` and `targets`, as many arrays of ids each."""
  return {
    "inputs": [np.asarray(tokens.inputs[int(row)]) for row in rows],
    "targets": [np.asarray(tokens.targets[int(row)]) for row in rows],
  }


def longest_of(rows: Mapping[str, list[np.ndarray]]) -> Batch:
  """Pad rows to their longest."""
  return pad(rows, {name: max(map(len, ids)) for name, ids in rows.items()})


def pad(
  rows: Mapping[str, Sequence[np.ndarray]], lengths: Mapping[str, int]
) -> Batch:
  """Pad rows to given lengths: [B, T] and [B, S], int32."""
  return {
    name: np.stack(
      [np.pad(row, (0, lengths[name] - len(row))) for row in ids]
    ).astype(np.int32)
    for name, ids in rows.items()
  }


def without_prompt(batch: Batch) -> dict[str, np.ndarray]:
  """Return the texts of a batch of the pipeline, [B, T] and [B, S].

  A bucket may be a few positions of padding wider than the limits.
  """
  texts = {
    "inputs": batch["encoder_input_tokens"][:, PROMPT_LENGTH:],
    "targets": batch["decoder_target_tokens"],
  }
  return {name: ids[:, : LENGTHS[name]] for name, ids in texts.items()}


def count_examples(batch: Batch) -> int:
  """Count a pipeline's batch's examples: its segments, or rows with targets."""
  segments = batch.get("decoder_segment_ids")
  if segments is not None:
    return int(segments.max(axis=1).sum())
  return int((batch["decoder_target_tokens"] > 0).any(axis=1).sum())


def size(batch: Batch) -> int:
  """Count a batch's encoder positions."""
  name = "encoder_input_tokens" if "encoder_input_tokens" in batch else "inputs"
  return batch[name].size
