"""The common part of the commands that gin configures.

Reading flags is cheap: JAX, and modules that need it, are imported only after
the flags are checked. Commands' modules are cheap to import too, because they
import their work only when they do it.
"""

import contextlib
import functools
import logging
import pathlib
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from prompt_tuning.launch import console, flags
from prompt_tuning.launch.flags import Flags
from prompt_tuning.machine import memory, processes
from prompt_tuning.train.errors import DivergedError, StoppedError

INTERRUPTED = 128 + signal.SIGINT
logger = logging.getLogger(__name__)

# A file beside the compiled programs (its time says when they were last
# checked), and the seconds that writing one may take.
_CHECKED, _WRITING_S = "checked", 60

# Commands that train nothing, and how much of a memory error is shown.
_ANSWERING, _SAID_OF_MEMORY = ("eval", "infer", "score"), 200

_UNSET = re.compile(
  r"missing (?:a|\d+) required (?:positional )?arguments?: (.*)"
)
# Gin's name of a job -> a run file of the package with its settings.
_RUN_FILES = {
  "train": "prompt_finetune.gin",
  "compare": "compare.gin",
  "pretrain": "pretrain.gin",
  "eval": "prompt_eval.gin",
  "infer": "prompt_infer.gin (prompt_score.gin)",
}

_CALL = re.compile(r"\n  In call to configurable '([^']*)' .*")
_OF_GIN = re.compile(
  r"\n  (No values supplied by Gin|Gin had values|Caller supplied values) .*"
)


def run(
  name: str,
  argv: Sequence[str],
  about: str,
  work: Callable[[Any, Flags], None],
  configurable: str | None = None,
  computes: bool = True,
  look: Callable[[Any], Sequence[str]] = lambda job: (),
  defaults: Sequence[str] = (),
  build: Callable[[Flags], Any] | None = None,
) -> int:
  """Read flags and gin, build the job, and do it.

  Args:
    name: of the command.
    argv: the words after it.
    about: one line for `--help`.
    work: does a job.
    configurable: gin's name of the job; the command's name by default.
    computes: whether the model runs many times here. If so, the process keeps
      freed memory, and compiled programs are kept for later commands.
    look: a function for dry runs: makes the checks that come before anything
      large is read, and returns lines to print.
    defaults: gin statements for settings that the command does not need.
    build: builds the job from flags if it has several configurations; a dry run
      then prints none of them.

  Returns:
    0; 1 if training diverged; 2 if the command line, the configuration, or
    something that they name is wrong; 130 after Ctrl-C, 129 after SIGHUP, 143
    after SIGTERM. After a signal, training is saved, and the same command
    continues it.
  """
  try:
    arguments = flags.parse(name, argv, about)
    with console.messages(arguments.verbose):
      configure_job = functools.partial(
        configure, configurable or name, arguments, defaults
      )
      if build is not None:
        configure_job = functools.partial(build, arguments)
      _run(configure_job, arguments, work, computes, look, build is None)
  except StoppedError as stop:
    say(plain(stop))
    return stop.status
  except KeyboardInterrupt:  # before or after training, which has saved by now
    processes.fail("interrupted", INTERRUPTED)
    print("Interrupted.", file=sys.stderr)
    return INTERRUPTED
  except BrokenPipeError:  # for `launch.main`
    raise
  except Exception as error:
    short = memory.is_exhausted(error)
    said = _without_memory(name, error) if short else plain(error)
    others = processes.settle(said)
    if not (short or isinstance(error, DivergedError | ValueError | OSError)):
      raise
    status = 1 if isinstance(error, DivergedError) else 2
    processes.fail(said, status)
    for text in filter(None, (said, others)):
      console.error(text)
    return status
  return 0


def _run(
  configure_job: Callable[[], Any],
  arguments: Flags,
  work: Callable[[Any, Flags], None],
  computes: bool,
  look: Callable[[Any], Sequence[str]],
  has_configuration: bool,
) -> None:
  """Run the command with parsed flags, see `run`."""
  if computes:
    memory.keep()
  if arguments.seqio_additional_cache_dirs:
    logger.info(
      "--seqio_additional_cache_dirs has no effect: this project caches "
      "tokenised examples in TOKEN_CACHE_DIR."
    )
  if not arguments.dry_run:
    processes.join(arguments.distributed)
  job = configure_job()
  if arguments.dry_run:
    from prompt_tuning.launch import gin_config

    notes = look(job)
    if has_configuration:
      print(gin_config.operative_text(), end="")
    for line in notes:
      print(f"# {line}" if has_configuration else line)
    return
  if computes:
    from prompt_tuning.machine import accelerators, compiled_programs

    accelerators.mention_unused()
    folder = compiled_programs.keep()
    if folder is not None:
      _collect(folder)
  work(job, arguments)


def _collect(folder: str) -> None:
  """Delete compiled programs that a killed command left half-written."""
  from prompt_tuning.core import files
  from prompt_tuning.machine import compiled_programs

  checked = pathlib.Path(folder, _CHECKED)
  with contextlib.suppress(OSError):  # another user's
    try:
      after = float(checked.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
      after = 0.0
    until = time.time() - _WRITING_S
    for path in compiled_programs.damaged(folder, after, until):
      files.remove(path)
    if pathlib.Path(folder).is_dir():
      files.write_text(checked, f"{until}\n")


def say(text: str) -> None:
  """Print for the user, once per job, from one of its processes."""
  import jax

  if jax.process_index() == 0:
    print(text, flush=True)


def configure(name: str, arguments: Flags, defaults: Sequence[str] = ()) -> Any:
  """Build a command's job from its flags.

  Args:
    name: gin's name of the job.
    arguments: the flags.
    defaults: gin statements before the files.

  Returns:
    The job.

  Raises:
    ValueError: the configuration is wrong.
  """
  import gin

  from prompt_tuning.launch import configurables, gin_config

  configurables.register()
  gin_config.load(
    arguments.gin_files,
    arguments.gin_bindings,
    {**configurables.KNOWN, **configurables.register_methods()},
    arguments.gin_search_paths,
    configurables.CONSTANTS,
    configurables.register_methods,
    defaults,
  )
  try:
    return gin.get_configurable(name)()
  except TypeError as error:  # text where a number belongs, and the like
    callers = _CALL.findall(str(error))
    unset = _UNSET.search(plain(error))
    if unset and callers[:1] == [name]:
      raise gin_config.ConfigError([_what_to_give(name, unset[1])]) from error
    prefix = f"{callers[0]}: " if callers else ""
    raise gin_config.ConfigError([f"{prefix}{plain(error)}"]) from error


def _what_to_give(name: str, unset: str) -> str:
  """Say which gin files a job needs if settings have no value."""
  return (
    f"No value for {unset} of {name}. Give a model file and a run file, such "
    f"as --gin_file=models/embedded.gin --gin_file=runs/{_RUN_FILES[name]}. "
    "The package has these files in its folder gin."
  )


def _without_memory(name: str, error: Exception) -> str:
  """Say in one line what to change if a program does not fit into memory."""
  device = " ".join(str(error).split())[:_SAID_OF_MEMORY].rstrip(".")
  smaller = "BATCH_SIZE or TASK_FEATURE_LENGTHS"
  if name not in _ANSWERING:
    smaller = (
      "BATCH_SIZE, TASK_FEATURE_LENGTHS, or PROMPT_LENGTH (the length of the "
      "method); raise NUM_MICROBATCHES; or set REMAT to 'full'"
    )
  return f"The program does not fit into memory: lower {smaller}. ({device})"


def plain(error: Exception) -> str:
  """Drop the text about gin's own calls that gin adds to a message.

  Args:
    error: any.
  """
  return _OF_GIN.sub("", _CALL.sub("", str(error)))
