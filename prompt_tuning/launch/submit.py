"""`prompt-tuning submit ANSWERS DST`: leaderboard files of SuperGLUE, GLUE."""

import argparse
from collections.abc import Sequence

from prompt_tuning.launch import console


def main(argv: Sequence[str]) -> int:
  """Write the official files of SuperGLUE and GLUE.

  Args:
    argv: the words after `prompt-tuning submit`.

  Returns:
    0, or 2 if the answers are not those of a whole test split.
  """
  arguments = _parser().parse_args(argv)
  from prompt_tuning.jobs import submit

  try:
    lines = submit.submit(arguments.src, arguments.dst, arguments.illegal)
  except (ValueError, OSError) as error:
    console.error(error)
    return 2
  for line in lines:
    print(line)
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="prompt-tuning submit", description=__doc__
  )
  parser.add_argument(
    "src", help="INFER_OUTPUT_DIR with answers to test splits"
  )
  parser.add_argument("dst", help="folder to write BoolQ.jsonl and others to")
  parser.add_argument(
    "--illegal",
    type=int,
    metavar="CLASS_ID",
    help="class to write for answers that are no label; by default they "
    "are refused",
  )
  return parser
