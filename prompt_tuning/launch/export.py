"""`prompt-tuning export MODEL_DIR DST`: a run's prompts for other programs."""

import argparse
import os
import sys
from collections.abc import Sequence

from prompt_tuning.launch import exporting, tuned
from prompt_tuning.models.t5 import config


def main(argv: Sequence[str]) -> int:
  """Export the prompts of a run.

  Args:
    argv: the words after `prompt-tuning export`.

  Returns:
    0, or 2 where there is nothing to export.
  """
  args = _parser().parse_args(argv)
  try:
    model = config.get(args.config) if args.config else None
    lines = export(args.src, args.dst, tuple(args.to), model)
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
    "src", help="MODEL_DIR of a run (the best of each run), or a bundle"
  )
  parser.add_argument("dst", help="folder to write to")
  parser.add_argument(
    "--to",
    nargs="+",
    choices=exporting.FORMATS,
    default=list(exporting.FORMATS),
    help="npy: T5X's prompt tuning loads it; peft: an adapter",
  )
  parser.add_argument(
    "--config",
    metavar="SIZE",
    help="the backbone, such as t5_1_1_base, for what PEFT records about it",
  )
  return parser


def export(
  src: str,
  dst: str,
  formats: tuple[str, ...] = exporting.FORMATS,
  model: config.T5Config | None = None,
) -> list[str]:
  """Export every run of a folder or bundle.

  Args:
    src: see `tuned.load`.
    dst: where to; runs that have names get a folder each.
    formats: see `exporting.export`.
    model: the backbone.

  Returns:
    Lines that say what was written.

  Raises:
    CheckpointError: nothing that was tuned, or no place to write to.
    ValueError: a tuned model, or no prompt.
  """
  found = tuned.load(src)
  if found.weights:
    raise ValueError(
      f"{src} holds a tuned model: there is no prompt to export."
    )
  lines = []
  for run, name in enumerate(found.names):
    folder = os.path.join(dst, name)
    done = exporting.export(found.runs, run, folder, model, formats)
    lines += [f"{path}: written" for path in done.paths]
    lines += [f"note, {folder}: {note}" for note in done.notes]
  return lines
