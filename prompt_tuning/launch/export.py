"""`prompt-tuning export SRC DST`: a run's prompts, for other programs."""

import argparse
from collections.abc import Sequence

from prompt_tuning.jobs.convert_job import PROMPTS
from prompt_tuning.launch import console

STABLEHLO = "stablehlo"


def main(argv: Sequence[str]) -> int:
  """Export the prompts of a run.

  Args:
    argv: the words after `prompt-tuning export`.

  Returns:
    0, or 2 if there is nothing to export.
  """
  args = _parser().parse_args(argv)
  try:
    lines = _lines(args)
  except (ValueError, OSError) as error:
    console.error(error)
    return 2
  for line in lines:
    print(line)
  return 0


def _lines(args: argparse.Namespace) -> list[str]:
  """Export, and list what was written."""
  if STABLEHLO not in args.to:
    from prompt_tuning.jobs import export

    return export.export_all(
      args.src, args.dst, args.to, args.config, args.license
    )
  if args.to != [STABLEHLO]:
    raise ValueError(
      f"--to {STABLEHLO} makes a separate folder, so it cannot stand beside "
      f"other formats. Give only --to {STABLEHLO}."
    )
  if args.model is None:
    raise ValueError(
      f"--to {STABLEHLO} needs the model: give --model CHECKPOINT, such as "
      "--model embedded:ladder_1."
    )
  from prompt_tuning.jobs import serving

  return serving.export(
    args.src, args.dst, args.model, args.rows, args.inputs, args.length
  )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="prompt-tuning export", description=__doc__
  )
  parser.add_argument(
    "src",
    help="MODEL_DIR of a run (the best of each run), a bundle, a PEFT adapter",
  )
  parser.add_argument("dst", help="folder to write to")
  parser.add_argument(
    "--to",
    nargs="+",
    choices=(*PROMPTS, STABLEHLO),
    default=list(PROMPTS),
    help="what to write beside the delta: npy for T5X, peft for PEFT; or "
    "stablehlo, which writes a program that jax alone runs",
  )
  parser.add_argument(
    "--config",
    metavar="SIZE",
    help="size of the backbone, such as t5_1_1_base, which PEFT's files record",
  )
  parser.add_argument(
    "--license",
    help="licence of what was learned, such as apache-2.0; by default that "
    "of an earlier export",
  )
  program = parser.add_argument_group(STABLEHLO)
  program.add_argument(
    "--model",
    metavar="CHECKPOINT",
    help="checkpoint of the model that it was trained with",
  )
  program.add_argument(
    "--rows", type=int, default=8, help="number of texts in a batch"
  )
  program.add_argument(
    "--inputs", type=int, default=64, help="most tokens of a text"
  )
  program.add_argument(
    "--length", type=int, default=8, help="most tokens of an answer"
  )
  return parser
