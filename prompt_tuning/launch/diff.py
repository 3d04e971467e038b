"""`prompt-tuning diff A B`: compare checkpoints or prompts, array by array."""

import argparse
from collections.abc import Sequence

from prompt_tuning.launch import console


def main(argv: Sequence[str]) -> int:
  """Compare two checkpoints or results of tuning, whatever their formats.

  Args:
    argv: the words after `prompt-tuning diff`.

  Returns:
    0 if they are equal bit for bit, 1 if they differ, 2 if one of them cannot
    be read.
  """
  parser = argparse.ArgumentParser(
    prog="prompt-tuning diff", description=__doc__
  )
  parser.add_argument(
    "a",
    help="checkpoint, NumPy prompt, adapter, bundle, export or MODEL_DIR",
  )
  parser.add_argument("b", help="what to compare it with")
  args = parser.parse_args(argv)
  from prompt_tuning.jobs import diff

  try:
    comparison = diff.compare(args.a, args.b)
  except (ValueError, OSError) as error:
    console.error(error)
    return 2
  for line in comparison.differences:
    print(line)
  count = len(comparison.differences)
  print(f"{comparison.equal} equal, {count} different")
  return int(bool(count))
