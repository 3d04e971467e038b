"""Where a tuner's virtual tokens stand in the encoder and decoder inputs."""

import dataclasses
from typing import ClassVar

import numpy as np

# Token rows of a template hold this number plus r in place of virtual token r.
# It is beyond every vocabulary, so no model answers with such an id. When
# batches are made, V + r takes its place.
FIRST_SOFT = 1 << 24


@dataclasses.dataclass(frozen=True)
class Placement:
  """Rows of `Delta.virtual` to place around an example's own tokens.

  The data pipeline writes row r as token id V + r, where V is the number of
  rows of the embedding table (32,128 for T5, not the tokenizer's 32,100).

  A text that has soft tokens, as a template writes them, says itself where
  virtual tokens stand: then the encoder's rows, before and after, take the
  places of soft tokens, and none is added.

  Attributes:
    encoder_prefix: rows before the input text.
    encoder_suffix: rows after the input text, before its EOS.
    decoder_prefix: rows before the decoder's start token.
    encoder_infix: rows behind the first token of the input text.
    later: fields that files of older versions do not have.
  """

  later: ClassVar[tuple[str, ...]] = ("encoder_infix",)

  encoder_prefix: tuple[int, ...] = ()
  encoder_suffix: tuple[int, ...] = ()
  decoder_prefix: tuple[int, ...] = ()
  encoder_infix: tuple[int, ...] = ()

  @property
  def encoder_rows(self) -> tuple[int, ...]:
    """All rows of the encoder input, in order."""
    return self.encoder_prefix + self.encoder_infix + self.encoder_suffix

  @property
  def encoder_length(self) -> int:
    """Positions that virtual tokens take in the encoder input."""
    return len(self.encoder_rows)

  @property
  def decoder_length(self) -> int:
    """Positions that virtual tokens take in the decoder input."""
    return len(self.decoder_prefix)

  def described(self) -> dict[str, tuple[int, ...]]:
    """Return the fields, for files: those that came later where they say more.

    Runs and exports of older versions have no others.
    """
    fields = dataclasses.asdict(self)
    return {k: v for k, v in fields.items() if v or k not in self.later}

  def insist_fills(self, count: int) -> None:
    """Insist on as many virtual tokens as a text has soft ones.

    Args:
      count: how many there are.

    Raises:
      ValueError: there are more, or fewer.
    """
    if count != self.encoder_length:
      raise ValueError(
        f"The task's template has {count} soft tokens, but the method makes "
        f"{self.encoder_length} virtual tokens for the encoder. Set the "
        f"method's length (PROMPT_LENGTH, P_TUNING_LENGTH) to {count}"
        + (
          "."
          if self.encoder_length
          else ", choose a method that has virtual tokens, or a template "
          "without soft tokens."
        )
      )


def count_soft(tokens: np.ndarray) -> int:
  """Count the soft tokens of a token row.

  Args:
    tokens: [n] ids.
  """
  if not len(tokens) or tokens.max() < FIRST_SOFT:
    return 0
  return int(tokens.max()) - FIRST_SOFT + 1


def fill_soft(
  tokens: np.ndarray, placement: Placement, vocab_rows: int
) -> np.ndarray:
  """Write virtual tokens in the place of soft ones.

  Args:
    tokens: [n] ids, of one row or of several.
    placement: of at least as many virtual tokens as there are soft ones.
    vocab_rows: V.

  Returns:
    [n] int32 ids.
  """
  tokens = np.asarray(tokens, np.int32)
  soft = tokens >= FIRST_SOFT
  if soft.any():
    rows = np.asarray(placement.encoder_rows, np.int32)
    tokens = tokens.copy()
    tokens[soft] = vocab_rows + rows[tokens[soft] - FIRST_SOFT]
  return tokens
