"""Assembly of token rows and virtual tokens into the arrays of one batch.

An example's encoder segment is

  encoder_prefix  text  encoder_suffix  EOS
                  (encoder_infix behind its first token)

or, if the text has soft tokens (of a template), the text with virtual tokens in
their place. Its decoder segment, with the targets shifted right behind the
start token, is

  input    decoder_prefix  0  y1 .. yn-1
  target   0 .. 0          y1 .. yn
  weight   0 .. 0          1  .. 1

An unpacked row holds one segment, a packed row several. Each segment has its
own virtual tokens, so that every example gives the same result in a packed
batch as alone.
"""

import dataclasses
import functools

import numpy as np

from prompt_tuning.core.placement import FIRST_SOFT, Placement, fill_soft
from prompt_tuning.core.types import EOS_ID
from prompt_tuning.data.ragged import Ragged, ranges

# One batch: T5X feature name -> int32 or float32 (masks: bool) array.
NumpyBatch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ExamplePlaces:
  """Positions of the examples of a batch.

  Attributes:
    shape: (B, T, S) of the batch.
    examples: [n] row indices in the token store.
    rows: [n] batch row of each example.
    encoder_starts: [n] first encoder position of each example in that row.
    decoder_starts: [n] first decoder position of each example in that row.
    segments: [n] segment id of each example, 1-based within the row.
  """

  shape: tuple[int, int, int]
  examples: np.ndarray
  rows: np.ndarray
  encoder_starts: np.ndarray
  decoder_starts: np.ndarray
  segments: np.ndarray

  def take(self, rows: slice) -> "ExamplePlaces":
    """Restrict to some batch rows: one host's part of a global batch."""
    start, stop, _ = rows.indices(self.shape[0])
    inside = (self.rows >= start) & (self.rows < stop)
    return ExamplePlaces(
      (stop - start, *self.shape[1:]),
      self.examples[inside],
      self.rows[inside] - start,
      self.encoder_starts[inside],
      self.decoder_starts[inside],
      self.segments[inside],
    )


def one_per_row(
  examples: np.ndarray, shape: tuple[int, int, int]
) -> ExamplePlaces:
  """Give every example its own row; surplus rows stay empty.

  Args:
    examples: [n] row indices in the token store, n <= B.
    shape: (B, T, S) of the batch.
  """
  zeros = np.zeros(len(examples), np.int64)
  return ExamplePlaces(
    shape, examples, np.arange(len(examples)), zeros, zeros, zeros + 1
  )


@dataclasses.dataclass(frozen=True)
class Assembler:
  """Writes examples and their virtual tokens into batch arrays.

  Attributes:
    inputs: encoder token rows, each ending in EOS if the task appends one.
    targets: decoder token rows.
    placement: the positions of the virtual tokens.
    vocab_rows: rows of the embedding table; the id of virtual token r is this
      number plus r.
  """

  inputs: Ragged
  targets: Ragged
  placement: Placement
  vocab_rows: int

  @functools.cached_property
  def has_soft(self) -> np.ndarray:
    """[examples] bool, whether the text marks positions of virtual tokens.

    Raises:
      ValueError: the number of a text's soft tokens differs from the number of
        virtual tokens.
    """
    values, offsets = self.inputs.values, self.inputs.offsets
    has = np.zeros(len(self.inputs), bool)
    if np.iinfo(values.dtype).max < FIRST_SOFT:
      return has
    places = np.flatnonzero(values >= FIRST_SOFT)
    rows = np.searchsorted(offsets, places, side="right") - 1
    highest = np.zeros(len(self.inputs), np.int64)
    np.maximum.at(highest, rows, values[places] - FIRST_SOFT + 1)
    for count in np.unique(highest[rows]).tolist():
      self.placement.insist_fills(count)
    has[rows] = True
    return has

  def encoder_lengths(self) -> np.ndarray:
    """[examples] int64, encoder positions with virtual tokens."""
    around = np.where(self.has_soft, 0, self.placement.encoder_length)
    return self.inputs.lengths + around

  def decoder_lengths(self) -> np.ndarray:
    """[examples] int64, decoder positions with virtual tokens."""
    return self.targets.lengths + self.placement.decoder_length

  def __call__(self, places: ExamplePlaces, packed: bool) -> NumpyBatch:
    """Build one batch.

    Args:
      places: where each example stands.
      packed: also give segment ids, 1-based, 0 for padding.

    Returns:
      `encoder_input_tokens` [B, T], `decoder_input_tokens`,
      `decoder_target_tokens` [B, S] int32, `decoder_loss_weights` [B, S]
      float32; if packed `encoder_segment_ids` [B, T], `decoder_segment_ids`
      [B, S] int32.
    """
    B, T, S = places.shape
    batch = {
      "encoder_input_tokens": np.zeros((B, T), np.int32),
      "decoder_input_tokens": np.zeros((B, S), np.int32),
      "decoder_target_tokens": np.zeros((B, S), np.int32),
      "decoder_loss_weights": np.zeros((B, S), np.float32),
    }
    encoder_bases = places.rows * T + places.encoder_starts
    decoder_bases = places.rows * S + places.decoder_starts
    self._write_encoder(batch, places.examples, encoder_bases)
    self._write_decoder(batch, places.examples, decoder_bases)
    if packed:
      for stack, length, bases, lengths in (
        ("encoder", T, encoder_bases, self.encoder_lengths()),
        ("decoder", S, decoder_bases, self.decoder_lengths()),
      ):
        ids = np.zeros((B, length), np.int32)
        sizes = lengths[places.examples]
        positions = np.repeat(bases, sizes) + ranges(sizes)
        ids.reshape(-1)[positions] = np.repeat(places.segments, sizes)
        batch[f"{stack}_segment_ids"] = ids
    return batch

  def _write_encoder(
    self, batch: NumpyBatch, examples: np.ndarray, bases: np.ndarray
  ) -> None:
    has_soft = self.has_soft[examples]
    self._write_texts(batch, examples[~has_soft], bases[~has_soft], True)
    self._write_texts(batch, examples[has_soft], bases[has_soft], False)

  def _write_texts(
    self,
    batch: NumpyBatch,
    examples: np.ndarray,
    bases: np.ndarray,
    around: bool,
  ) -> None:
    """Write texts with virtual tokens around them or in place of soft ones."""
    flat = batch["encoder_input_tokens"].reshape(-1)
    prefix = self._virtual(self.placement.encoder_prefix if around else ())
    infix = self._virtual(self.placement.encoder_infix if around else ())
    suffix = self._virtual(self.placement.encoder_suffix if around else ())
    lengths = self.inputs.lengths[examples]
    values, within = self.inputs.gather(examples)
    positions = np.repeat(bases + len(prefix), lengths) + within
    if len(infix) or len(suffix):
      eos, has_eos = _ends(values, lengths)
      first = np.minimum(lengths - has_eos, 1)
      # The tokens after the first one move to the right. The suffix goes before
      # the EOS, which therefore moves further.
      positions[within >= np.repeat(first, lengths)] += len(infix)
      positions[eos] += len(suffix)
      starts = bases + len(prefix) + first
      flat[starts[:, None] + np.arange(len(infix))] = infix
      ends = bases + len(prefix) + len(infix) + lengths - has_eos
      flat[ends[:, None] + np.arange(len(suffix))] = suffix
    if not around:
      values = fill_soft(values, self.placement, self.vocab_rows)
    flat[positions] = values
    flat[bases[:, None] + np.arange(len(prefix))] = prefix

  def _write_decoder(
    self, batch: NumpyBatch, examples: np.ndarray, bases: np.ndarray
  ) -> None:
    prefix = self._virtual(self.placement.decoder_prefix)
    lengths = self.targets.lengths[examples]
    values, within = self.targets.gather(examples)
    positions = np.repeat(bases + len(prefix), lengths) + within
    batch["decoder_target_tokens"].reshape(-1)[positions] = values
    batch["decoder_loss_weights"].reshape(-1)[positions] = 1.0
    inputs = batch["decoder_input_tokens"].reshape(-1)
    has_next = within < np.repeat(lengths, lengths) - 1
    inputs[positions[has_next] + 1] = values[has_next]
    inputs[bases[:, None] + np.arange(len(prefix))] = prefix

  def _virtual(self, rows: tuple[int, ...]) -> np.ndarray:
    return self.vocab_rows + np.asarray(rows, np.int64)


def _ends(
  values: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Find the EOS tokens at the ends of texts.

  Args:
    values: ids of all texts, concatenated.
    lengths: [n] number of tokens of each text.

  Returns:
    Their positions in `values`; and [n] int64, 1 for a text with an EOS.
  """
  last = np.cumsum(lengths)[lengths > 0] - 1
  eos = last[values[last] == EOS_ID]
  has_eos = np.zeros(len(lengths), np.int64)
  has_eos[np.searchsorted(np.cumsum(lengths), eos, side="right")] = 1
  return eos, has_eos
