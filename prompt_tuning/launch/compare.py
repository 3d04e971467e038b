"""`prompt-tuning compare`: a prompt beside no prompt, words, and model tuning.

Prompts and models train as `train` trains them. The final scores are on a split
that neither training saw.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.launch import command
from prompt_tuning.launch.flags import Flags

if TYPE_CHECKING:
  from prompt_tuning.jobs.compare_job import CompareJob

ABOUT = "Compare methods with the model alone, an instruction, model tuning."


def main(argv: Sequence[str]) -> int:
  """Compare as flags and gin files say.

  Args:
    argv: the words after `prompt-tuning compare`.

  Returns:
    The process's exit status.
  """
  return command.run("compare", argv, ABOUT, _work, look=_look)


def _look(job: "CompareJob") -> Sequence[str]:
  from prompt_tuning.jobs import abstract_setup

  for training in job.trainings:
    abstract_setup.check_methods(training.experiment, training.source)
  return ()


def _work(job: "CompareJob", arguments: Flags) -> None:
  from prompt_tuning.jobs import compare, comparison_report
  from prompt_tuning.launch import gin_config

  result = compare.compare(
    job,
    arguments.tfds_data_dir,
    configuration=gin_config.texts(),
    say=command.say,
  )
  command.say(f"\n{comparison_report.table(result)}\n\n{compare.places(job)}")
