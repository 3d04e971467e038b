"""`prompt-tuning pretrain`: pre-train a T5 on text, to tune prompts for.

Every stage trains the whole model, with the step, loop and bundles of `train`.
So a killed run continues, with the same bits.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.launch import command
from prompt_tuning.launch.flags import Flags

if TYPE_CHECKING:
  from prompt_tuning.jobs.pretrain_job import PretrainJob

ABOUT = "Pre-train a T5: span corruption, then adaptation to continue text."


def main(argv: Sequence[str]) -> int:
  """Pre-train as flags and gin files say.

  Args:
    argv: the words after `prompt-tuning pretrain`.

  Returns:
    The process's exit status.
  """
  return command.run("pretrain", argv, ABOUT, _work)


def _work(job: "PretrainJob", arguments: Flags) -> None:
  from prompt_tuning.jobs import pretrain, pretrain_report
  from prompt_tuning.launch import gin_config

  del arguments
  done = pretrain.pretrain(
    job, configuration=gin_config.texts(), say=command.say
  )
  command.say(pretrain_report.table(done))
