"""`prompt-tuning eval`: score prompts on tasks, alone and as an ensemble."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.launch import command
from prompt_tuning.launch.flags import Flags

if TYPE_CHECKING:
  from prompt_tuning.jobs.eval_job import EvalJob

ABOUT = "Score prompts on tasks with their metrics; several prompts also vote."


def main(argv: Sequence[str]) -> int:
  """Evaluate as flags and gin files say.

  Args:
    argv: the words after `prompt-tuning eval`.

  Returns:
    The process's exit status.
  """
  return command.run("eval", argv, ABOUT, _work)


def _work(job: "EvalJob", arguments: Flags) -> None:
  from prompt_tuning.jobs import evaluate

  command.say(evaluate.evaluate(job, arguments.tfds_data_dir))


if __name__ == "__main__":
  from prompt_tuning.launch import main as program

  sys.exit(program.main(["eval", *sys.argv[1:]]))
