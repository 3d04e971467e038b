"""Packing of several examples into one row, and the choice of its length."""

import dataclasses

import numpy as np

from prompt_tuning.data.buckets import round_up

# Rows longer than this many times the longest example are not considered.
MAX_STRETCH = 4
# Row lengths with a lower share of tokens are used only if no others exist.
GOOD_DENSITY = 0.92
# At this row length attention between positions costs as much as everything
# else in a layer of T5 small (its width the least favourable of the family):
# 8 H N D + 6 H F against 4 T N D operations per position.
_ATTENTION_LENGTH = 3_000
_SAMPLE = 1024
# Encoder lengths of rows are multiples of this.
_MULTIPLE = 32


@dataclasses.dataclass(frozen=True)
class Rows:
  """Examples assigned to rows.

  Attributes:
    members: for every row, its examples in the order of their positions.
    encoder_used: [rows] encoder positions that hold tokens.
    decoder_used: [rows].
  """

  members: list[list[int]]
  encoder_used: np.ndarray
  decoder_used: np.ndarray


def best_fit(
  encoder_lengths: np.ndarray,
  decoder_lengths: np.ndarray,
  encoder_size: int,
  decoder_size: int,
  groups: np.ndarray | None = None,
) -> Rows:
  """Assign every example to a row: longest first, to the fullest row it fits.

  Args:
    encoder_lengths: [n] encoder positions of each example.
    decoder_lengths: [n] decoder positions of each example.
    encoder_size: T of a row.
    decoder_size: S of a row.
    groups: [n] integers; a row holds examples of one group only. None for one
      group.

  Returns:
    The rows; every example is in exactly one.

  Raises:
    ValueError: an example is longer than a row.

  Source: best-fit decreasing bin packing, here with two capacities; encoder
    positions decide which row is fullest.
  """
  n = len(encoder_lengths)
  if n and (
    encoder_lengths.max() > encoder_size or decoder_lengths.max() > decoder_size
  ):
    raise ValueError(
      f"Rows of {encoder_size} encoder and {decoder_size} decoder positions "
      f"cannot hold examples of {encoder_lengths.max()} and "
      f"{decoder_lengths.max()}; raise the packed length."
    )
  encoder_left = np.full(n, encoder_size)
  decoder_left = np.full(n, decoder_size)
  members: list[list[int]] = []
  groups = np.zeros(n, np.int64) if groups is None else groups
  group_of_row = np.zeros(n, groups.dtype)
  too_small = encoder_size + 1
  for example in np.argsort(-encoder_lengths, kind="stable"):
    encoder, decoder = encoder_lengths[example], decoder_lengths[example]
    opened = len(members)
    left = encoder_left[:opened]
    fits = (left >= encoder) & (decoder_left[:opened] >= decoder)
    fits &= group_of_row[:opened] == groups[example]
    room = np.where(fits, left, too_small)
    row = int(room.argmin()) if opened else 0
    if not opened or room[row] == too_small:
      row = opened
      members.append([])
      group_of_row[row] = groups[example]
    members[row].append(int(example))
    encoder_left[row] -= encoder
    decoder_left[row] -= decoder
  opened = len(members)
  return Rows(
    members,
    encoder_size - encoder_left[:opened],
    decoder_size - decoder_left[:opened],
  )


def choose_size(
  encoder_lengths: np.ndarray, decoder_lengths: np.ndarray
) -> tuple[int, int]:
  """Choose the row lengths from the lengths of a split.

  Packs an evenly spaced sample into rows of every candidate length, from the
  longest example to `MAX_STRETCH` times that.

  Args:
    encoder_lengths: [n] encoder positions of each example, virtual ones too.
    decoder_lengths: [n] decoder positions of each example.

  Returns:
    (T, S). Among lengths with at least `GOOD_DENSITY`, T has the lowest cost
    per example, counting padding and the attention that grows with T; if no
    length reaches it, T is the densest. S is what these rows need in the
    decoder, a multiple of 8.
  """
  step = -(-len(encoder_lengths) // _SAMPLE)
  encoder, decoder = encoder_lengths[::step], decoder_lengths[::step]
  unlimited = int(decoder.sum())
  longest = int(encoder_lengths.max())
  options = []
  smallest = round_up(longest, _MULTIPLE)
  for size in range(smallest, MAX_STRETCH * longest + _MULTIPLE, _MULTIPLE):
    rows = best_fit(encoder, decoder, size, unlimited)
    # The last row is rarely full; a small sample would overestimate its
    # padding.
    used = (
      rows.encoder_used[:-1] if len(rows.members) > 1 else rows.encoder_used
    )
    density = float(used.mean()) / size
    cost = (1 + size / _ATTENTION_LENGTH) / density
    needed = max(int(rows.decoder_used.max()), int(decoder_lengths.max()))
    options.append((density, cost, (size, round_up(needed, 8))))
  good = [option for option in options if option[0] >= GOOD_DENSITY]
  if good:
    return min(good, key=lambda option: option[1])[2]
  return max(options)[2]
