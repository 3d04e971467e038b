"""`prompt-tuning report FOLDER`: a run, comparison or sweep as a page."""

import argparse
from collections.abc import Sequence

from prompt_tuning.launch import console


def main(argv: Sequence[str]) -> int:
  """Write the page.

  Args:
    argv: the words after `prompt-tuning report`.

  Returns:
    0, or 2 if the folder is none of these.
  """
  parser = argparse.ArgumentParser(
    prog="prompt-tuning report", description=__doc__
  )
  parser.add_argument(
    "folder", help="MODEL_DIR of train, compare or sweep, also while it runs"
  )
  parser.add_argument(
    "--out", help="the file to write; by default report.html in the folder"
  )
  args = parser.parse_args(argv)
  from prompt_tuning.jobs import report

  try:
    print(report.write(args.folder, args.out))
  except (ValueError, OSError) as error:
    console.error(error)
    return 2
  return 0
