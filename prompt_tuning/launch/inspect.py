"""`prompt-tuning inspect PATH`: what a checkpoint, a prompt or a run holds."""

import argparse
import json
from collections.abc import Sequence

from prompt_tuning.launch import console


def main(argv: Sequence[str]) -> int:
  """Show trees, dtypes, counts and steps, without reading models' arrays.

  Args:
    argv: the words after `prompt-tuning inspect`.

  Returns:
    0, or 2 if the path cannot be read.
  """
  parser = argparse.ArgumentParser(
    prog="prompt-tuning inspect", description=__doc__
  )
  parser.add_argument(
    "path",
    help="checkpoint, NumPy prompt, adapter, bundle, export or MODEL_DIR",
  )
  parser.add_argument(
    "--json", action="store_true", help="print JSON, for programs"
  )
  args = parser.parse_args(argv)
  from prompt_tuning.jobs import inspect

  try:
    described = inspect.report(args.path)
  except (ValueError, OSError) as error:
    console.error(error)
    return 2
  shown = [json.dumps(described, indent=2)] if args.json else None
  print("\n".join(shown or inspect.lines(described)))
  return 0
