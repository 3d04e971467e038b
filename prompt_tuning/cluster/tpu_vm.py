"""Run prompt-tuning on all workers of a Cloud TPU VM, through gcloud.

  prompt-tuning launch tpu_vm --name=N --zone=Z \
    --steps create install run --accelerator_type=v5litepod-16 \
    --runtime_version=v2-alpha-tpuv5-lite \
    --package=dist/prompt_tuning-0.1.0-py3-none-any.whl \
    -- <flags of prompt-tuning train>

Steps: `create` asks for the TPU, `install` makes an environment on every
worker, `run` starts the program on every worker and returns, `watch` waits for
its end and starts again if a queued TPU is taken away, `logs` fetches its
output so far, `delete` gives the TPU back. Steps always run in this order.
Without `watch`, `delete` would not wait for the program that `run` started.

Source: the gcloud reference of `compute tpus tpu-vm` (create, ssh, scp, delete)
and `compute tpus queued-resources` (create, describe, delete), Cloud TPU's
pages "Run JAX code on TPU slices" and "Manage queued resources", JAX's
installation page. gcloud hands `--command` to ssh as it is, and ssh to the
worker's shell: quoted once. It repeats a command whose connection broke, hence
the lock in `run`; its `--output-directory` writes to a folder named None in
version 528, hence a log on the worker. The images are Ubuntu 22.04, whose
Python 3.10 is older than this project's, hence uv, which brings another.
"""

import argparse
import pathlib
import shlex
from collections.abc import Sequence

from prompt_tuning.cluster import program
from prompt_tuning.cluster.program import Command, Watch

STEPS = ("create", "install", "run", "watch", "logs", "delete")

_ENVIRONMENT = "~/prompt_tuning_env"
_RUNS = "prompt_tuning_runs"  # below the worker's home, where ssh begins
_LOST = ("FAILED", "SUSPENDING", "SUSPENDED", "DELETING")


def main(argv: Sequence[str], check: program.Check) -> int:
  """Do the steps.

  Args:
    argv: the words after `prompt-tuning launch tpu_vm`.
    check: finds mistakes in the flags of the program.

  Returns:
    The process's exit status.
  """
  return program.launch(_parser(), plan, argv, check)


def _parser() -> argparse.ArgumentParser:
  parser = program.parser("tpu_vm", __doc__ or "")
  add = parser.add_argument
  add("--name", required=True, type=program.name, help="name of the TPU VM")
  add("--zone", required=True, help="zone of the TPU VM")
  add("--project", help="Google Cloud project; by default gcloud's")
  add("--steps", nargs="+", choices=STEPS, default=["run"], help="steps to do")
  create = parser.add_argument_group("create, delete")
  create.add_argument(
    "--accelerator_type", help="type of the TPU, such as v5litepod-16"
  )
  create.add_argument(
    "--runtime_version",
    help="software of the TPU VM, such as v2-alpha-tpuv5-lite",
  )
  create.add_argument(
    "--spot",
    action="store_true",
    help="ask for a spot TPU: cheaper, and may be taken away",
  )
  create.add_argument(
    "--queued",
    action="store_true",
    help="ask for a queued resource: wait for the TPU however long it takes",
  )
  create.add_argument(
    "--poll_s",
    type=float,
    default=30,
    help="seconds between two looks at the TPU's state",
  )
  install = parser.add_argument_group("install")
  install.add_argument(
    "--package",
    help="wheel on this machine, or what pip can install on the workers",
  )
  install.add_argument(
    "--python", default="3.12", help="version of Python to install"
  )
  install.add_argument(
    "--setup",
    help="shell command to run before installing, such as mounting a bucket",
  )
  run = parser.add_argument_group("run, watch, logs")
  run.add_argument(
    "--run_name",
    type=program.name,
    default="run",
    help="name of the run, which its logs have",
  )
  run.add_argument(
    "--max_restarts",
    type=int,
    default=0,
    help="most restarts of a stopped program; with watch, also of a TPU "
    "that was taken away",
  )
  run.add_argument(
    "--log_dir", default="runs/tpu_vm", help="folder on this machine for logs"
  )
  run.add_argument(
    "--log_workers",
    type=int,
    nargs="+",
    default=[0],
    help="workers whose logs to copy",
  )
  return parser


def plan(
  flags: argparse.Namespace, args: Sequence[str]
) -> list[Command | Watch]:
  """Build the calls of gcloud.

  Args:
    flags: the launcher's flags.
    args: the program's.

  Returns:
    The commands of the steps in the flags.

  Raises:
    ValueError: a step lacks a flag, or would undo another.
    FileNotFoundError: the package does not exist.
  """
  steps = set(flags.steps)
  if args and not steps & {"run", "watch"}:
    raise ValueError(
      f"--steps has no run, so nothing would read {args[0]!r}. Add run to "
      "--steps, or leave out the flags after --."
    )
  if flags.max_restarts < 0:
    raise ValueError(
      f"--max_restarts {flags.max_restarts}: expected a whole number, 0 or "
      "more."
    )
  if {"run", "delete"} <= steps and "watch" not in steps:
    raise ValueError(
      f"--steps {' '.join(flags.steps)}: run returns as soon as the program "
      "has started, so delete would take the TPU from it. Leave delete out, "
      "and give --steps delete after the program has ended (--steps logs "
      "shows it). Or wait for the end with --steps run watch delete."
    )
  commands: list[Command | Watch] = []
  for step in STEPS:
    if step not in steps:
      continue
    if step == "run":
      commands += [_run(flags, program.words(flags.program, args))]
    elif step == "watch":
      commands += [_watch(flags, program.words(flags.program, args))]
    else:
      commands += _OTHERS[step](flags)
  return commands


def _gcloud(flags: argparse.Namespace, *words: str) -> Command:
  location = [f"--zone={flags.zone}"]
  if flags.project:
    location.append(f"--project={flags.project}")
  return Command(("gcloud", "compute", "tpus", *words, *location))


def _everywhere(flags: argparse.Namespace, script: str) -> Command:
  return _gcloud(
    flags, "tpu-vm", "ssh", flags.name, "--worker=all", f"--command={script}"
  )


def _needs(flags: argparse.Namespace, step: str, *names: str) -> None:
  for flag in names:
    if not getattr(flags, flag):
      raise ValueError(f"--steps {step} needs --{flag}.")


def _create(flags: argparse.Namespace) -> list[Command]:
  _needs(flags, "create", "accelerator_type", "runtime_version")
  kind = [f"--accelerator-type={flags.accelerator_type}"]
  kind += ["--spot"] * flags.spot
  version = flags.runtime_version
  if not flags.queued:
    words = ("tpu-vm", "create", flags.name, f"--version={version}", *kind)
    return [_gcloud(flags, *words)]
  queue = ("queued-resources", "create", flags.name, f"--node-id={flags.name}")
  return [
    _gcloud(flags, *queue, f"--runtime-version={version}", *kind),
    Command(
      _state(flags).words,
      until="ACTIVE",
      gives_up_at=_LOST,
      pause_s=flags.poll_s,
    ),
  ]


def _install(flags: argparse.Namespace) -> list[Command]:
  _needs(flags, "install", "package")
  commands, package = [], flags.package
  if pathlib.Path(package).is_dir():
    raise ValueError(
      f"--package={package} is a folder. Make a wheel of it: pip wheel "
      f"--no-deps --wheel-dir=dist {package}; then give --package=dist/..."
    )
  if package.endswith(".whl") and "://" not in package:
    if not (flags.dry_run or pathlib.Path(package).is_file()):
      raise FileNotFoundError(
        f"--package={package}: no such file; expected a wheel here (pip wheel "
        "--no-deps --wheel-dir=dist . makes one) or what pip can install on "
        "the workers."
      )
    target = f"{flags.name}:"
    words = ("tpu-vm", "scp", package, target, "--worker=all")
    commands.append(_gcloud(flags, *words))
    package = f"./{pathlib.Path(package).name}"
  uv = "python3 -m uv"
  steps = [flags.setup] if flags.setup else []
  steps += [
    "python3 -m pip install --quiet --user uv",
    f"{uv} venv --quiet --allow-existing --python={shlex.quote(flags.python)} "
    f"{_ENVIRONMENT}",
    f"{uv} pip install --quiet --python {_ENVIRONMENT}/bin/python 'jax[tpu]' "
    f"{shlex.quote(package)}",
  ]
  return [*commands, _everywhere(flags, " && ".join(steps))]


def _run(flags: argparse.Namespace, words: Sequence[str]) -> Command:
  """Start the program so that it keeps running when the connection ends."""
  run = flags.run_name
  called, *args = program.joining(words)
  variables = "".join(f"{shlex.quote(v)} " for v in flags.env)
  loop = program.restarting(
    f"env {variables}{_ENVIRONMENT}/bin/{called} {shlex.join(args)}",
    f"{run}.status",
    flags.max_restarts,
  )
  start = (
    f"rm -f {run}.status; nohup bash -c {shlex.quote(loop)} "
    f">> {run}.log 2>&1 < /dev/null &"
  )
  taken = f"{{ echo '{run} is running already' >&2; exit 1; }}"
  script = (
    f"mkdir -p ~/{_RUNS} && cd ~/{_RUNS} && "
    f"{{ flock --nonblock 9 || {taken}; {start} }} 9> {run}.lock"
  )
  return _everywhere(flags, script)


def _watch(flags: argparse.Namespace, words: Sequence[str]) -> Watch:
  """Wait for the end; if the TPU is taken away, ask for another one."""
  if not flags.queued:
    raise ValueError(
      "--steps watch needs --queued, because it asks the queue again for a "
      "TPU that was taken away."
    )
  run = flags.run_name
  status = f"cat {run}.status 2> /dev/null"
  # Look twice: a program may end between the look for its status and for its
  # lock.
  script = (
    f"cd ~/{_RUNS} 2> /dev/null; {status} || "
    f"{{ test -e {run}.lock && ! flock --nonblock {run}.lock true; }} || "
    f"{status} || echo {program.GONE}"
  )
  return Watch(
    ended=_gcloud(
      flags,
      *("tpu-vm", "ssh", flags.name, "--worker=0"),
      f"--command={script}",
    ),
    state=_state(flags),
    lost=_LOST,
    again=(
      *_delete(flags),
      *_create(flags),
      *_install(flags),
      _run(flags, words),
    ),
    most=flags.max_restarts,
    pause_s=flags.poll_s,
  )


def _state(flags: argparse.Namespace) -> Command:
  """Print the state of a queued TPU."""
  state = ("queued-resources", "describe", flags.name)
  return _gcloud(flags, *state, "--format=value(state.state)")


def _logs(flags: argparse.Namespace) -> list[Command]:
  # scp fetches from one worker at a time.
  commands = [Command(("mkdir", "-p", flags.log_dir))]
  for worker in flags.log_workers:
    source = f"{flags.name}:{_RUNS}/{flags.run_name}.log"
    target = f"{flags.log_dir}/{flags.run_name}.worker_{worker}.log"
    words = ("tpu-vm", "scp", source, target, f"--worker={worker}")
    commands.append(_gcloud(flags, *words))
  return commands


def _delete(flags: argparse.Namespace) -> list[Command]:
  kind = "queued-resources" if flags.queued else "tpu-vm"
  words = [kind, "delete", flags.name, "--quiet"]
  words += ["--force"] * flags.queued  # its TPU, too
  return [_gcloud(flags, *words)]


_OTHERS = {
  "create": _create,
  "install": _install,
  "logs": _logs,
  "delete": _delete,
}
