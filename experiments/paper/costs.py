"""What the paper's experiments cost on TPUs, at least.

  python -m experiments.paper.costs

A step's least time on the smallest slice that holds a training of 32 rows is in
experiments/plans/results.json, by the TPU compiler. Here it is multiplied by
chips, steps and runs of every `paper.gin`, and by rows and their length over
those of the plan's. Writes `costs.json` and `costs.md`.
"""

import collections
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from experiments.paper import dry_run
from prompt_tuning.jobs.sweep_job import SweepJob
from prompt_tuning.launch import flags, sweep

HERE = pathlib.Path(__file__).parent
# These count parameters only.
WITHOUT_TRAINING = ("figure4_methods", "table4_parameters")
CHIPS = ("v5e", "v5p", "v6e")
PROMPT, MODEL = "prompt", "model"  # what trains, as plans call it
# Encoder positions of a row, of which a prompt has some.
_PLANNED = {PROMPT: 512 + 100, MODEL: 512}
_ROWS = 32
_HOUR = 3_600


def main() -> int:
  """Add up, and write the table.

  Returns:
    The process's exit status.
  """
  plans = json.loads((HERE.parent / "plans" / "results.json").read_text())
  costs = {name: cost(_job(name), plans) for name in experiments()}
  (HERE / "costs.json").write_text(json.dumps(costs, indent=1) + "\n")
  (HERE / "costs.md").write_text(f"{table(costs)}\n{slices(plans)}")
  return 0


def experiments() -> list[str]:
  """List the folders that train at the paper's scale."""
  return [n for n in dry_run.folders() if n not in WITHOUT_TRAINING]


def _job(experiment: str) -> SweepJob:
  path = f"experiments/{experiment}/paper.gin"
  return sweep.configure(flags.parse("sweep", [f"--gin_file={path}"], ""))


def cost(job: SweepJob, plans: Mapping[str, Any]) -> dict[str, Any]:
  """Add up the chip-hours of a sweep.

  Args:
    job: the sweep.
    plans: see experiments/plans.

  Returns:
    Runs, and chip-hours by size and chip.
  """
  runs: collections.Counter[str] = collections.Counter()
  hours: dict[str, dict[str, float]] = {}
  for cell in job.cells:
    experiment, steps = cell.job.experiment, cell.job.duration.relative_steps
    # Such as `small`, or `small_10k` of so many steps of LM adaptation.
    size = cell.values.get("@size", "xxl").partition("_")[0]
    assert steps is not None, "the paper's files say how many"
    inputs = experiment.dataset.lengths["inputs"] or 0
    for method in experiment.tuners or (None,) * len(experiment.runs):
      runs[size] += 1
      kind = PROMPT if method else MODEL
      virtual = method.placement.encoder_length if method else 0
      longer = (inputs + virtual) / _PLANNED[kind]
      larger = longer * experiment.dataset.batch_size / _ROWS
      of_size = hours.setdefault(size, dict.fromkeys(CHIPS, 0.0))
      for chip in CHIPS:
        seconds = chip_seconds(plans[f"{size}/{kind}/{chip}"])
        of_size[chip] += steps * seconds * larger / _HOUR
  return {"runs": dict(runs), "chip_hours": hours}


def chip_seconds(plan: Mapping[str, Any]) -> float:
  """Return the seconds of a step at least, times the chips of the slice.

  Args:
    plan: of one size on one kind of TPU.
  """
  best = next(
    one
    for one in plan["plans"]
    if [one["data"], one["model"]] == list(plan["best"])
  )
  return float(max(best["at_least"].values()) * plan["chips"])


def table(costs: Mapping[str, Any]) -> str:
  """Lay the costs out in Markdown.

  Args:
    costs: experiment -> what `cost` gives.

  Returns:
    The table.
  """
  head = ["experiment", "T5 1.1", "trainings", *CHIPS]
  lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
  total = dict.fromkeys(CHIPS, 0.0)
  for name, of_one in costs.items():
    for size, hours in of_one["chip_hours"].items():
      cells = [name, size, str(of_one["runs"][size])]
      cells += [f"{hours[chip]:,.0f}" for chip in CHIPS]
      lines.append("| " + " | ".join(cells) + " |")
      for chip in CHIPS:
        total[chip] += hours[chip]
  runs = sum(sum(of_one["runs"].values()) for of_one in costs.values())
  cells = ["**all**", "", str(runs), *(f"{total[c]:,.0f}" for c in CHIPS)]
  lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def slices(plans: Mapping[str, Any]) -> str:
  """Lay out in Markdown on which slices the costs are counted.

  Args:
    plans: see experiments/plans.

  Returns:
    The table: sizes, and the slice of each kind of TPU for each kind of step.
  """
  kinds = [f"{kind}/{chip}" for chip in CHIPS for kind in (PROMPT, MODEL)]
  head = ["T5 1.1", *(" on ".join(kind.split("/")) for kind in kinds)]
  lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
  for size in dict.fromkeys(name.partition("/")[0] for name in plans):
    planned = [plans[f"{size}/{kind}"]["topology"] for kind in kinds]
    cells = [size, *(name.partition(":")[2] for name in planned)]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main())
