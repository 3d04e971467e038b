"""`prompt-tuning score`: log-likelihoods of given targets, as JSON lines."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.launch import command, infer
from prompt_tuning.launch.flags import Flags

if TYPE_CHECKING:
  from prompt_tuning.jobs.infer_job import InferJob

ABOUT = "Compute how likely the model gives the targets of a task or a file."


def main(argv: Sequence[str]) -> int:
  """Score as flags and gin files say.

  Args:
    argv: the words after `prompt-tuning score`.

  Returns:
    The process's exit status.
  """
  return command.run("score", argv, ABOUT, _work, configurable="infer")


def _work(job: "InferJob", arguments: Flags) -> None:
  infer.work(dataclasses.replace(job, mode="score"), arguments)


if __name__ == "__main__":
  from prompt_tuning.launch import main as program

  sys.exit(program.main(["score", *sys.argv[1:]]))
