"""What `compare` does, as plain values."""

import dataclasses
from collections.abc import Mapping, Sequence

from prompt_tuning.core import files
from prompt_tuning.data import spec
from prompt_tuning.jobs.settings import EvaluationSettings, listed
from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.tuners.method import name_of


@dataclasses.dataclass(frozen=True)
class CompareJob:
  """Tuning methods beside their baselines, on the same model and tasks.

  Attributes:
    model_dir: folder of everything.
    prompts: the tuning of a method, or of several: each a bank over the same
      tasks, and over seeds.
    models: the model tuning; None leaves it out.
    test: what the final scores are of, and how they are made.
    instructed: task -> the same task with an instruction in words in front, to
      ask the model itself (the paper's prompt design); may be empty.
  """

  model_dir: str
  prompts: TrainJob | Sequence[TrainJob]
  test: EvaluationSettings
  models: TrainJob | None = None
  instructed: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    self.test.dataset.insist_on_split()
    tasks = self.trainings[0].experiment.dataset.names
    for job in self.trainings:
      names = job.experiment.dataset.names
      if not job.experiment.tuners:
        raise ValueError("compare needs a TUNER to compare; it is None.")
      if names != tasks:
        raise ValueError(
          "The methods to compare train on different tasks: "
          f"{', '.join(tasks)} and {', '.join(names)}. Give all of them the "
          "same MIXTURE_OR_TASK_NAME."
        )
    titles = [title_of(job) for job in self.trainings]
    twice = {title for title in titles if titles.count(title) > 1}
    if twice:
      raise ValueError(
        f"compare has {', '.join(sorted(twice))} twice; give each method once, "
        "and several settings of one as a bank."
      )
    for task, twin in self.instructed.items():
      if task not in tasks:
        raise ValueError(
          f"INSTRUCTED names {task!r}, which is not trained; expected some of "
          f"{', '.join(sorted(tasks))}."
        )
      spec.get(twin)

  @property
  def trainings(self) -> tuple[TrainJob, ...]:
    """The tuning of every method."""
    jobs: tuple[TrainJob, ...] = listed(self.prompts)
    return jobs

  def folder(self, job: TrainJob) -> str:
    """Name the folder of one of the trainings."""
    if job is self.models:
      return "models"
    alone = len(self.trainings) == 1
    return "prompts" if alone else title_of(job).replace(" ", "_")

  def placed(self, job: TrainJob) -> TrainJob:
    """Give one of the trainings its folder, and let it show what is frozen."""
    folder = str(files.below(self.model_dir, self.folder(job), "A method"))
    output = dataclasses.replace(job.output, model_dir=folder, controls=True)
    return dataclasses.replace(job, output=output)


def title_of(job: TrainJob) -> str:
  """Return what reports call the method of a training."""
  return name_of(type(job.experiment.tuners[0]))
