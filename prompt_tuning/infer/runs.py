"""The runs that a batch may mix: one delta, and where its tokens stand."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.types import Array


@dataclasses.dataclass(frozen=True)
class Runs:
  """What was tuned, K times.

  Attributes:
    delta: arrays with a leading run axis of size K; `Delta()` is the plain
      model.
    placements: where each run's virtual tokens stand; of any lengths, as long
      as `delta.virtual` has the rows they name.

  Raises:
    ValueError: delta and placements disagree about the number of runs, or a
      placement names a row that `delta.virtual` has not.
  """

  delta: Delta = dataclasses.field(default_factory=Delta)
  placements: tuple[Placement, ...] = (Placement(),)

  def __post_init__(self) -> None:
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(self.delta)} or {1}
    if sizes != {len(self.placements)}:
      raise ValueError(
        f"The delta's arrays have {sorted(sizes)} runs, and there are "
        f"{len(self.placements)} placements; expected one placement per run."
      )
    virtual = self.delta.virtual
    rows = 0 if virtual is None else virtual.shape[1]
    for run, placement in enumerate(self.placements):
      named = (
        *placement.encoder_prefix,
        *placement.encoder_suffix,
        *placement.decoder_prefix,
      )
      if any(not 0 <= row < rows for row in named):
        raise ValueError(
          f"Run {run} places virtual tokens {min(named)} to {max(named)}; "
          f"its delta has rows 0 to {rows - 1}."
        )

  def __len__(self) -> int:
    return len(self.placements)

  def one(self, run: int) -> "Runs":
    """Take one run out."""
    delta = jax.tree.map(lambda leaf: leaf[run : run + 1], self.delta)
    return Runs(delta, (self.placements[run],))


def join(parts: Sequence[Runs]) -> Runs:
  """Put runs that were tuned apart side by side.

  Virtual tokens are padded with zero rows to the longest, which no placement
  names; all other arrays must have equal shapes.

  Args:
    parts: runs of one model, at least one.

  Returns:
    All of them, in order.

  Raises:
    ValueError: no parts, or they tune different things.
  """
  if not parts:
    raise ValueError("Nothing to join; expected the runs of at least one part.")
  longest = _longest([part.delta.virtual for part in parts])
  padded = [_pad(part, longest) for part in parts]
  try:
    delta = jax.tree.map(_concatenate, *padded)
  except (ValueError, TypeError) as error:
    raise ValueError(
      "Runs in one batch must tune the same arrays of the model, of equal "
      f"shapes but for the number of virtual tokens: {error}"
    ) from error
  return Runs(delta, tuple(p for part in parts for p in part.placements))


def _longest(virtual: Sequence[Array | None]) -> tuple[int, int] | None:
  """Find the [P, H] that holds every part's virtual tokens."""
  shapes = [v.shape[1:] for v in virtual if v is not None]
  if not shapes:
    return None
  if len({width for _, width in shapes}) > 1:
    raise ValueError(
      "The virtual tokens of different parts have widths "
      f"{[width for _, width in shapes]}; they belong to different models."
    )
  return max(length for length, _ in shapes), shapes[0][1]


def _pad(part: Runs, shape: tuple[int, int] | None) -> Delta:
  if shape is None:
    return part.delta
  virtual = part.delta.virtual
  if virtual is None:
    virtual = jnp.zeros((len(part), 0, shape[1]), jnp.float32)
  missing = shape[0] - virtual.shape[1]
  virtual = jnp.pad(virtual, ((0, 0), (0, missing), (0, 0)))
  return dataclasses.replace(part.delta, virtual=virtual)


def _concatenate(*arrays: Array) -> Array:
  if len({(a.shape[1:], a.dtype) for a in arrays}) > 1:
    raise ValueError(", ".join(f"{a.dtype}{list(a.shape)}" for a in arrays))
  return jnp.concatenate(arrays)
