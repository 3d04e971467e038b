"""Everything that docs/performance.md quotes, in one go.

  python -m benchmarks.run --tfds_data_dir TFDS --vocabulary sentencepiece.model
  python -m benchmarks.run --short

Sides take turns, each in a process of its own, on identical work; what counts
are the ratios. Writes performance.json and performance.md into --out. --short
is for CI: fewer shapes, and an error where a ratio is out of `LIMITS`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks import commands, lengths, report, steps
from benchmarks.sides import making, work
from prompt_tuning.data import vocabulary

SIZE, PROMPT_LENGTH = "t5_1_1_small", 100
SECTIONS = (
  *("steps", "commands", "lengths", "decoding", "saving"),
  *("throughput", "bank", "pretraining"),
)

# Ratio -> (how to read it off the results, least, most). Measured values are in
# docs/performance.md; these leave room for a shared machine's noise.
LIMITS = {
  "step of 64 tokens, project / PEFT": (
    lambda found: report.ratio(found["steps"][0], steps.PROJECT, steps.PEFT),
    0.0,
    1.2,
  ),
  "step of 256 tokens, project / PEFT": (
    lambda found: report.ratio(found["steps"][1], steps.PROJECT, steps.PEFT),
    0.0,
    1.2,
  ),
  "8 runs in a bank / in turn": (
    lambda found: found["bank"][0]["speedup"],
    1.5,
    99.0,
  ),
  "pre-training, project / bare loop": (
    lambda found: found["pretraining"][0]["ratio"],
    0.8,
    99.0,
  ),
}


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


def measure(args: argparse.Namespace, scratch: pathlib.Path) -> dict[str, Any]:
  """Measure the sections that are asked for."""
  model = scratch / "model"
  model.mkdir()
  making.write(model, SIZE, PROMPT_LENGTH)
  short = args.short
  with_data = args.tfds_data_dir and not short
  found: dict[str, Any] = {"machine": report.machine()}
  for section in args.only:
    print(f"{section} ...", file=sys.stderr, flush=True)
    if section == "steps":
      inputs = (64, 256) if short else (64, 256, 512)
      rounds = 2 if short else 5
      found[section] = steps.measure_steps(
        model, inputs, rounds, scratch, starts=not short
      )
    elif section == "commands" and with_data:
      found[section] = commands.measure_commands(
        model / work.MODEL, args.tfds_data_dir, args.vocabulary, scratch
      )
    elif section == "throughput" and with_data:
      module("data_throughput", *_data(args), "--out", str(scratch))
      rates = (scratch / "throughput.json").read_text()
      found[section] = json.loads(rates)
    elif section == "lengths" and with_data:
      vocabulary.configure(args.vocabulary)
      found[section] = lengths.measure_tasks(
        model,
        args.tfds_data_dir,
        str(scratch / "tokens"),
        args.batches,
        scratch,
        args.tasks,
      )
    elif section == "decoding" and not short:
      found[section] = steps.measure_decoding(model, (64, 512), 3)
    elif section == "saving" and not short:
      found[section] = steps.measure_saving(model, scratch)
    elif section == "bank":
      runs = ["8"] if short else ["1", "4", "16", "64"]
      found[section] = json.loads(module("bank", "--runs", *runs))["banks"]
    elif section == "pretraining":
      sizes = ["ladder_1"] if short else ["ladder_1", "ladder_2"]
      printed = module("pretraining", "--sizes", *sizes)
      found[section] = json.loads(printed)["sizes"]
  return found


def out_of_limits(found: dict[str, Any]) -> list[str]:
  """Say which ratios are worse than they may be."""
  wrong = []
  for name, (read, least, most) in LIMITS.items():
    value = read(found)
    print(f"{name}: {value:.2f} (limits {least} to {most})")
    if not least <= value <= most:
      wrong.append(name)
  return wrong


def main() -> int:
  """Measure, write, and in short mode judge."""
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  add("--short", action="store_true", help="for CI")
  add("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
  add("--tfds_data_dir", help="made by `prompt-tuning data prepare`")
  add("--vocabulary", help="T5's sentencepiece.model")
  add("--tasks", nargs="+", choices=lengths.TASKS, default=list(lengths.TASKS))
  add("--batches", type=int, default=12, help="of each task")
  add("--out", default="benchmarks/results")
  args = parser.parse_args()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as scratch:
    found = measure(args, pathlib.Path(scratch))
  (out / "performance.json").write_text(json.dumps(found, indent=2) + "\n")
  (out / "performance.md").write_text(report.markdown(found))
  print(report.markdown(found))
  return 1 if args.short and out_of_limits(found) else 0


if __name__ == "__main__":
  sys.exit(main())
