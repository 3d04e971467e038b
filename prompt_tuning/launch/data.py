"""`prompt-tuning data`: prepare official files, list tasks, look at one."""

import argparse
from collections.abc import Iterable, Iterator, Sequence

from prompt_tuning.launch import console

_BINDING = "--gin."
_NAME = "MIXTURE_OR_TASK_NAME"
_VOCABULARY = "VOCABULARY_FILE"
_DATA_DIR_HELP = "TFDS's data directory"


def main(argv: Sequence[str]) -> int:
  """Run one of the subcommands.

  Args:
    argv: the words after `prompt-tuning data`.

  Returns:
    The process's exit status.
  """
  parser = _parser()
  settings = [word for word in argv if word.startswith(_BINDING)]
  arguments = parser.parse_args([w for w in argv if w not in settings])
  if settings and arguments.run is not _show:
    parser.error(f"unrecognized arguments: {' '.join(settings)}")
  arguments.bindings = [word.removeprefix(_BINDING) for word in settings]
  try:
    for line in arguments.run(arguments):
      print(line, flush=True)
  except BrokenPipeError:  # for `main`
    raise
  except (ValueError, OSError) as error:
    from prompt_tuning.launch import command  # slow to import

    console.error(command.plain(error))
    return 2
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="prompt-tuning data", description=__doc__, allow_abbrev=False
  )
  commands = parser.add_subparsers(required=True, metavar="COMMAND")
  for name, about, run, add_options in (
    (
      "prepare",
      "turn official files into TFDS directories",
      _prepare,
      _add_prepare_options,
    ),
    ("list", "list tasks and what is there", _list, _add_list_options),
    ("show", "look at a task's examples", _show, _add_show_options),
    (
      "words",
      "look at files of templates and label words",
      _words,
      _add_words_options,
    ),
  ):
    command = commands.add_parser(name, help=about)
    command.set_defaults(run=run)
    add_options(command)
  return parser


def _add_prepare_options(command: argparse.ArgumentParser) -> None:
  command.add_argument(
    "--source",
    nargs="+",
    required=True,
    metavar="DIR",
    help="folders to search for official files (SuperGLUE, GLUE, SQuAD, "
    "MRQA, AG News, DBpedia, IMDB, Amazon, SemEval-2010 task 8, "
    "TACRED, DialogRE), complete or partial",
  )
  command.add_argument("--tfds_data_dir", required=True, help=_DATA_DIR_HELP)
  command.add_argument(
    "--only",
    nargs="+",
    default=(),
    metavar="NAME",
    help="data sets to prepare, such as super_glue/boolq, or glue for all "
    "of GLUE",
  )
  command.add_argument(
    "--overwrite",
    action="store_true",
    help="replace what was made from other files",
  )


def _add_list_options(command: argparse.ArgumentParser) -> None:
  command.add_argument(
    "part",
    nargs="?",
    default="",
    help="list the tasks with this in their names; without it, show an "
    "overview",
  )
  command.add_argument("--all", action="store_true", help="list every task")
  command.add_argument("--tfds_data_dir", help=_DATA_DIR_HELP)


def _add_show_options(command: argparse.ArgumentParser) -> None:
  command.add_argument(
    "task",
    nargs="?",
    help="a task or mixture (see `list`), also k-shot, such as "
    "TASK_k16_seed0; by default MIXTURE_OR_TASK_NAME of the gin files",
  )
  command.add_argument(
    "--gin_file",
    action="append",
    default=[],
    metavar="FILE",
    help="gin file that declares tasks of your own; --gin.NAME=VALUE "
    "changes a setting in it",
  )
  command.add_argument(
    "--split", help="split to show; by default the task's first one"
  )
  command.add_argument("--tfds_data_dir", help=_DATA_DIR_HELP)
  command.add_argument("--cache_dir", help="folder of tokenised examples")
  command.add_argument(
    "--vocabulary",
    help="T5's sentencepiece.model, or embedded:ladder_1; by default "
    "VOCABULARY_FILE of the gin files, else PROMPT_TUNING_VOCABULARY",
  )
  command.add_argument(
    "--examples", type=int, default=3, help="number of examples to show"
  )
  command.add_argument(
    "--inputs", type=int, default=512, help="most tokens of an input"
  )
  command.add_argument(
    "--targets", type=int, help="most tokens of a target; by default no limit"
  )


def _add_words_options(command: argparse.ArgumentParser) -> None:
  command.add_argument(
    "paths",
    nargs="+",
    metavar="PATH",
    help="file of templates or label words, or a folder of such files",
  )
  command.add_argument("--vocabulary", help="T5's sentencepiece.model")


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


def _words(arguments: argparse.Namespace) -> Iterator[str]:
  from prompt_tuning.jobs import word_files

  return word_files.lines(arguments.paths, arguments.vocabulary)


def _task(arguments: argparse.Namespace) -> tuple[str, str | None]:
  """Return the task's name and the vocabulary, from gin files if given."""
  if not arguments.gin_file and not arguments.bindings:
    if not arguments.task:
      raise ValueError(
        "No task: name one, or give a --gin_file that names one."
      )
    return str(arguments.task), arguments.vocabulary
  from prompt_tuning.launch import command, flags

  defaults = [
    f"data.shown_task.task = %{_NAME}",
    f"{_VOCABULARY} = None",
    f"data.shown_task.vocabulary_file = %{_VOCABULARY}",
  ]
  task, vocabulary = command.configure(
    "data.shown_task",
    flags.Flags(tuple(arguments.gin_file), tuple(arguments.bindings)),
    defaults,
  )
  return str(arguments.task or task), arguments.vocabulary or vocabulary


def _show(arguments: argparse.Namespace) -> Iterator[str]:
  from prompt_tuning.jobs import tasks

  task, vocabulary = _task(arguments)
  return tasks.examples(
    task,
    arguments.split,
    {"inputs": arguments.inputs, "targets": arguments.targets},
    arguments.examples,
    arguments.tfds_data_dir,
    arguments.cache_dir,
    vocabulary,
  )
