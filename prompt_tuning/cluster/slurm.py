"""Run prompt-tuning on nodes of a Slurm cluster, through submitit.

  prompt-tuning launch slurm --nodes=4 --gpus_per_node=8 \
    --timeout_min=720 --partition=gpu -- <flags of prompt-tuning train>

Start it on a login node, in the root of the checkout and in the environment
that the nodes will use. Both must be on a file system that the nodes share.

Source: submitit 1.5 (`AutoExecutor`, `SlurmExecutor`, the page on
checkpointing), sbatch's and scontrol's manuals. One task per node drives all of
its GPUs. JAX expects one Slurm task per device and would give such a task one
GPU only (jax.distributed.initialize, `local_device_ids`); so the script sets
JAX_LOCAL_DEVICE_IDS. The coordinator is the first node of SLURM_JOB_NODELIST;
its port follows from the job's number, as in JAX.
"""

import argparse
import importlib
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from prompt_tuning.cluster import program, slurm_task

# submitit's names -> sbatch's.
_SHARED = {
  "name": "job_name",
  "timeout_min": "time",
  "tasks_per_node": "ntasks_per_node",
  "mem_gb": "mem",
}
_OWN = "slurm_"  # prefixes what submitit hands to Slurm alone
_AT_ONCE = 256  # jobs of an array, as submitit has it
_OF_JOB = ("setup", "signal_delay_s", "additional_parameters")  # not options


def main(argv: Sequence[str], check: program.Check) -> int:
  """Submit the job.

  Args:
    argv: the words after `prompt-tuning launch slurm`.
    check: finds mistakes in the flags of the program.

  Returns:
    The process's exit status: 2 if the command line is wrong, or submitit or
    Slurm is missing.
  """
  launcher_words, args = program.split(argv)
  flags = _parser().parse_args(launcher_words)
  try:
    scripts = [
      task_script(flags, program.words(flags.program, part, check))
      for part in program.shards(flags, args)
    ]
    print(batch_file(flags))
    which = "every task" if len(scripts) == 1 else "every task of part 0"
    print(f"# {which} runs\n{scripts[0]}", flush=True)
    if not flags.dry_run:
      program.require(("sbatch", "srun"))
      _submit(flags, scripts)
  except BrokenPipeError:  # for `launch.main`
    raise
  except (ValueError, OSError, ImportError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = program.parser("slurm", __doc__ or "")
  add = parser.add_argument
  add(
    "--timeout_min",
    type=int,
    required=True,
    help="time limit of a job, in minutes",
  )
  add("--nodes", type=int, default=1, help="number of nodes of a job")
  add("--gpus_per_node", type=int, default=0, help="number of GPUs of a node")
  add("--cpus_per_task", type=int, help="number of CPU cores of a node")
  add("--mem_gb", type=int, help="memory of a node, in GB")
  add(
    "--shards",
    type=int,
    default=1,
    help="number of jobs to divide a sweep into",
  )
  add("--partition", help="partition of the cluster")
  add("--account", help="account that pays for the job")
  add("--qos", help="quality of service")
  add(
    "--name", type=program.name, default="prompt_tuning", help="name of the job"
  )
  add(
    "--folder",
    default="runs/slurm",
    help="folder for scripts and logs, which all nodes can see",
  )
  add(
    "--max_requeues",
    type=int,
    default=3,
    help="how often a job is queued again after its time limit",
  )
  add(
    "--save_s",
    type=int,
    default=300,
    help="seconds before the time limit at which the program saves",
  )
  add(
    "--setup",
    action="append",
    metavar="COMMAND",
    help="shell command before the tasks, such as 'module load cuda'",
  )
  add(
    "--sbatch",
    action="append",
    default=[],
    type=program.variable,
    metavar="NAME=VALUE",
    help="any other option of sbatch, such as constraint=a100",
  )
  return parser


def parameters(flags: argparse.Namespace) -> dict[str, Any]:
  """Translate flags for submitit's AutoExecutor.update_parameters.

  Args:
    flags: the launcher's flags.

  Returns:
    The parameters to set, by submitit's names.

  Raises:
    ValueError: GPUs are asked for in a way that hides their number.
  """
  more = dict(option.split("=", 1) for option in flags.sbatch)
  if not flags.gpus_per_node:
    for option, value in more.items():
      if _asks_for_gpus(option, value):
        raise ValueError(
          f"--sbatch {option}={value} asks for GPUs: also give "
          "--gpus_per_node, their number on each node. Without it JAX would "
          "use one GPU of each node."
        )
  settings = {
    "name": flags.name,
    "timeout_min": flags.timeout_min,
    "nodes": flags.nodes,
    "tasks_per_node": 1,
    "gpus_per_node": flags.gpus_per_node or None,
    "cpus_per_task": flags.cpus_per_task,
    "mem_gb": flags.mem_gb,
    "slurm_partition": flags.partition,
    "slurm_account": flags.account,
    "slurm_qos": flags.qos,
    "slurm_setup": flags.setup,
    "slurm_signal_delay_s": flags.save_s,
    "slurm_additional_parameters": more or None,
  }
  return {key: value for key, value in settings.items() if value is not None}


def _asks_for_gpus(option: str, value: str) -> bool:
  """Tell whether an option of sbatch is about GPUs.

  `gpus`, `gpus_per_node`, `_socket`, `_task` and `ntasks_per_gpu` ask for GPUs.
  Other names with `gpu` in them work only together with these. `gres` and
  `tres_per_task` name GPUs in their values.

  Source: sbatch's manual.
  """
  named = option.startswith(("gres", "tres")) and "gpu" in value.lower()
  return named or "gpu" in option


def batch_file(flags: argparse.Namespace) -> str:
  """Write the batch file that submitit gives to sbatch.

  Args:
    flags: the launcher's flags.

  Returns:
    The text of the file; `%j` is the job's number, `%t` the task's.
  """
  known = parameters(flags)
  options = {
    _SHARED.get(key, key.removeprefix(_OWN)): value
    for key, value in known.items()
    if key.removeprefix(_OWN) not in _OF_JOB
  }
  if flags.mem_gb is not None:
    options["mem"] = f"{flags.mem_gb}GB"
  folder = pathlib.Path(flags.folder).expanduser().absolute()
  job = "%j" if flags.shards == 1 else "%A_%a"
  streams = [f"{folder}/{job}_%t_log.{end}" for end in ("out", "err")]
  options |= {
    "output": streams[0].replace("%t", "0"),
    "error": streams[1].replace("%t", "0"),
    "open-mode": "append",
    "signal": f"USR2@{flags.save_s}",
    "wckey": "submitit",
  }
  if flags.shards > 1:
    options["array"] = f"0-{flags.shards - 1}%{min(flags.shards, _AT_ONCE)}"
  options |= known.get("slurm_additional_parameters", {})
  lines = [
    f"#SBATCH --{key.replace('_', '-')}={shlex.quote(str(value))}"
    for key, value in sorted(options.items())
  ]
  setup = ["", "# setup", *flags.setup] if flags.setup else []
  run = ["srun", "--unbuffered", "--output", streams[0], "--error", streams[1]]
  run += [sys.executable, "-u", "-m", "submitit.core._submit", str(folder)]
  called = ["", "# command", "export SUBMITIT_EXECUTOR=slurm", shlex.join(run)]
  return "\n".join(["#!/bin/bash", "", "# Parameters", *lines, *setup, *called])


def task_script(flags: argparse.Namespace, words: Sequence[str]) -> str:
  """Write the bash script that every task runs.

  Args:
    flags: the launcher's flags.
    words: `prompt-tuning`, the command and its flags.

  Returns:
    The script. It needs Slurm's variables.
  """
  variables = list(flags.env)
  if flags.gpus_per_node:
    ids = ",".join(map(str, range(flags.gpus_per_node)))
    variables.insert(0, f"JAX_LOCAL_DEVICE_IDS={ids}")
  python = [sys.executable, "-m", "prompt_tuning.launch.main", *words[1:]]
  hosts = (
    '"--coordinator_address=$host:$port" "--process_count=$SLURM_NTASKS" '
    '"--process_index=$SLURM_PROCID"'
  )
  if words[1] not in program.JOINED:
    if flags.nodes > 1:
      raise ValueError(
        f"--nodes {flags.nodes}: {words[1]} runs in one process; expected "
        "--nodes 1. Divide the work by NUM_SHARDS and --shard_id, with a job "
        "for each part."
      )
    hosts = ""
  lines = [
    "trap '' USR2  # for submitit, which has the program sent SIGTERM",
    'host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
    "port=$((61440 + SLURM_JOB_ID % 4096))",
    f"exec env {shlex.join([*variables, *python])} {hosts}".rstrip(),
  ]
  return "\n".join(lines)


def _submit(flags: argparse.Namespace, scripts: Sequence[str]) -> None:
  try:
    submitit = importlib.import_module("submitit")
  except ImportError as error:
    raise ImportError(
      "`launch slurm` needs submitit: pip install 'submitit>=1.5'. --dry_run "
      "works without it."
    ) from error
  executor = submitit.AutoExecutor(
    folder=flags.folder,
    cluster="slurm",
    slurm_max_num_timeout=flags.max_requeues,
  )
  executor.update_parameters(**parameters(flags))
  tasks = list(map(slurm_task.Task, scripts))
  if len(tasks) == 1:
    jobs = [executor.submit(tasks[0])]
  else:
    with executor.batch():  # one array
      jobs = [executor.submit(task) for task in tasks]
  for job in jobs:
    print(f"# job {job.job_id}; its output: {job.paths.stdout}")
