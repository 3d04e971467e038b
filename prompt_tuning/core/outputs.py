"""What the frozen model gives for a batch of inputs and targets."""

from typing import NamedTuple

from prompt_tuning.core.types import Array


class Outputs(NamedTuple):
  """What objectives may read.

  A compiled step keeps none of it that its objective does not read.

  Attributes:
    logits: [B, S, V], or [B, S, V + C] with learned output rows.
    encoder_states: [B, T, H] of the encoder's last norm; None where whoever
      made the logits has none.
    decoder_states: [B, S, H], what the output head reads; None likewise.
  """

  logits: Array
  encoder_states: Array | None = None
  decoder_states: Array | None = None
