"""Batches of few shapes for inputs of any length, with virtual tokens."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prompt_tuning.core.placement import Placement, count_soft, fill_soft
from prompt_tuning.core.types import EOS_ID, PAD_ID
from prompt_tuning.data.buckets import choose_boundaries
from prompt_tuning.infer.inputs import Inputs, Rows

_SHORTEST = 16  # below, padding costs less than another compilation


class BatchPlan(NamedTuple):
  """One batch to make.

  Attributes:
    examples: [n] indices of the inputs in its first rows, n <= rows.
    rows: number of rows, B.
    length: encoder positions, T.
  """

  examples: np.ndarray
  rows: int
  length: int

  @property
  def filled(self) -> np.ndarray:
    """[B] index of the input in every row; surplus rows repeat the last.

    Decoding a row of padding might never end; a copy ends with its original.
    """
    surplus = self.rows - len(self.examples)
    return np.pad(self.examples, (0, surplus), mode="edge")


@dataclasses.dataclass(frozen=True)
class Batching:
  """How inputs become batches.

  Lengths are rounded up to 16, 24, 32, 48, 64, 96, ... and rows to 1, 2, 3, 4,
  6, 8, ... so that later calls reuse compiled shapes.

  Attributes:
    batch_size: maximum number of rows.
    max_lengths: maximum number of different lengths in one call.

  Raises:
    ValueError: one of them is below 1.
  """

  batch_size: int = 32
  max_lengths: int = 4

  def __post_init__(self) -> None:
    if self.batch_size < 1 or self.max_lengths < 1:
      raise ValueError(
        f"BATCH_SIZE {self.batch_size} and max_lengths {self.max_lengths} must "
        "be 1 or more."
      )

  def insist_multiple(self, multiple: int) -> None:
    """Check that devices can share a batch.

    Args:
      multiple: see `plan`.

    Raises:
      ValueError: the batch size is not a multiple of it.
    """
    if self.batch_size % multiple:
      raise ValueError(
        f"BATCH_SIZE {self.batch_size} cannot be divided among {multiple} "
        "data-parallel devices; make it a multiple of that (in training, "
        "EVAL_BATCH_SIZE)."
      )

  def plan(self, lengths: np.ndarray, multiple: int = 1) -> list[BatchPlan]:
    """Divide inputs into batches, the longest inputs first.

    Args:
      lengths: [n] encoder positions of each input.
      multiple: the number of rows is a multiple of this (size of the mesh's
        data axis).

    Returns:
      The batches; every input is in exactly one.

    Raises:
      ValueError: the batch size is not a multiple of it.
    """
    self.insist_multiple(multiple)
    if not len(lengths):
      return []
    rungs = np.array([round_up(max(n, _SHORTEST)) for n in lengths.tolist()])
    allowed = np.asarray(choose_boundaries(rungs, self.max_lengths))
    # Longest first: a batch that does not fit into memory fails at once.
    order = np.argsort(-lengths, kind="stable")
    plan = []
    for start in range(0, len(order), self.batch_size):
      examples = order[start : start + self.batch_size]
      rows = -(-round_up(len(examples)) // multiple) * multiple
      length = allowed[np.searchsorted(allowed, rungs[examples[0]])]
      plan.append(BatchPlan(examples, min(rows, self.batch_size), int(length)))
    return plan


def round_up(length: int) -> int:
  """Return the next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: at most half more."""
  power = 1 << (length - 1).bit_length()
  return power * 3 // 4 if power * 3 // 4 >= length else power


def encoder_lengths(
  inputs: Inputs, placements: Sequence[Placement]
) -> np.ndarray:
  """Count the encoder positions of every input, virtual tokens included.

  Args:
    inputs: the token rows.
    placements: the placement of every run.

  Raises:
    ValueError: the number of an input's soft tokens differs from the number of
      its run's virtual tokens.
  """
  extra = np.array([placement.encoder_length for placement in placements])
  extra = extra[inputs.run_ids]
  lengths = np.zeros(len(inputs), np.int64)
  for i in range(len(inputs)):
    row = inputs.rows[i]
    lengths[i] = len(row)
    if count := count_soft(row):
      placements[inputs.run_ids[i]].insist_fills(count)
      extra[i] = 0
  return lengths + extra


def encoder_tokens(
  inputs: Inputs,
  plan: BatchPlan,
  placements: Sequence[Placement],
  vocab_rows: int,
) -> np.ndarray:
  """Write token rows and their virtual tokens into one batch.

  Args:
    inputs: the token rows.
    plan: the batch.
    placements: the placement of every run.
    vocab_rows: rows of the embedding table (V); virtual token r is V + r.

  Returns:
    [B, T] int32: prefix, text, suffix, EOS, then 0. In a text with soft tokens,
    the virtual tokens replace them.
  """
  tokens = np.full((plan.rows, plan.length), PAD_ID, np.int32)
  for row, example in enumerate(plan.filled.tolist()):
    placement = placements[inputs.run_ids[example]]
    text = inputs.rows[example]
    if count_soft(text):
      tokens[row, : len(text)] = fill_soft(text, placement, vocab_rows)
      continue
    # The suffix stands before the EOS, where there is one.
    end = len(text) - (len(text) > 0 and text[-1] == EOS_ID)
    first = min(1, end) if placement.encoder_infix else 0
    pieces = (
      _virtual(placement.encoder_prefix, vocab_rows),
      text[:first],
      _virtual(placement.encoder_infix, vocab_rows),
      text[first:end],
      _virtual(placement.encoder_suffix, vocab_rows),
      text[end:],
    )
    placed = np.concatenate(pieces)
    tokens[row, : len(placed)] = placed
  return tokens


def decoder_starts(
  placements: Sequence[Placement], vocab_rows: int
) -> np.ndarray | None:
  """Build the first tokens of each run's decoder.

  Args:
    placements: the placement of every run.
    vocab_rows: rows of the embedding table (V).

  Returns:
    [K, Q] int32, the run's virtual tokens and the start token 0, padded on the
    left; None if no run has virtual tokens in the decoder.
  """
  longest = max(placement.decoder_length for placement in placements)
  if not longest:
    return None
  starts = np.full((len(placements), longest + 1), PAD_ID, np.int32)
  for run, placement in enumerate(placements):
    begin = longest - placement.decoder_length
    starts[run, begin:longest] = _virtual(placement.decoder_prefix, vocab_rows)
  return starts


def pad_targets(targets: Sequence[Rows], rows: int) -> np.ndarray:
  """Align the candidates of every row.

  Args:
    targets: for every row, the token rows of its candidates, at least one.
    rows: B; surplus rows have no candidate.

  Returns:
    [B, C, S] int32, padded with 0. C and S are rounded up unless all rows have
    the same number of candidates.
  """
  counts = {len(candidates) for candidates in targets}
  most = max(counts)
  if len(counts) > 1:
    most = round_up(most)
  longest = max(len(c[i]) for c in targets for i in range(len(c)))
  # The program reads the first token apart from the rest: at least two.
  length = round_up(max(longest, 2))
  padded = np.full((rows, most, length), PAD_ID, np.int32)
  for row, candidates in enumerate(targets):
    for index in range(len(candidates)):
      ids = candidates[index]
      padded[row, index, : len(ids)] = ids
  return padded


def _virtual(rows: tuple[int, ...], vocab_rows: int) -> np.ndarray:
  return vocab_rows + np.asarray(rows, np.int32)
