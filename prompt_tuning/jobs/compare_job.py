"""What `compare` does, as plain values."""

import dataclasses
import pathlib
from collections.abc import Mapping

from prompt_tuning.data import spec
from prompt_tuning.jobs.settings import Evaluation
from prompt_tuning.jobs.train_job import TrainJob


@dataclasses.dataclass(frozen=True)
class CompareJob:
  """Prompt tuning beside its baselines, on the same model and tasks.

  Attributes:
    model_dir: folder of everything.
    prompts: the prompt tuning: a bank over tasks and seeds.
    models: the model tuning; None leaves it out.
    test: what the final scores are of, and how they are made.
    instructed: task -> the same task with an instruction in words in front, to
      ask the model itself (the paper's prompt design); may be empty.
  """

  model_dir: str
  prompts: TrainJob
  test: Evaluation
  models: TrainJob | None = None
  instructed: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    trained = {run.task for run in self.prompts.runs}
    for task, twin in self.instructed.items():
      if task not in trained:
        raise ValueError(
          f"INSTRUCTED names {task!r}, which is not trained; expected some of "
          f"{', '.join(sorted(trained))}."
        )
      spec.get(twin)
    if not self.prompts.tuners:
      raise ValueError("compare needs a TUNER for its prompts; it is None.")

  def part(self, job: TrainJob, name: str) -> TrainJob:
    """Give one of the trainings its folder."""
    return dataclasses.replace(
      job, model_dir=str(pathlib.Path(self.model_dir) / name)
    )
