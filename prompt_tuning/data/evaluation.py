"""Evaluation batches: every example exactly once."""

from collections.abc import Iterator

import numpy as np

from prompt_tuning.data import pipeline, planning
from prompt_tuning.data.assembly import NumpyBatch, one_per_row
from prompt_tuning.data.pipeline import TEXT_ONLY, Layout, Tokens


class EvaluationBatches:
  """Every example exactly once, in batches of one size.

  Each batch also has `example_index` [B] int32, the example's number in the
  token store (-1 for padding rows, which are all zero) and `example_mask` [B]
  bool. With `buckets` and `longest`, examples are read in the order of their
  length; `fixed` keeps their own order.

  Attributes:
    shapes: every (B, T, S) of the global batches, or None for `longest`.
  """

  def __init__(
    self,
    tokens: Tokens,
    batch_size: int,
    *,
    layout: Layout = TEXT_ONLY,
    batching: str = "buckets",
    max_shapes: int = 4,
    shard: tuple[int, int] = (0, 1),
  ):
    """Plan the batches.

    Args:
      tokens: the examples.
      batch_size: rows of the global batch.
      layout: virtual tokens.
      batching: `fixed`, `longest` or `buckets`.
      max_shapes: most buckets.
      shard: (index, count) of this host, which gets that part of the rows.

    Raises:
      ValueError: no examples, another batching, or a batch size that the hosts
        cannot share.
    """
    if batching == "packed":
      raise ValueError(
        "Evaluation needs one example per row; use batching `buckets`."
      )
    self._assembler, lengths = pipeline.join([tokens], layout)
    planner = planning.make_planner(batching, batch_size, lengths, max_shapes)
    self._rows = pipeline.shard_rows(batch_size, shard)
    self.shapes = planner.shapes
    examples = np.arange(len(tokens.inputs))
    if batching != "fixed":
      examples = np.argsort(lengths.encoder, kind="stable")
    self._batch_size = batch_size
    self._slots = []
    for start in range(0, len(examples), batch_size):
      rows = examples[start : start + batch_size]
      self._slots.append(one_per_row(rows, planner.shape_of(rows)))

  def __len__(self) -> int:
    return len(self._slots)

  def __iter__(self) -> Iterator[NumpyBatch]:
    for slots in self._slots:
      batch = self._assembler(slots.take(self._rows), packed=False)
      index = np.full(self._batch_size, -1, np.int32)
      index[: len(slots.examples)] = slots.examples
      batch["example_index"] = index[self._rows]
      batch["example_mask"] = index[self._rows] >= 0
      yield batch
