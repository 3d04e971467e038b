"""The job of `convert`, as plain values."""

import dataclasses
from collections.abc import Sequence

MODELS = ("t5x", "hf")
PROMPTS = ("npy", "peft")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Conversion:
  """A conversion.

  Attributes:
    src: source, in any format; the format is detected.
    dst: folder to make, or for npy the file.
    to: one of `MODELS` or `PROMPTS`.
    dtype: of a model's parameters, one of `DTYPES`; None as they are.
    size: name of a published one to insist on; None takes it from the shapes.
    ignore: patterns of parameters to leave out.
    step: training step, for t5x; None for the source's own.
    base_model: name of the backbone, for peft.
    overwrite: replace what is there, if it is a checkpoint or a prompt.
  """

  src: str
  dst: str
  to: str
  dtype: str | None = None
  size: str | None = None
  ignore: Sequence[str] = ()
  step: int | None = None
  base_model: str | None = None
  overwrite: bool = False
