"""Steps of tuning methods beside PEFT's, on identical work.

  python -m benchmarks.methods --out build/methods

T5 1.1 small shapes, random weights, the same first values and rows; the sides
take turns, each in a process of its own, and their losses must agree. Writes
methods.json and methods.md into --out; `--method prefix` adds to what is there.
What is aimed at: no more than PEFT's time and memory.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks import report, steps
from benchmarks.epochs import PROMPT_LENGTH
from benchmarks.sides import making
from benchmarks.sides import methods as both
from benchmarks.steps import PEFT, PROJECT

SIDES = (PROJECT, PEFT)
_NUMBERS, _TABLE = "methods.json", "methods.md"


def main(argv: Sequence[str]) -> int:
  """Measure and write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--method", nargs="+", default=list(both.METHODS), choices=both.METHODS)
  add("--inputs", nargs="+", type=int, default=[64, 256], metavar="TOKENS")
  add("--size", default="t5_1_1_small")
  add("--rounds", type=int, default=3, help="least turns of each side")
  add("--out", required=True, help="folder")
  given = parser.parse_args(argv)
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
  out = pathlib.Path(given.out)
  out.mkdir(parents=True, exist_ok=True)
  numbers = out / _NUMBERS
  found = json.loads(numbers.read_text()) if numbers.exists() else {}
  with tempfile.TemporaryDirectory() as folder:
    scratch = pathlib.Path(folder)
    making.write(scratch, given.size, PROMPT_LENGTH, given.method)
    for method in given.method:
      print(f"{method} ...", file=sys.stderr, flush=True)
      found[method] = {
        "machine": report.machine(),
        "rows": steps.measure_steps(
          scratch,
          given.inputs,
          given.rounds,
          scratch / f"compiled_{method}",
          sides=SIDES,
          method=method,
        ),
      }
      numbers.write_text(json.dumps(found, indent=2) + "\n")
      (out / _TABLE).write_text(table(found))
  print(table(found))
  return 0


def table(found: dict[str, Any]) -> str:
  """Lay out seconds and memory of every method and length.

  Args:
    found: method -> machine and rows of `steps.measure_steps`.
  """
  lines = []
  for method, measured in found.items():
    for row in measured["rows"]:
      ours, theirs = (row[side]["peak_gb"] for side in SIDES)
      lines.append(
        [
          f"{method}, {row['inputs']}",
          *(report.spread(row[side]["step_s"]) for side in SIDES),
          report.spread(row["ratios"]["step_s"][PEFT]),
          f"{ours} / {theirs}",
          f"{ours / theirs:.2f}",
        ]
      )
  heads = ["method, text tokens", "project, s", "PEFT, s", "ratio by turn"]
  return report.table([*heads, "peak GB", "ratio"], lines)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
