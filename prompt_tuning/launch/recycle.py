"""`prompt-tuning recycle PROMPT OUT.npy`: a prompt for another model."""

import argparse
from collections.abc import Sequence

from prompt_tuning.launch import console


def main(argv: Sequence[str]) -> int:
  """Move a prompt to another model through the words that both know.

  Args:
    argv: the words after `prompt-tuning recycle`.

  Returns:
    0, or 2 if it cannot be moved.
  """
  args = _parser().parse_args(argv)
  from prompt_tuning.jobs import recycle

  try:
    done = recycle.move(
      args.prompt,
      args.source,
      args.target,
      args.out,
      args.vocabulary,
      args.target_vocabulary,
      by=args.by,
      count=recycle.WORDS if args.words is None else args.words,
      skip=recycle.SKIPPED if args.skip is None else args.skip,
      overwrite=args.overwrite,
    )
  except (ValueError, OSError) as error:
    console.error(error)
    return 2
  print(done)
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="prompt-tuning recycle", description=__doc__
  )
  parser.add_argument(
    "prompt",
    help="MODEL_DIR (the best of its seeds), bundle, export, NumPy prompt",
  )
  parser.add_argument("out", help="NumPy file to write")
  parser.add_argument(
    "--source",
    required=True,
    help="checkpoint that the prompt was trained with",
  )
  parser.add_argument(
    "--target", required=True, help="checkpoint that the new prompt is for"
  )
  parser.add_argument(
    "--by",
    default="linear",
    choices=("linear", "mlp"),
    help="map between the embeddings: least squares, or a small network",
  )
  parser.add_argument(
    "--words",
    type=int,
    help="number of words to fit the map on; by default 4000",
  )
  parser.add_argument(
    "--skip",
    type=int,
    help="number of commonest words to leave out; by default 1000",
  )
  parser.add_argument("--vocabulary", help="sentencepiece.model of --source")
  parser.add_argument(
    "--target_vocabulary",
    help="sentencepiece.model of --target, if it is another file",
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace a NumPy file"
  )
  return parser
