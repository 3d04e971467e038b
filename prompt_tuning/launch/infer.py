"""`prompt-tuning infer`: answers to a task or a text file, as JSON lines.

A killed job continues where it stopped.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.launch import command
from prompt_tuning.launch.flags import Flags

if TYPE_CHECKING:
  from prompt_tuning.jobs.infer_job import InferJob

ABOUT = "Answer the examples of a task, or of a text file, with prompts."


def main(argv: Sequence[str]) -> int:
  """Infer as flags and gin files say.

  Args:
    argv: the words after `prompt-tuning infer`.

  Returns:
    The process's exit status.
  """
  return command.run("infer", argv, ABOUT, work)


def work(job: "InferJob", arguments: Flags) -> None:
  """Do this process's part of a job, and print where the answers are."""
  from prompt_tuning.jobs import infer

  shard_id = arguments.shard_id or 0
  for path in infer.infer(job, arguments.tfds_data_dir, shard_id):
    print(path)


if __name__ == "__main__":
  from prompt_tuning.launch import main as program

  sys.exit(program.main(["infer", *sys.argv[1:]]))
