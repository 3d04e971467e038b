"""`prompt-tuning train`: from a gin configuration to prompts that work.

Also `python -m prompt_tuning.launch.train`, with T5X's flags.
"""

import sys
from collections.abc import Callable, Sequence

from jax.sharding import Mesh

from prompt_tuning.launch import command, finish, gin_config, training
from prompt_tuning.launch.assembly import Assembly
from prompt_tuning.launch.backbone import Backbone
from prompt_tuning.launch.flags import Flags
from prompt_tuning.launch.job import TrainJob
from prompt_tuning.train import loop

ABOUT = "Train prompts for a frozen T5, evaluate, keep the best, export."


def main(argv: Sequence[str]) -> int:
  """Train as flags and gin files say.

  Args:
    argv: the words after `prompt-tuning train`.

  Returns:
    The process's exit status.
  """
  return command.run("train", argv, ABOUT, _work)


def _work(job: TrainJob, given: Flags) -> None:
  outcome = train(job, given.tfds_data_dir)
  reason, steps = outcome.result.reason, int(outcome.result.state.step)
  command.say(f"{reason} after {steps:,} steps")
  if reason == "preempted":
    command.say("The same command continues it.")
    return
  command.say(finish.finish(outcome))


def train(
  job: TrainJob,
  data_dir: str | None = None,
  model: Backbone | None = None,
  evaluator: Callable[[Assembly, Mesh | None], loop.Evaluator] | None = None,
) -> finish.Outcome:
  """Train, and keep gin's configuration with the run, see `training.train`."""
  return training.train(
    job,
    data_dir,
    model,
    evaluator,
    configuration=gin_config.texts(),
    say=command.say,
  )


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
