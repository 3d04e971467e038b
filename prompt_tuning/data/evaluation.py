"""Evaluation batches: every example exactly once."""

from collections.abc import Iterator

import numpy as np

from prompt_tuning.data import pipeline
from prompt_tuning.data.assembly import NumpyBatch, one_per_row
from prompt_tuning.data.pipeline import TEXT_ONLY, Layout, Tokens


class EvaluationBatches:
  """Every example exactly once, in its order, in batches of one shape.

  Examples are not sorted by length, because the first batches would then not be
  a fair sample of the split. Surplus rows of the last batch are all zero.
  """

  def __init__(
    self,
    tokens: Tokens,
    batch_size: int,
    *,
    layout: Layout = TEXT_ONLY,
    shard: tuple[int, int] = (0, 1),
  ):
    """Plan the batches.

    Args:
      tokens: the examples.
      batch_size: rows of the global batch.
      layout: virtual tokens.
      shard: (index, count) of this host, which gets that part of the rows.

    Raises:
      ValueError: no examples, or a batch size that the hosts cannot share.
    """
    self._assembler, lengths = pipeline.join([tokens], layout)
    self._rows = pipeline.shard_rows(batch_size, shard)
    shape = (batch_size, lengths.encoder_limit, lengths.decoder_limit)
    examples = np.arange(len(tokens.inputs))
    self._places = [
      one_per_row(examples[start : start + batch_size], shape)
      for start in range(0, len(examples), batch_size)
    ]

  def __iter__(self) -> Iterator[NumpyBatch]:
    for places in self._places:
      yield self._assembler(places.take(self._rows), packed=False)
