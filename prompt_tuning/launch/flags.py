"""T5X's command-line flags."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import NoReturn

from prompt_tuning.core import tree
from prompt_tuning.machine.processes import Distributed

_BINDING = "--gin."
# Flags that only some commands have -> these commands. `plan` takes a command
# line of `train` unchanged.
_TFDS = ("train", "sweep", "compare", "eval", "infer", "score", "plan")
_SHARDS = ("infer", "score")
_HOSTS = ("train", "sweep", "pretrain", "compare", "eval", "plan")
_COMMANDS_OF = {
  "--tfds_data_dir": _TFDS,
  "--seqio_additional_cache_dirs": _TFDS,
  "--shard_id": _SHARDS,
  "--coordinator_address": _HOSTS,
  "--process_count": _HOSTS,
  "--process_index": _HOSTS,
  "--initialization_timeout": _HOSTS,
  "--multiprocess_gpu": _HOSTS,
}
# absl's flags in T5X's programs, and whether they take a value. Here messages
# go to standard error, and --verbose shows more of them.
_OF_ABSL = {
  **dict.fromkeys(("alsologtostderr", "logtostderr"), False),
  **dict.fromkeys(("showprefixforinfo", "only_check_args"), False),
  **dict.fromkeys(("pdb_post_mortem", "run_with_pdb"), False),
  **dict.fromkeys(("log_dir", "logger_levels", "stderrthreshold"), True),
  **dict.fromkeys(("v", "verbosity"), True),
}
# The values of these flags for commands that do not have them.
_ABSENT = {
  "tfds_data_dir": None,
  "seqio_additional_cache_dirs": "",
  "shard_id": None,
  "coordinator_address": None,
  "process_count": None,
  "process_index": None,
  "initialization_timeout": Distributed.initialization_timeout,
  "multiprocess_gpu": False,
}


@dataclasses.dataclass(frozen=True)
class Flags:
  """A parsed command line.

  Attributes:
    gin_files: gin files; later ones win.
    gin_bindings: `NAME = value` lines; they win over files, later over earlier.
    gin_search_paths: folders to search for relative gin files, before the
      package's own.
    tfds_data_dir: TFDS's data directory, for every task.
    seqio_additional_cache_dirs: accepted as in T5X; has no effect here.
    distributed: how the processes find each other.
    dry_run: build everything the configuration names, print it, and stop.
    verbose: show details too, such as every parameter.
    shard_id: index of the part of an inference job that this process does.
  """

  gin_files: tuple[str, ...] = ()
  gin_bindings: tuple[str, ...] = ()
  gin_search_paths: tuple[str, ...] = (".",)
  tfds_data_dir: str | None = None
  seqio_additional_cache_dirs: tuple[str, ...] = ()
  distributed: Distributed = dataclasses.field(default_factory=Distributed)
  dry_run: bool = False
  verbose: bool = False
  shard_id: int | None = None


def parse(command: str, argv: Sequence[str], about: str) -> Flags:
  """Read a command line.

  Args:
    command: its name, for the help text.
    argv: the words after it.
    about: what the command does.

  Returns:
    The flags.

  Raises:
    ValueError: an unknown flag, with the nearest known one, or a bad value.
    SystemExit: after printing the help.
  """
  parser = _parser(command, about)
  args, unknown = parser.parse_known_args(_rewritten(_without_absl(argv)))
  if unknown:
    word = unknown[0].partition("=")[0]
    known = [o for action in parser._actions for o in action.option_strings]
    hint = tree.nearest(word, known)
    if word in _COMMANDS_OF:
      hint = f" It is a flag of {', '.join(_COMMANDS_OF[word])}."
    raise ValueError(
      f"Unknown argument {unknown[0]!r}.{hint} Settings are given as "
      f"{_BINDING}NAME=value; --help lists all flags."
    )
  return Flags(
    gin_files=tuple(args.gin_file),
    gin_bindings=tuple(args.gin_bindings),
    gin_search_paths=_split(args.gin_search_paths),
    tfds_data_dir=args.tfds_data_dir or None,
    seqio_additional_cache_dirs=_split(args.seqio_additional_cache_dirs),
    distributed=Distributed(
      args.coordinator_address,
      args.process_count,
      args.process_index,
      args.initialization_timeout,
      args.multiprocess_gpu or args.coordinator_address is not None,
    ),
    dry_run=args.dry_run,
    verbose=args.verbose,
    shard_id=args.shard_id,
  )


class _Parser(argparse.ArgumentParser):
  """Raises errors as exceptions, so that one place prints them."""

  def error(self, message: str) -> NoReturn:
    raise ValueError(f"{message}; --help lists all flags.")


def _parser(command: str, about: str) -> argparse.ArgumentParser:
  parser = _Parser(
    prog=f"prompt-tuning {command}",
    description=about,
    epilog=f"{_BINDING}NAME=value binds one macro or parameter in gin's "
    f"syntax, so text needs quotes inside: {_BINDING}MODEL_DIR=\"'runs/1'\".",
    allow_abbrev=False,
  )
  gin = parser.add_argument_group("configuration")
  gin.add_argument(
    "--gin_file",
    action="append",
    default=[],
    metavar="FILE",
    help="gin file, such as models/t5_1_1_base_prompt.gin; may be repeated, "
    "later files win",
  )
  gin.add_argument(
    "--gin_bindings",
    action="append",
    default=[],
    metavar="'NAME = value'",
    help=f"the long form of {_BINDING}NAME=value",
  )
  gin.add_argument(
    "--gin_search_paths",
    default=".",
    metavar="DIR,DIR",
    help="folders searched for gin files before the package's own",
  )
  gin.add_argument(
    "--dry_run",
    action="store_true",
    help="print the operative configuration and stop",
  )
  parser.add_argument(
    "--verbose",
    action="store_true",
    help="show details too, such as every parameter",
  )
  parser.set_defaults(**_ABSENT)
  if command in _TFDS:
    _add_data_flags(parser)
  if command in _SHARDS:
    parser.add_argument(
      "--shard_id",
      type=int,
      help="number of the part of the work to do, from 0",
    )
  if command in _HOSTS:
    _add_host_flags(parser)
  return parser


def _add_data_flags(parser: argparse.ArgumentParser) -> None:
  data = parser.add_argument_group("data")
  data.add_argument(
    "--tfds_data_dir", metavar="DIR", help="TFDS's data directory"
  )
  data.add_argument(
    "--seqio_additional_cache_dirs",
    default="",
    metavar="DIR,DIR",
    help="accepted and ignored: tokenised examples are cached by this project",
  )


def _add_host_flags(parser: argparse.ArgumentParser) -> None:
  hosts = parser.add_argument_group("several hosts")
  hosts.add_argument(
    "--coordinator_address",
    metavar="HOST:PORT",
    help="address of the first process; TPU pods and Slurm need none",
  )
  hosts.add_argument(
    "--process_count", type=int, help="number of processes on all hosts"
  )
  hosts.add_argument(
    "--process_index", type=int, help="number of this process, from 0"
  )
  hosts.add_argument(
    "--initialization_timeout",
    type=int,
    default=Distributed.initialization_timeout,
    metavar="SECONDS",
    help="how long processes wait for each other at the start",
  )
  hosts.add_argument(
    "--multiprocess_gpu",
    type=_boolean,
    nargs="?",
    const=True,
    default=False,
    help="join the processes of all hosts (implied by --coordinator_address)",
  )


def _without_absl(argv: Sequence[str]) -> list[str]:
  """Remove the flags that only say where absl's messages go."""
  words: list[str] = []
  takes_value = False
  for word in argv:
    if takes_value and re.match(r"[^-]|-\d", word):
      takes_value = False
      continue
    name, equals, _ = word.lstrip("-").partition("=")
    known = name in _OF_ABSL or _OF_ABSL.get(name.removeprefix("no")) is False
    is_absl = word.startswith("-") and known
    takes_value = is_absl and not equals and bool(_OF_ABSL.get(name))
    if not is_absl:
      words.append(word)
  return words


def _rewritten(argv: Sequence[str]) -> list[str]:
  """Turn `--gin.NAME=value` into `--gin_bindings=NAME = value`."""
  words = []
  for word in argv:
    if word.startswith(_BINDING):
      name, equals, value = word.removeprefix(_BINDING).partition("=")
      if not equals:
        raise ValueError(
          f"{word}: expected {_BINDING}NAME=value, without spaces around '='."
        )
      word = f"--gin_bindings={name.strip()} = {value.strip()}"
    words.append(word)
  return words


def _split(text: str) -> tuple[str, ...]:
  return tuple(part.strip() for part in text.split(",") if part.strip())


def _boolean(text: str) -> bool:
  known = {"true": True, "1": True, "false": False, "0": False}
  if text.lower() not in known:
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
  return known[text.lower()]
