"""What launchers share: the program's command line, and how to run commands.

A launcher reads its own flags and, after `--`, those of a `prompt-tuning`
command, and makes a list of commands. It prints each as a line that a POSIX
shell reads back as exactly the words that run.
"""

import argparse
import dataclasses
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence

# (command of prompt-tuning, its flags); raises ValueError for a mistake.
Check = Callable[[str, Sequence[str]], None]

PROGRAMS = ("train", "sweep", "pretrain", "eval", "infer", "score")
# Commands whose processes work together; the others divide their input.
JOINED = ("train", "sweep", "pretrain", "eval")
SWEEP = "sweep"
# Statuses after which a restart cannot help: done, every run diverged, a
# mistake in the command line, Ctrl-C. All others mean that the process was
# stopped, was killed, or lost another one (75); then the same command
# continues.
FINAL = (0, 1, 2, 130)
# The only other status that a program gives by itself.
LEFT_ALONE = 75

# What a watched machine prints if no program runs and none has ended.
GONE = "gone"
# After this many looks in a row that show no program, a person must look. A
# single such look is normal: a machine that is taken away ends its program
# before it says so.
MOST_UNANSWERED = 20

_JOIN = "--multiprocess_gpu"
_TOOLS = {
  "xpk": ": pip install xpk",
  "gcloud": ": install the Google Cloud CLI",
  "sbatch": ": start this on a login node of the Slurm cluster",
  "srun": ": start this on a login node of the Slurm cluster",
}


@dataclasses.dataclass(frozen=True)
class Command:
  """One command of a launch.

  Attributes:
    words: the executable and its arguments.
    until: text to wait for; the command runs again until it prints it. None:
      run once.
    gives_up_at: texts that mean that waiting is useless.
    pause_s: seconds until it runs again.
  """

  words: tuple[str, ...]
  until: str | None = None
  gives_up_at: tuple[str, ...] = ()
  pause_s: float = 30


@dataclasses.dataclass(frozen=True)
class Watch:
  """How to wait for a program on machines that may be taken away.

  Attributes:
    ended: prints the program's status once it has ended, nothing while it runs,
      and `GONE` where it neither runs nor has left a status.
    state: prints the machines' state.
    lost: states of machines that do not come back.
    again: commands that make new machines and start the program there.
    most: how often to run `again`.
    pause_s: seconds between two looks.
  """

  ended: Command
  state: Command
  lost: tuple[str, ...]
  again: tuple[Command, ...]
  most: int
  pause_s: float = 30


def parser(engine: str, about: str) -> argparse.ArgumentParser:
  """Make a launcher's parser, with the flags of all launchers."""
  made = argparse.ArgumentParser(
    prog=f"prompt-tuning launch {engine}",
    usage=f"prompt-tuning launch {engine} [FLAGS] -- "
    "<flags of the prompt-tuning command>",
    description=about,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = made.add_argument
  add("--dry_run", action="store_true", help="print what would run, and stop")
  add(
    "--program",
    default="train",
    choices=PROGRAMS,
    help="command of prompt-tuning to start",
  )
  add(
    "--env",
    action="append",
    default=[],
    type=variable,
    metavar="NAME=VALUE",
    help="environment variable of the program; may be repeated",
  )
  return made


def shards(flags: argparse.Namespace, args: Sequence[str]) -> list[list[str]]:
  """Divide a sweep.

  Args:
    flags: the launcher's flags; `shards` is the number of parts.
    args: the program's.

  Returns:
    The program's flags of every part.

  Raises:
    ValueError: the program is not a sweep, or is already divided.
  """
  if flags.shards == 1:
    return [list(args)]
  if flags.program != SWEEP or flags.shards < 1:
    raise ValueError(
      f"--shards {flags.shards} is for sweeps only: give --program={SWEEP}, "
      "and a positive number."
    )
  if any(word.partition("=")[0] == "--shard" for word in args):
    raise ValueError(
      "Leave out --shard: with --shards, every part gets its own."
    )
  return [[*args, f"--shard={n}/{flags.shards}"] for n in range(flags.shards)]


def variable(text: str) -> str:
  """Check that a flag's value is `NAME=VALUE`."""
  if not re.fullmatch(r"[A-Za-z_]\w*=.*", text, re.ASCII | re.DOTALL):
    raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
  return text


def name(text: str) -> str:
  """Check that a flag's value can name a machine, a job or a file."""
  if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
    raise argparse.ArgumentTypeError(
      f"expected letters, digits, '-', '_' and '.', got {text!r}"
    )
  return text


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Tell a launcher's own arguments from those after the first `--`."""
  words = list(argv)
  if "--" not in words:
    return words, []
  at = words.index("--")
  return words[:at], words[at + 1 :]


def words(
  program: str, args: Sequence[str], check: Check | None = None
) -> list[str]:
  """Spell the command that every process runs.

  Args:
    program: `train` or another command of prompt-tuning.
    args: its flags.
    check: finds mistakes in them, before a pod is paid for; None if they are
      checked already.

  Returns:
    The words of the command.

  Raises:
    ValueError: no flags, or what `check` finds.
  """
  if not args:
    raise ValueError(
      f"Nothing to run: give the flags of prompt-tuning {program} after --."
    )
  if check is not None:
    check(program, args)
  return ["prompt-tuning", program, *args]


def joining(command: Sequence[str]) -> list[str]:
  """Add the flags by which processes find each other, as JAX does on TPUs.

  Source: jax.distributed.initialize, which reads a TPU's process count and
  index from its metadata or, on GKE, its environment.
  """
  asked = any(word.partition("=")[0] == _JOIN for word in command)
  alone = command[1] not in JOINED
  return list(command) if asked or alone else [*command, _JOIN]


def launch(
  made: argparse.ArgumentParser,
  plan: Callable[[argparse.Namespace, list[str]], Iterable[Command | Watch]],
  argv: Sequence[str],
  check: Check,
) -> int:
  """Read a command line; print and run its commands.

  Args:
    made: the launcher's parser.
    plan: gives the commands for the launcher's flags and the program's.
    argv: the command line.
    check: finds mistakes in the program's flags.

  Returns:
    0; 2 if the command line is wrong, a tool is missing or a command fails.
  """
  launcher_words, args = split(argv)
  flags = made.parse_args(launcher_words)
  try:
    if args:
      check(flags.program, args)
    execute(list(plan(flags, args)), flags.dry_run)
  except BrokenPipeError:  # for `launch.main`
    raise
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  return 0


def execute(commands: Sequence[Command | Watch], dry_run: bool) -> None:
  """Print commands, each before it runs.

  Args:
    commands: in their order.
    dry_run: only print.

  Raises:
    FileNotFoundError: an executable is missing; none has run.
    ChildProcessError: a command failed; those after it have not run.
  """
  if not dry_run:
    require((c.state if isinstance(c, Watch) else c).words[0] for c in commands)
  for command in commands:
    if isinstance(command, Watch):
      _print_watch(command)
      if not dry_run:
        _watch(command)
      continue
    _print(command)
    if not dry_run:
      _run(command)


def _print(command: Command, before: str = "") -> None:
  print(before + shlex.join(command.words), flush=True)
  if command.until is not None:
    print(
      f"# ... every {command.pause_s:g} s until it prints {command.until}",
      flush=True,
    )


def _print_watch(watch: Watch) -> None:
  """Print the commands of a watch, and as comments what may follow."""
  _print(watch.ended)
  print(f"# ... every {watch.pause_s:g} s until it prints a status", flush=True)
  _print(watch.state)
  print(
    f"# ... as often; when it prints {' or '.join(watch.lost)}, at most "
    f"{watch.most} times:",
    flush=True,
  )
  for command in watch.again:
    _print(command, "#   ")


def _watch(watch: Watch) -> None:
  """Wait for the program's end, on one machine after the other.

  Raises:
    ChildProcessError: it failed, machines were taken away too often, or for
      long nobody has answered or no program runs.
  """
  restarts = unanswered = 0
  while True:
    state = _said(watch.state)
    if state in watch.lost:
      if restarts == watch.most:
        raise ChildProcessError(
          f"It is {state}, after {restarts} restarts (--max_restarts). The "
          "same command goes on."
        )
      restarts += 1
      print(f"# It is {state}: restart {restarts} of {watch.most}", flush=True)
      for command in watch.again:
        _print(command)
        _run(command)
      unanswered = 0
      continue
    status = _said(watch.ended)
    if status is not None and status.isdigit():
      if int(status):
        raise ChildProcessError(f"The program ended with status {status}.")
      return
    silent = state is None and status is None
    unanswered = unanswered + 1 if silent or status == GONE else 0
    if unanswered == MOST_UNANSWERED:
      raise ChildProcessError(_nothing_known(watch, status))
    time.sleep(watch.pause_s)


def _nothing_known(watch: Watch, status: str | None) -> str:
  """Explain why a watch gives up, after its last look at the program."""
  if status == GONE:
    return (
      "No program with this --run_name runs on the machines, and none has "
      "left a status. Check --run_name. If the machine stopped while the "
      "program ran, give the same command with --steps run watch to continue."
    )
  return (
    f"{watch.state.words[0]} failed {MOST_UNANSWERED} times in a row when "
    "asked for the state of the machines and of the program; the lines above "
    "say why. Check the name, the place and your login. The program may still "
    "run: to go on waiting for it, give the same command with only --steps "
    "watch."
  )


def _said(command: Command) -> str | None:
  """Run a command and return its output; None if it fails.

  It fails for a while if a machine is being taken away, or if the network is
  down.
  """
  done = subprocess.run(
    command.words, check=False, text=True, stdout=subprocess.PIPE
  )
  return None if done.returncode else (done.stdout or "").strip()


def restarting(call: str, file: str, most: int, pause_s: int = 10) -> str:
  """Write a shell line that restarts a program until it ends for good.

  Args:
    call: the program's command, in the shell's syntax.
    file: file for its last status.
    most: how often to restart it, see `FINAL`.
    pause_s: seconds before a restart, in which the other processes end too.

  Returns:
    One line of a POSIX shell's text.
  """
  final = "|".join(map(str, FINAL))
  return (
    f"n=0; while :; do {call}; s=$?; case $s in {final}) break;; esac; "
    f"[ $n -lt {most} ] || break; n=$((n + 1)); "
    f'echo "status $s: restart $n of {most}"; sleep {pause_s}; done; '
    f"echo $s > {shlex.quote(file)}"
  )


def require(tools: Iterable[str]) -> None:
  """Check that executables are on PATH.

  Args:
    tools: their names.

  Raises:
    FileNotFoundError: one is missing; names the first, and where to get it.
  """
  for tool in tools:
    if shutil.which(tool) is None:
      raise FileNotFoundError(
        f"{tool} is not on PATH{_TOOLS.get(tool, '')}. --dry_run works "
        "without it."
      )


def _run(command: Command) -> None:
  while True:
    done = subprocess.run(
      command.words,
      check=False,
      text=True,
      stdout=None if command.until is None else subprocess.PIPE,
    )
    if done.returncode:
      raise ChildProcessError(
        f"{command.words[0]} ended with status {done.returncode}; the "
        "commands after it did not run."
      )
    said = (done.stdout or "").strip()
    if command.until is None or said == command.until:
      return
    if said in command.gives_up_at:
      raise ChildProcessError(
        f"Its state is {said}; it will not become {command.until}."
      )
    time.sleep(command.pause_s)
