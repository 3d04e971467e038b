"""The tables of docs/performance.md, in one go.

  python -m benchmarks.run --tfds_data_dir TFDS --vocabulary sentencepiece.model
  python -m benchmarks.run --short

Sides take turns, each in a process of its own, on identical work; what counts
are the ratios. Writes performance.json and performance.md into --out. A ratio
out of `limits` is an error; its section is measured again first, into
OUT/again_0 and again_1. --short is for CI: fewer sections, shapes and turns,
and wider limits.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks import (
  commands,
  epochs,
  lengths,
  limits,
  report,
  starts,
  steps,
)
from benchmarks.sides import making, work
from prompt_tuning.data import vocabulary

SIZE = "t5_1_1_small"
SECTIONS = (
  *("steps", "commands", "lengths", "decoding", "saving"),
  *("throughput", "bank", "pretraining", "starts"),
)

# These read SuperGLUE.
NEED_DATA = ("commands", "lengths", "throughput")
# What is measured in CI.
IN_SHORT = ("steps", "decoding", "bank", "pretraining", "starts")


def module(name: str, *arguments: str) -> str:
  """Run another benchmark of this folder; returns what it prints."""
  done = subprocess.run(
    [sys.executable, "-m", f"benchmarks.{name}", *arguments],
    stdout=subprocess.PIPE,
    check=True,
    text=True,
  )
  return done.stdout


def _data(args: argparse.Namespace) -> list[str]:
  return [
    *("--tfds_data_dir", args.tfds_data_dir),
    *("--vocabulary", args.vocabulary),
  ]


def measure(
  sections: Sequence[str], args: argparse.Namespace, out: pathlib.Path
) -> dict[str, Any]:
  """Measure some sections; write down each when it is done."""
  out.mkdir(parents=True, exist_ok=True)
  found: dict[str, Any] = {"machine": report.machine()}
  with tempfile.TemporaryDirectory() as folder:
    scratch = pathlib.Path(folder)
    model = scratch / "model"
    model.mkdir()
    making.write(model, SIZE, epochs.PROMPT_LENGTH)
    for section in sections:
      print(f"{section} ...", file=sys.stderr, flush=True)
      found[section] = _section(section, args, model, scratch)
      (out / "performance.json").write_text(json.dumps(found, indent=2) + "\n")
      (out / "performance.md").write_text(report.markdown(found))
  print(report.markdown(found), flush=True)
  return found


def _section(
  name: str,
  args: argparse.Namespace,
  model: pathlib.Path,
  scratch: pathlib.Path,
) -> Any:
  """Measure one section."""
  short = args.short
  match name:
    case "steps":
      inputs = (64, 512) if short else (64, 256, 512)
      return steps.measure_steps(
        model, inputs, args.rounds, scratch, (64,) if short else (64, 512)
      )
    case "commands":
      return commands.measure_commands(
        model / work.MODEL, args.tfds_data_dir, args.vocabulary, scratch
      )
    case "throughput":
      module("data_throughput", *_data(args), "--out", str(scratch))
      return json.loads((scratch / "throughput.json").read_text())
    case "lengths":
      vocabulary.configure(args.vocabulary)
      cache = str(scratch / "tokens")
      return lengths.measure_tasks(
        model, args.tfds_data_dir, cache, args.rounds, scratch, args.tasks
      )
    case "decoding":
      # Its turns spread more than those of steps: 0.8 to 1.2 of PEFT's time.
      return steps.measure_decoding(
        model, (64,) if short else (64, 512), 2 * args.rounds
      )
    case "saving":
      return steps.measure_saving(model, scratch)
    case "bank":
      runs = ["8"] if short else ["1", "4", "8", "16", "64"]
      return json.loads(module("bank", "--runs", *runs))["banks"]
    case "pretraining":
      sizes = ["ladder_1"] if short else ["ladder_1", "ladder_2"]
      return json.loads(module("pretraining", "--sizes", *sizes))["sizes"]
    case "starts":
      folder = scratch / "starts"
      folder.mkdir()
      return starts.measure_starts(model / work.MODEL, folder, args.rounds)
  raise ValueError(f"No section {name!r}; there are {', '.join(SECTIONS)}.")


def choose(
  only: Sequence[str] | None, short: bool, has_data: bool
) -> tuple[list[str], list[str]]:
  """Decide what to measure.

  Args:
    only: sections that were asked for; None for all.
    short: whether this is the short mode.
    has_data: whether SuperGLUE and the vocabulary are there.

  Returns:
    The sections to measure, and those left out for want of data.

  Raises:
    ValueError: one was asked for by name and cannot be measured.
  """
  wanted = list(only or (IN_SHORT if short else SECTIONS))
  lacking = [name for name in wanted if name in NEED_DATA and not has_data]
  if lacking and only:
    raise ValueError(
      f"{' and '.join(lacking)} read SuperGLUE: set --tfds_data_dir, made by "
      "`prompt-tuning data prepare`, and --vocabulary."
    )
  return [name for name in wanted if name not in lacking], lacking


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """Read the command line; what is wrong with it shows before anything runs."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--short", action="store_true", help="for CI")
  needing = ", ".join(NEED_DATA)
  add("--only", nargs="+", choices=SECTIONS, help=f"{needing}: need data")
  add("--tfds_data_dir", help="made by `prompt-tuning data prepare`")
  add("--vocabulary", help="T5's sentencepiece.model")
  add("--tasks", nargs="+", choices=lengths.TASKS, default=list(lengths.TASKS))
  add("--rounds", type=int, help="least turns of each side (3; 2 with --short)")
  add("--out", default="benchmarks/results", help="folder (%(default)s)")
  args = parser.parse_args(argv)
  given = {"tfds_data_dir": args.tfds_data_dir, "vocabulary": args.vocabulary}
  if len(set(map(bool, given.values()))) > 1:
    lacking = next(name for name, path in given.items() if not path)
    parser.error(f"SuperGLUE needs both; --{lacking} is missing.")
  for name, path in given.items():
    if path and not pathlib.Path(path).exists():
      parser.error(f"--{name}: there is no {path}.")
  args.rounds = args.rounds or (2 if args.short else 3)
  try:
    args.only, lacking = choose(args.only, args.short, bool(args.vocabulary))
  except ValueError as error:
    parser.error(str(error))
  if lacking:
    print(
      f"Left out: {', '.join(lacking)}, which read SuperGLUE; set "
      "--tfds_data_dir and --vocabulary for them.",
      file=sys.stderr,
    )
  return args


def main() -> int:
  """Measure, write and judge."""
  args = parse(sys.argv[1:])
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
  out = pathlib.Path(args.out)
  found = measure(args.only, args, out)
  broken = limits.judge(
    found,
    lambda sections, turn: measure(sections, args, out / f"again_{turn}"),
    limits.SLACK if args.short else 1.0,
  )
  for line in broken:
    print(f"Out of bounds: {line}")
  return 1 if broken else 0


if __name__ == "__main__":
  sys.exit(main())
