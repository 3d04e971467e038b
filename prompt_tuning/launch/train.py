"""`prompt-tuning train`: train prompts as a gin configuration says.

Also `python -m prompt_tuning.launch.train`, with T5X's flags.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.launch import command
from prompt_tuning.launch.flags import Flags

if TYPE_CHECKING:
  from prompt_tuning.jobs.train_job import TrainJob

ABOUT = "Train prompts for a frozen T5, evaluate, keep the best, export."


def main(argv: Sequence[str]) -> int:
  """Train as flags and gin files say.

  Args:
    argv: the words after `prompt-tuning train`.

  Returns:
    The process's exit status.
  """
  return command.run("train", argv, ABOUT, _work, look=_look)


def _look(job: "TrainJob") -> Sequence[str]:
  from prompt_tuning.jobs import abstract_setup

  abstract_setup.check_methods(job.experiment, job.source)
  return job.experiment.notes


def _work(job: "TrainJob", arguments: Flags) -> None:
  from prompt_tuning.jobs import conclusion, model_dir, train
  from prompt_tuning.launch import gin_config

  # Only one training writes to the folder, from its start to its last file.
  with model_dir.held(job.output.model_dir):
    outcome = train.train(
      job,
      arguments.tfds_data_dir,
      configuration=gin_config.texts(),
      say=command.say,
    )
    outcome.insist_on_an_end()
    command.say(outcome.ending)
    command.say(f"\n{conclusion.finish(outcome)}")


if __name__ == "__main__":
  from prompt_tuning.launch import main as program

  sys.exit(program.main(["train", *sys.argv[1:]]))
