"""`prompt-tuning convert SRC DST --to FORMAT`: models and prompts."""

import argparse
import re
from collections.abc import Sequence

from prompt_tuning.jobs import convert_job
from prompt_tuning.jobs.convert_job import Conversion
from prompt_tuning.launch import console


def main(argv: Sequence[str]) -> int:
  """Write a checkpoint or a prompt in another format.

  Args:
    argv: the words after `prompt-tuning convert`.

  Returns:
    0, or 2 if the source is wrong or the destination exists; then nothing has
    been written.
  """
  args = _parser().parse_args(argv)
  from prompt_tuning.jobs import convert

  try:
    notes = convert.convert(
      Conversion(
        args.src,
        args.dst,
        args.to,
        dtype=args.dtype,
        size=args.config,
        ignore=args.ignore,
        step=args.step,
        base_model=args.base_model,
        overwrite=args.overwrite,
      )
    )
  except (ValueError, OSError) as error:
    console.error(error)
    return 2
  for note in notes:
    print(f"note: {note}")
  print(f"{args.dst}: written as {args.to}")
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="prompt-tuning convert", description=__doc__
  )
  parser.add_argument(
    "src",
    help="checkpoint, NumPy prompt, adapter, bundle, export or MODEL_DIR; the "
    "format is detected",
  )
  parser.add_argument(
    "dst",
    help="the folder to make, or for npy the file; for t5x it must be "
    "called checkpoint_<step>",
  )
  parser.add_argument(
    "--to",
    required=True,
    choices=(*convert_job.MODELS, *convert_job.PROMPTS),
    help="the format to write",
  )
  parser.add_argument(
    "--dtype",
    choices=convert_job.DTYPES,
    help="dtype of the parameters to write; by default their own",
  )
  parser.add_argument(
    "--config",
    metavar="SIZE",
    help="refuse any size but this, such as t5_1_1_small",
  )
  parser.add_argument(
    "--ignore",
    action="append",
    default=[],
    type=_pattern,
    metavar="PATTERN",
    help="leave out parameters whose whole path matches; may be repeated",
  )
  parser.add_argument(
    "--step", type=_step, help="training step to write, for t5x"
  )
  parser.add_argument(
    "--base-model", help="name of the backbone to write, for peft"
  )
  parser.add_argument(
    "--overwrite",
    action="store_true",
    help="replace what is there, if it is a checkpoint or a prompt",
  )
  return parser


def _step(text: str) -> int:
  """Read a training step; T5X keeps it as an int32."""
  if not text.isdecimal() or int(text) >= 1 << 31:
    raise argparse.ArgumentTypeError(
      f"a step is a number from 0 to {(1 << 31) - 1}; got {text!r}"
    )
  return int(text)


def _pattern(text: str) -> str:
  """Check that a pattern is a regular expression."""
  try:
    re.compile(text)
  except re.error as error:
    raise argparse.ArgumentTypeError(
      f"{text!r} is not a regular expression: {error}"
    ) from error
  return text
