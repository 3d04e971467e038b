"""Where a tuner's virtual tokens stand in the encoder and decoder inputs."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Placement:
  """Rows of `Delta.virtual` to place around an example's own tokens.

  The data pipeline writes row r as token id V + r, where V is the number of
  rows of the embedding table (32,128 for T5, not the tokenizer's 32,100).

  Attributes:
    encoder_prefix: rows before the input text.
    encoder_suffix: rows after the input text, before its EOS.
    decoder_prefix: rows before the decoder's start token.
  """

  encoder_prefix: tuple[int, ...] = ()
  encoder_suffix: tuple[int, ...] = ()
  decoder_prefix: tuple[int, ...] = ()

  @property
  def encoder_length(self) -> int:
    """Positions that virtual tokens take in the encoder input."""
    return len(self.encoder_prefix) + len(self.encoder_suffix)

  @property
  def decoder_length(self) -> int:
    """Positions that virtual tokens take in the decoder input."""
    return len(self.decoder_prefix)
