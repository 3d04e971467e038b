"""Run prompt-tuning on TPU slices of a GKE cluster, through xpk.

  prompt-tuning launch gke --cluster=C --workload=W \
    --tpu_type=v5litepod-16 --docker_image=I -- <flags of prompt-tuning train>

Source: xpk's documentation (docs/usage/workloads.md and docker.md) and the
parser of `xpk workload create`. xpk puts the text of `--command` as one line of
a bash script into a JobSet's YAML, and each `--env` value between double quotes
of that YAML. It lets a JobSet restart after the statuses 42 and 127 to 255
(those of signals), and after those of `--restart-on-exit-codes`. Kubernetes
then replaces `$(NAME)` and `$$` in the script (reference of Container.command),
so this module doubles every dollar.
"""

import argparse
import shlex
from collections.abc import Sequence

from prompt_tuning.cluster import program
from prompt_tuning.cluster.program import Command


def main(argv: Sequence[str], check: program.Check) -> int:
  """Create the workload.

  Args:
    argv: the words after `prompt-tuning launch gke`.
    check: finds mistakes in the flags of the program.

  Returns:
    The process's exit status.
  """
  return program.launch(_parser(), plan, argv, check)


def _parser() -> argparse.ArgumentParser:
  parser = program.parser("gke", __doc__ or "")
  add = parser.add_argument
  add(
    "--cluster",
    required=True,
    help="name of a cluster that `xpk cluster create` made",
  )
  add(
    "--workload",
    required=True,
    help="name of the job, which no other job may have",
  )
  add(
    "--tpu_type",
    required=True,
    help="type of a slice, such as v5litepod-16 or v6e-256",
  )
  add(
    "--docker_image",
    required=True,
    help="image with prompt-tuning and jax[tpu]",
  )
  add("--num_slices", type=int, default=1, help="number of slices")
  add(
    "--shards",
    type=int,
    default=1,
    help="number of workloads to divide a sweep into",
  )
  add("--project", help="Google Cloud project; by default gcloud's")
  add("--zone", help="zone of the cluster; by default gcloud's")
  add(
    "--priority",
    choices=("very-low", "low", "medium", "high", "very-high"),
    help="priority of the workload; by default xpk's",
  )
  add(
    "--max_restarts",
    type=int,
    help="most restarts of a stopped program; by default none",
  )
  add(
    "--storage",
    action="append",
    default=[],
    help="name of an xpk storage to mount in every container",
  )
  return parser


def plan(flags: argparse.Namespace, args: Sequence[str]) -> list[Command]:
  """Build the call of xpk.

  Args:
    flags: the launcher's flags.
    args: the program's.

  Returns:
    One command, or one for every part of a sweep.

  Raises:
    ValueError: a text that xpk would change on the way.
  """
  parts = program.shards(flags, args)
  if len(parts) == 1:
    return [_workload(flags, flags.workload, parts[0])]
  return [
    _workload(flags, f"{flags.workload}-{number}", part)
    for number, part in enumerate(parts)
  ]


def _workload(
  flags: argparse.Namespace, name: str, args: Sequence[str]
) -> Command:
  """Build the call of one workload."""
  words = program.joining(program.words(flags.program, args))
  options = {
    "cluster": flags.cluster,
    "workload": name,
    "tpu-type": flags.tpu_type,
    "num-slices": flags.num_slices,
    "docker-image": flags.docker_image,
    "project": flags.project,
    "zone": flags.zone,
    "priority": flags.priority,
    "max-restarts": flags.max_restarts,
  }
  if flags.max_restarts:
    options["restart-on-exit-codes"] = program.LEFT_ALONE
  return Command(
    (
      "xpk",
      "workload",
      "create",
      *(f"--{k}={v}" for k, v in options.items() if v is not None),
      *(f"--storage={storage}" for storage in flags.storage),
      *(f"--env={_env(variable)}" for variable in flags.env),
      f"--command={_script(words)}",
    )
  )


def _script(words: Sequence[str]) -> str:
  """Quote words for bash, and the text that bash reads for Kubernetes."""
  script = shlex.join(words)
  if not script.isprintable():
    raise ValueError(
      f"xpk takes one line of printable text, got {script!r}. Put settings "
      "with line breaks or control characters into a gin file of the image."
    )
  return script.replace("$", "$$")


def _env(variable: str) -> str:
  if not variable.isprintable() or any(c in variable for c in '"\\$'):
    raise ValueError(
      f'--env {variable!r}: xpk takes printable text without ", \\ and $.'
    )
  return variable
