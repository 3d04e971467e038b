"""Large frozen models in bfloat16 on one accelerator: rate and utilisation.

  python -m benchmarks.accelerator --sizes t5_1_1_large t5_1_1_xl --rows 32

Prompt tuning by this project and by PEFT, from the same random weights, on
identical rows; losses are compared. Each side has the device to itself, in a
process that ends before the other's begins. Writes JSON and a table into --out.
Where PEFT cannot run, as on TPUs, `--sides project`.

What is aimed at: half of the device's peak, and 1.5 times PEFT's rate.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import report, turns
from benchmarks.epochs import PROMPT_LENGTH
from benchmarks.sides import making, work
from benchmarks.steps import PEFT, PROJECT, VOCABULARY, insist_same
from benchmarks.turns import Worker
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import cost
from prompt_tuning.plans import chips

SIDES = (PROJECT, PEFT)
DTYPE, TARGETS = "bfloat16", 8
WARM = 3  # steps that do not count, compilation among them
RTOL = 0.02  # of losses, in bfloat16

# Part of a device's name -> dense bfloat16 operations per second. TPUs' are
# those of `plans.chips`; NVIDIA's are of its data sheets, without sparsity.
PEAKS = {
  "H100 PCIe": 756e12,
  "H100": 989e12,
  "H200": 989e12,
  "A100": 312e12,
  "TPU v4": chips.CHIPS["v4"].flops,
  "TPU v5 lite": chips.CHIPS["v5e"].flops,
  "TPU v5": chips.CHIPS["v5p"].flops,
  "TPU v6 lite": chips.CHIPS["v6e"].flops,
}


def peak(device: str) -> float | None:
  """Look up a device's peak; None where it is not known."""
  return next((PEAKS[part] for part in PEAKS if part in device), None)


def step_flops(size: str, shape: work.Shape) -> float:
  """Count a step's arithmetic: 4 operations per parameter and position.

  Args:
    size: of `t5_config.SIZES`.
    shape: of the step; the prompt's positions count as well.

  Returns:
    Operations that the model takes, none of them twice.
  """
  encoder, decoder = cost.flops_per_token(t5_config.get(size), frozen=True)
  row = (PROMPT_LENGTH + shape.inputs) * encoder + shape.targets * decoder
  return shape.rows * row


def measure(
  size: str,
  sides: Sequence[str],
  shape: work.Shape,
  timed: int,
  rounds: int,
  peak_flops: float | None,
) -> dict[str, Any]:
  """Time the sides at one size.

  Args:
    size: of `t5_config.SIZES`.
    sides: of `SIDES`.
    shape: of every step.
    timed: steps of a process that count.
    rounds: processes of each side.
    peak_flops: of the device; None looks it up.

  Returns:
    Side -> device, seconds, text and target tokens per second, and share of
    the peak, which is None where that is not known.

  Raises:
    RuntimeError: the sides' losses differ.
  """
  asked = {"do": "step", "shape": dataclasses.astuple(shape)}
  asked |= {"vocab_size": VOCABULARY, "times": WARM + timed}
  seconds: dict[str, list[float]] = {side: [] for side in sides}
  losses, devices = {}, {}
  with tempfile.TemporaryDirectory() as name:
    model = pathlib.Path(name)
    making.write(model, size, PROMPT_LENGTH)
    for _ in range(rounds):
      for side in sides:
        with Worker(side, model, dtype=DTYPE) as worker:
          answer = worker.ask(**asked)
        seconds[side] += answer["seconds"][WARM:]
        losses[side], devices[side] = answer["results"], worker.device
  if PROJECT in sides:
    insist_same(losses, RTOL)
  found: dict[str, Any] = {}
  for side in sides:
    spread = turns.spread(seconds[side])
    most = peak_flops or peak(devices[side])
    rate = step_flops(size, shape) / spread["median"]
    tokens = shape.rows * (shape.inputs + shape.targets)
    found[side] = {
      "device": devices[side],
      "step_s": spread,
      "tokens_per_s": tokens / spread["median"],
      "utilisation": rate / most if most else None,
    }
  return found


def markdown(found: Mapping[str, Mapping[str, Any]]) -> str:
  """Lay out all sizes and sides."""
  header = ["size, side", "device", "s per step", "tokens/s", "of the peak"]
  lines = []
  for size, sides in found.items():
    for side, one in sides.items():
      share = one["utilisation"]
      lines.append(
        [
          f"{size}, {side}",
          one["device"],
          "{median} ({least} to {most})".format(**one["step_s"]),
          f"{one['tokens_per_s']:,.0f}",
          "unknown" if share is None else f"{100 * share:.1f} %",
        ]
      )
  return report.table(header, lines)


def main(argv: Sequence[str]) -> int:
  """Measure all sizes; write each when it is done."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--sizes", nargs="+", default=["t5_1_1_large", "t5_1_1_xl"])
  add("--sides", nargs="+", choices=SIDES, default=list(SIDES))
  add("--rows", type=int, default=32)
  add("--inputs", type=int, default=512, help="text tokens of a row")
  add("--steps", type=int, default=10, help="timed in a round")
  add("--rounds", type=int, default=2, help="processes of each side")
  add("--peak_tflops", type=float, help="of a device that is not known here")
  add("--out", default="benchmarks/results", help="folder (%(default)s)")
  args = parser.parse_args(argv)
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  peak_flops = args.peak_tflops and args.peak_tflops * 1e12
  shape, found = work.Shape(args.rows, args.inputs, TARGETS), {}
  for size in args.sizes:
    found[size] = measure(
      size, args.sides, shape, args.steps, args.rounds, peak_flops
    )
    (out / "accelerator.json").write_text(json.dumps(found, indent=2) + "\n")
    (out / "accelerator.md").write_text(markdown(found))
  print(markdown(found))
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
