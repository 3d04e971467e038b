"""`prompt-tuning plan`: will this training fit on those TPUs, and how fast?

The step of `train` is compiled for every slice and mesh, on a machine that has
no TPU; nothing is read, allocated or run.
"""

import argparse
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

ABOUT = """Compile the step of `train` for TPUs that are not here, and say what
it needs and costs on each chip. Takes the flags of `train` and besides:
--topology v5e:4x4 (may be repeated; v4, v5e, v5p, v6e of any shape);
--meshes all (every split into data and model parallelism, the default), first
(from the least model parallelism until one fits) or given (gin's own);
--json for programs."""

# Nothing is read or written.
NOT_ASKED = ("MODEL_DIR = ''", "INITIAL_CHECKPOINT_PATH = None")
MESHES = ("all", "first", "given")


def main(argv: Sequence[str]) -> int:
  """Plan as flags and gin files say.

  Args:
    argv: the words after `prompt-tuning plan`.

  Returns:
    0; 1 where nothing fits; 2 where the command line, the configuration, or
    what they name is at fault.
  """
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument("--topology", action="append", default=[])
  parser.add_argument("--meshes", default=MESHES[0])
  parser.add_argument("--json", action="store_true")
  plan_arguments, rest = parser.parse_known_args(argv)
  fitting: list[bool] = []

  def work(job: "TrainJob", arguments: Flags) -> None:
    from prompt_tuning.plans import report, tpu

    del arguments
    for tpu_slice in _slices(plan_arguments.topology, plan_arguments.meshes):
      plans = tpu.plan_slice(job, tpu_slice, plan_arguments.meshes)
      fitting.append(any(one.fits for one in plans))
      if plan_arguments.json:
        print(json.dumps(report.as_json(job, tpu_slice, plans)), flush=True)
      else:
        text = report.lines(job, tpu_slice, plans)
        print("\n".join(text), flush=True)

  # JAX writes programs for absent chips to its cache, but cannot read them.
  status = command.run(
    "plan",
    rest,
    ABOUT,
    work,
    configurable="train",
    computes=False,
    defaults=NOT_ASKED,
  )
  return status or int(bool(fitting) and not any(fitting))


def _slices(topologies: Sequence[str], meshes: str) -> list[Slice]:
  if not topologies:
    raise ValueError("Which TPUs? Give --topology, such as v5e:4x4.")
  if meshes not in MESHES:
    raise ValueError(
      f"--meshes {meshes!r}: expected one of {', '.join(MESHES)}."
    )
  return [chips.parse(text) for text in topologies]


if __name__ == "__main__":
  from prompt_tuning.launch import main as program

  sys.exit(program.main(["plan", *sys.argv[1:]]))
