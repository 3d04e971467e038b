"""`prompt-tuning similar A B ...`: how alike prompts are, and their tasks."""

import argparse
from collections.abc import Sequence

from prompt_tuning.launch import console


def main(argv: Sequence[str]) -> int:
  """Compare prompts, as SPoT does to choose a prompt to start from.

  Args:
    argv: the words after `prompt-tuning similar`.

  Returns:
    0, or 2 if prompts cannot be compared.
  """
  args = _parser().parse_args(argv)
  from prompt_tuning.jobs import similarity

  try:
    prompts = similarity.read(similarity.named(args.prompts))
    found = similarity.of(prompts, args.by)
    print(similarity.table(found))
    if args.out:
      for path in similarity.write(found, args.out):
        print(path)
  except (ValueError, OSError) as error:
    console.error(error)
    return 2
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="prompt-tuning similar", description=__doc__
  )
  parser.add_argument(
    "prompts",
    nargs="+",
    metavar="[NAME=]PATH",
    help="MODEL_DIR, bundle, export, NumPy prompt or adapter",
  )
  parser.add_argument(
    "--by",
    default="mean",
    choices=("mean", "tokens"),
    help="what to compare: cosine of mean vectors, or mean cosine of all pairs",
  )
  parser.add_argument(
    "--out", help="folder for similarity.json and the heat map similarity.png"
  )
  return parser
