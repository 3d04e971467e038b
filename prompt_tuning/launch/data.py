"""`prompt-tuning data`: prepare official files, list tasks, look at one."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence

_DATA_DIR_HELP = "TFDS's data directory"


def main(argv: Sequence[str]) -> int:
  """Run one of the subcommands.

  Args:
    argv: the words after `prompt-tuning data`.

  Returns:
    The process's exit status.
  """
  arguments = _parser().parse_args(argv)
  try:
    for line in arguments.run(arguments):
      print(line, flush=True)
  except BrokenPipeError:  # for `main`
    raise
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="prompt-tuning data", description=__doc__, allow_abbrev=False
  )
  commands = parser.add_subparsers(required=True, metavar="COMMAND")

  command = commands.add_parser(
    "prepare", help="turn official files into TFDS directories"
  )
  command.set_defaults(run=_prepare)
  command.add_argument(
    "--source",
    nargs="+",
    required=True,
    metavar="DIR",
    help="searched for official files (SuperGLUE, GLUE, SQuAD, MRQA, AG News, "
    "DBpedia, IMDB, Amazon), complete or partial",
  )
  command.add_argument("--tfds_data_dir", required=True, help=_DATA_DIR_HELP)
  command.add_argument(
    "--only",
    nargs="+",
    default=(),
    metavar="NAME",
    help="dataset names such as super_glue/boolq, or glue for all of GLUE",
  )
  command.add_argument(
    "--overwrite",
    action="store_true",
    help="replace what was made from other files",
  )

  command = commands.add_parser("list", help="list tasks and what is there")
  command.set_defaults(run=_list)
  command.add_argument(
    "part", nargs="?", default="", help="part of a name; none: an overview"
  )
  command.add_argument("--all", action="store_true", help="every task")
  command.add_argument("--tfds_data_dir", help=_DATA_DIR_HELP)

  command = commands.add_parser("show", help="look at a task's examples")
  command.set_defaults(run=_show)
  command.add_argument(
    "task", help="a task or mixture, see `list`, also k-shot: TASK_k16_seed0"
  )
  command.add_argument("--split", help="by default the first it has")
  command.add_argument("--tfds_data_dir", help=_DATA_DIR_HELP)
  command.add_argument("--cache_dir", help="of tokenised examples")
  command.add_argument("--vocabulary", help="T5's sentencepiece.model")
  command.add_argument("--examples", type=int, default=3)
  command.add_argument("--inputs", type=int, default=512, help="limit")
  command.add_argument("--targets", type=int, help="limit, by default none")
  return parser


def _prepare(arguments: argparse.Namespace) -> Iterator[str]:
  from prompt_tuning.jobs import tasks

  return tasks.prepare(
    arguments.source,
    arguments.tfds_data_dir,
    arguments.only,
    arguments.overwrite,
  )


def _list(arguments: argparse.Namespace) -> Iterable[str]:
  from prompt_tuning.jobs import tasks

  if arguments.part or arguments.all:
    return tasks.listing(arguments.part, arguments.tfds_data_dir)
  return tasks.overview(arguments.tfds_data_dir)


def _show(arguments: argparse.Namespace) -> Iterator[str]:
  from prompt_tuning.jobs import tasks

  return tasks.examples(
    arguments.task,
    arguments.split,
    {"inputs": arguments.inputs, "targets": arguments.targets},
    arguments.examples,
    arguments.tfds_data_dir,
    arguments.cache_dir,
    arguments.vocabulary,
  )
