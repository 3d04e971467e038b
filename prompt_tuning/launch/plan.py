"""`prompt-tuning plan`: will this training fit on those TPUs, and how fast?

This compiles the step of `train` for every slice and mesh, on a machine without
a TPU. It reads, allocates and runs nothing.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.launch import command
from prompt_tuning.launch.flags import Flags
from prompt_tuning.plans import chips
from prompt_tuning.plans.chips import Slice

if TYPE_CHECKING:
  from prompt_tuning.jobs.train_job import TrainJob
  from prompt_tuning.plans.cheapest import Offer
  from prompt_tuning.plans.tpu import Plan

ABOUT = """Compile one training step with the TPU compiler, which needs no TPU,
and say what the step needs and costs on each chip. Takes the flags of `train`,
and these:
--topology v5e:4x4 (may be repeated; v4, v5e, v5p, v6e of any shape);
--num_slices 2 plans for two such slices that share the rows of a batch;
--meshes all (every split into data and model parallelism, the default), first
(the split with the least model parallelism that fits) or given (gin's mesh);
--cheapest in place of --topology: finds the smallest slice of each kind of TPU
that can train this, and which of them costs least (--price v5e=1.2 dollars per
chip and hour; may be repeated);
--json prints JSON for programs."""

# A plan reads and writes no files.
NOT_ASKED = ("MODEL_DIR = 'nowhere'", "INITIAL_CHECKPOINT_PATH = None")
MESHES = ("all", "first", "given")


def main(argv: Sequence[str]) -> int:
  """Plan as flags and gin files say.

  Args:
    argv: the words after `prompt-tuning plan`.

  Returns:
    0; 1 if nothing fits; 2 if the command line, the configuration, or something
    that they name is wrong.
  """
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  add = parser.add_argument
  add(
    "--topology",
    action="append",
    default=[],
    metavar="TPU:SHAPE",
    help="slice to plan for, such as v5e:4x4; may be repeated",
  )
  add(
    "--num_slices",
    type=int,
    default=1,
    help="number of slices of each --topology that share the rows of a batch",
  )
  add(
    "--meshes",
    default=MESHES[0],
    help="splits into data and model parallelism to try: all, first (the "
    "one with the least model parallelism that fits) or given (gin's "
    "mesh)",
  )
  add(
    "--cheapest",
    action="store_true",
    help="find the smallest slices that can train this; no --topology",
  )
  add(
    "--price",
    action="append",
    default=[],
    metavar="TPU=PRICE",
    help="dollars for a chip and hour, such as v5e=1.2; may be repeated",
  )
  add("--json", action="store_true", help="print JSON, for programs")
  plan_arguments, rest = parser.parse_known_args(argv)
  fitting: list[bool] = []

  def work(job: "TrainJob", arguments: Flags) -> None:
    del arguments
    offers = _plan(job, plan_arguments)
    fitting.append(bool(offers))
    if plan_arguments.cheapest and offers:
      _print_cheapest(offers, plan_arguments.json)

  # JAX writes programs for absent chips to its cache, but cannot read them
  # back.
  status = command.run(
    "plan",
    rest,
    ABOUT,
    work,
    configurable="train",
    computes=False,
    defaults=NOT_ASKED,
  )
  return status or int(fitting == [False])


def _plan(job: "TrainJob", asked: argparse.Namespace) -> list["Offer"]:
  """Plan every slice that is asked for; return what fits, with its price."""
  from prompt_tuning.plans import cheapest, report, tpu

  prices = chips.prices(asked.price)
  offers = []

  def plan_slice(tpu_slice: Slice) -> list["Plan"]:
    plans = tpu.plan_slice(job, tpu_slice, asked.meshes)
    if asked.json:
      print(json.dumps(report.as_json(job, tpu_slice, plans)), flush=True)
    else:
      print("\n".join(report.lines(job, tpu_slice, plans)), flush=True)
    offer = cheapest.offer(tpu_slice, plans, prices)
    if offer is not None:
      offers.append(offer)
    return plans

  _check(asked)
  if asked.cheapest:
    for generation in chips.CHIPS:
      cheapest.smallest(chips.slices(generation), plan_slice)
  else:
    for one in map(chips.parse, asked.topology):
      plan_slice(dataclasses.replace(one, copies=asked.num_slices))
  return offers


def _print_cheapest(offers: list["Offer"], as_json: bool) -> None:
  from prompt_tuning.plans import cheapest

  if as_json:
    print(json.dumps(cheapest.as_json(offers)))
  else:
    print("\n".join(cheapest.lines(offers)))


def _check(asked: argparse.Namespace) -> None:
  if asked.cheapest and asked.topology:
    raise ValueError("--cheapest chooses the slice: leave --topology out.")
  if asked.cheapest and asked.num_slices != 1:
    raise ValueError(
      "--cheapest chooses a single slice; leave --num_slices out."
    )
  if asked.num_slices < 1:
    raise ValueError(
      f"--num_slices {asked.num_slices}: expected a number of slices, at "
      "least 1."
    )
  if not asked.cheapest and not asked.topology:
    raise ValueError(
      "No TPU is given: give --topology, such as v5e:4x4, or --cheapest."
    )
  if asked.meshes not in MESHES:
    raise ValueError(
      f"--meshes {asked.meshes!r}: expected one of {', '.join(MESHES)}."
    )


if __name__ == "__main__":
  from prompt_tuning.launch import main as program

  sys.exit(program.main(["plan", *sys.argv[1:]]))
