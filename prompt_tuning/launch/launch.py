"""`prompt-tuning launch ENGINE ... -- ...`: a command on a pod or a cluster."""

import importlib
import sys
from collections.abc import Sequence

from prompt_tuning.core import tree
from prompt_tuning.launch import flags, sweep

ENGINES = {
  "gke": "TPU slices of a GKE cluster, through xpk",
  "tpu_vm": "all workers of a Cloud TPU VM, through gcloud",
  "slurm": "nodes of a Slurm cluster, through submitit",
}


def main(argv: Sequence[str]) -> int:
  """Start a command of prompt-tuning on a pod or a cluster.

  Args:
    argv: the words after `prompt-tuning launch`.

  Returns:
    0; 2 if the command line is wrong, a tool is missing or a command fails.
  """
  engine, *rest = argv or [""]
  if engine in ("-h", "--help"):
    print(usage())
    return 0
  if engine not in ENGINES:
    print(
      f"Unknown engine {engine!r}.{tree.nearest(engine, ENGINES)}\n\n{usage()}",
      file=sys.stderr,
    )
    return 2
  module = importlib.import_module(f"prompt_tuning.cluster.{engine}")
  status: int = module.main(rest, check)
  return status


def usage() -> str:
  """Describe every engine in one line."""
  lines = [f"  {name:<8}{what}" for name, what in ENGINES.items()]
  start = "usage: prompt-tuning launch ENGINE [FLAGS] -- <flags of the command>"
  return "\n".join([start, "", *lines])


def check(program: str, args: Sequence[str]) -> None:
  """Find mistakes in a program's flags before a pod is paid for.

  Args:
    program: `train` or another command of prompt-tuning.
    args: its flags.

  Raises:
    ValueError: an unknown flag, or one that the launcher sets.
  """
  if program == "sweep":  # which has flags of its own
    _, args = sweep.split(args)
  hosts = flags.parse(program, args, "").distributed
  host_flags = (
    hosts.coordinator_address,
    hosts.process_count,
    hosts.process_index,
  )
  if any(value is not None for value in host_flags):
    raise ValueError(
      "Leave out --coordinator_address, --process_count and --process_index: "
      "every process finds its own when it starts."
    )
