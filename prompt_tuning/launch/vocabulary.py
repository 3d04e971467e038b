"""`prompt-tuning vocabulary`: train a SentencePiece vocabulary on your text."""

import argparse
import sys
from collections.abc import Sequence

from prompt_tuning.launch import console

ABOUT = "Train a SentencePiece vocabulary with T5's special ids and sentinels."


def main(argv: Sequence[str]) -> int:
  """Train a vocabulary.

  Args:
    argv: the words after `prompt-tuning vocabulary`.

  Returns:
    The process's exit status: 0, or 2 if files or settings are wrong.
  """
  parser = argparse.ArgumentParser("prompt-tuning vocabulary", None, ABOUT)
  add = parser.add_argument
  add(
    "--input",
    nargs="+",
    required=True,
    help="text files: .txt or .jsonl, also .gz and .xz",
  )
  add("--output", required=True, help="the model file to write")
  add(
    "--size",
    type=int,
    default=32_100,
    help="number of ids, 100 sentinels included",
  )
  add("--every", type=int, default=1, help="read only every n-th document")
  add(
    "--skills", type=int, default=0, help="number of generated questions to add"
  )
  arguments = parser.parse_args(argv)
  from prompt_tuning.jobs import vocabulary

  try:
    made = vocabulary.train(
      arguments.input,
      arguments.output,
      arguments.size,
      arguments.every,
      arguments.skills,
    )
  except (ValueError, OSError) as error:
    console.error(error)
    return 2
  print(f"{made.path}: {made.size} ids, sentinels included")
  return 0


if __name__ == "__main__":
  from prompt_tuning.launch import main as program

  sys.exit(program.main(["vocabulary", *sys.argv[1:]]))
