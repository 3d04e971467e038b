"""The runs that a batch may mix: one delta, and the places of its tokens."""

import dataclasses
from collections.abc import Sequence

import jax

from prompt_tuning.core import algebra
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement


@dataclasses.dataclass(frozen=True)
class Runs:
  """K tuned runs.

  Attributes:
    delta: arrays with a leading run axis of size K; `Delta()` is the model
      without tuning.
    placements: positions of each run's virtual tokens; of any lengths, if
      `delta.virtual` has the rows they name.
    answers: texts of every run's learned output rows, in order; empty if no run
      has any.
    weighed_words: for every run and every class, the words with learned
      weights, in order; empty if no run has any.
    in_template: for every run, whether its virtual tokens go where a task's
      template places them, which plain texts do not mark; empty if no run has
      such tokens.

  Raises:
    ValueError: delta and placements disagree about the number of runs, or a
      placement names a row that `delta.virtual` does not have.
  """

  delta: Delta = dataclasses.field(default_factory=Delta)
  placements: tuple[Placement, ...] = (Placement(),)
  answers: tuple[tuple[str, ...], ...] = ()
  weighed_words: tuple[tuple[tuple[str, ...], ...], ...] = ()
  in_template: tuple[bool, ...] = ()

  def __post_init__(self) -> None:
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(self.delta)} or {1}
    if sizes != {len(self.placements)}:
      raise ValueError(
        f"The delta's arrays have {sorted(sizes)} runs, but there are "
        f"{len(self.placements)} placements; expected one placement for each "
        "run."
      )
    virtual = self.delta.virtual
    rows = 0 if virtual is None else virtual.shape[1]
    for run, placement in enumerate(self.placements):
      named = (
        *placement.encoder_rows,
        *placement.decoder_prefix,
      )
      if any(not 0 <= row < rows for row in named):
        raise ValueError(
          f"Run {run} places virtual tokens {min(named)} to {max(named)}; "
          f"its delta has rows 0 to {rows - 1}."
        )

  def answers_of(self, run: int) -> tuple[str, ...]:
    """Return the texts of a run's learned output rows."""
    return self.answers[run] if self.answers else ()

  def weighed_words_of(self, run: int) -> tuple[tuple[str, ...], ...]:
    """Return the words of every class that a run has learned weights for."""
    return self.weighed_words[run] if self.weighed_words else ()

  def is_in_template(self, run: int) -> bool:
    """Return whether a template places a run's virtual tokens."""
    return run in range(len(self.in_template)) and self.in_template[run]

  def __len__(self) -> int:
    return len(self.placements)

  def one(self, run: int) -> "Runs":
    """Select one run."""
    delta = algebra.select(self.delta, slice(run, run + 1))
    return Runs(
      delta,
      (self.placements[run],),
      (self.answers_of(run),),
      (self.weighed_words_of(run),),
      (self.is_in_template(run),),
    )


def join(parts: Sequence[Runs]) -> Runs:
  """Join runs that were tuned separately.

  They may tune different parts, see `core.algebra.join`.

  Args:
    parts: runs of one model, at least one.

  Returns:
    All of them, in order.

  Raises:
    ValueError: no parts, or they belong to different models.
  """
  if not parts:
    raise ValueError("Nothing to join; expected the runs of at least one part.")
  delta = algebra.join([part.delta for part in parts], list(map(len, parts)))
  placements = tuple(p for part in parts for p in part.placements)
  site = delta.prefix.get("dec_self")
  positioned = site is not None and site.positioned is not None
  if positioned and any(p.decoder_length for p in placements):
    raise ValueError(
      "A prefix with positions in the decoder cannot share a batch with "
      "virtual tokens in the decoder's input: these would stand between the "
      "prefix and the text of other rows. Use separate batches."
    )
  each = [(part, k) for part in parts for k in range(len(part))]
  return Runs(
    delta,
    placements,
    tuple(part.answers_of(k) for part, k in each),
    tuple(part.weighed_words_of(k) for part, k in each),
    tuple(part.is_in_template(k) for part, k in each),
  )
