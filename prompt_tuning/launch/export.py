"""`prompt-tuning export MODEL_DIR DST`: a run's prompts for other programs."""

import argparse
import sys
from collections.abc import Sequence

from prompt_tuning.jobs.convert_job import PROMPTS


def main(argv: Sequence[str]) -> int:
  """Export the prompts of a run.

  Args:
    argv: the words after `prompt-tuning export`.

  Returns:
    0, or 2 where there is nothing to export.
  """
  args = _parser().parse_args(argv)
  from prompt_tuning.jobs import export

  try:
    lines = export.export_all(
      args.src, args.dst, args.to, args.config, args.license
    )
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  for line in lines:
    print(line)
  return 0


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
    choices=PROMPTS,
    default=list(PROMPTS),
    help="beside the delta: npy, as T5X loads it; peft, an adapter",
  )
  parser.add_argument(
    "--config",
    metavar="SIZE",
    help="the backbone, such as t5_1_1_base, for what PEFT records about it",
  )
  parser.add_argument(
    "--license",
    default="unknown",
    help="of what was learned, for the card: such as apache-2.0",
  )
  return parser
