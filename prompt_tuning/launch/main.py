"""`prompt-tuning COMMAND ...`: find the command's module and run it."""

import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence

from prompt_tuning.core import tree

# Command -> (module with `main(argv) -> int`, what it does). Only the command's
# own module is imported: `inspect` should not import what `train` needs.
COMMANDS: dict[str, tuple[str, str]] = {
  "pretrain": ("pretrain", "pre-train a T5: span corruption, LM adaptation"),
  "vocabulary": ("vocabulary", "train a SentencePiece vocabulary on text"),
  "train": ("train", "train a tuning method, evaluate, keep the best"),
  "sweep": ("sweep", "run many trainings side by side: axes of settings"),
  "plan": ("plan", "say what a training needs on TPUs you do not have"),
  "launch": ("launch", "start a command on a pod or a cluster"),
  "compare": ("compare", "train methods and score them beside baselines"),
  "eval": ("eval", "score prompts on tasks; several prompts also vote"),
  "infer": ("infer", "answer the examples of a task or a text file"),
  "score": ("score", "compute log-likelihoods of given targets"),
  "submit": ("submit", "write leaderboard files of SuperGLUE and GLUE"),
  "export": ("export", "write what was learned as a folder to share"),
  "convert": ("convert", "write a checkpoint or a prompt in another format"),
  "inspect": ("inspect", "show a checkpoint's tree, dtypes, counts and step"),
  "similar": ("similar", "compare prompts: show which ones are alike"),
  "recycle": ("recycle", "move a prompt to another model"),
  "report": ("report", "show a run, comparison or sweep as one HTML page"),
  "diff": ("diff", "compare two checkpoints leaf by leaf"),
  "data": ("data", "prepare, list and show tasks"),
}


def usage() -> str:
  """Describe every command in one line."""
  width = max(map(len, COMMANDS))
  lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
  return "\n".join(["usage: prompt-tuning COMMAND [--help] ...", "", *lines])


def main(argv: Sequence[str] | None = None) -> int:
  """Run one command.

  Args:
    argv: the words after `prompt-tuning`; `sys.argv[1:]` by default.

  Returns:
    The process's exit status. As in a shell, 130 means Ctrl-C, and 141 that the
    reader of the output closed it.
  """
  try:
    try:
      return _run(list(sys.argv[1:] if argv is None else argv))
    finally:  # here, where a closed output is noticed
      sys.stdout.flush()
  except KeyboardInterrupt:
    print("Interrupted.", file=sys.stderr)
    return 128 + signal.SIGINT
  except BrokenPipeError:
    if not _reader_left():
      raise
    # Python flushes once more at exit, and would print an error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _run(args: Sequence[str]) -> int:
  if not args or args[0] in ("-h", "--help"):
    print(usage())
    return 0 if args else 2
  name, *rest = args
  if name not in COMMANDS:
    print(
      f"Unknown command {name!r}.{tree.nearest(name, COMMANDS)}\n\n{usage()}",
      file=sys.stderr,
    )
    return 2
  module = importlib.import_module(f"prompt_tuning.launch.{COMMANDS[name][0]}")
  status: int = module.main(rest)
  return status


def _reader_left() -> bool:
  """Say whether the reader of standard output is gone, as after `| head`."""
  poll = select.poll()
  poll.register(sys.stdout.fileno(), 0)
  return any(event & select.POLLERR for _, event in poll.poll(0))


if __name__ == "__main__":
  sys.exit(main())
