"""The job of `compare`, as plain values."""

import dataclasses
from collections.abc import Mapping, Sequence

from prompt_tuning.core import files
from prompt_tuning.data import spec
from prompt_tuning.data.in_context import InContext
from prompt_tuning.jobs import method_names
from prompt_tuning.jobs.comparison import BASELINES, MODEL, MULTITASK
from prompt_tuning.jobs.settings import EvaluationSettings, listed
from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.tuners.method import name_of


@dataclasses.dataclass(frozen=True)
class CompareJob:
  """Tuning methods beside their baselines, on the same model and tasks.

  Attributes:
    model_dir: folder of all results.
    prompts: the training of one method, or of several; each is a bank over the
      same tasks and over seeds.
    models: the model tuning; None leaves it out.
    multitask: the tuning of one model for all tasks, on a mixture; None leaves
      it out.
    named: task -> its name in the mixture, where texts name the task; tasks
      that are not listed have the same name there.
    test: on which data and how to compute the final scores.
    instructed: task -> the same task with an instruction in front, for the
      frozen model (the paper's prompt design); may be empty.
    contexts: instructions and demonstrations before the inputs of every task,
      for the frozen model; may be empty.
    called: names of the methods in reports, one each; empty for their own.
    controls: whether to score random numbers in place of learned ones, too.
  """

  model_dir: str
  prompts: TrainJob | Sequence[TrainJob]
  test: EvaluationSettings
  models: TrainJob | None = None
  multitask: TrainJob | None = None
  named: Mapping[str, str] = dataclasses.field(default_factory=dict)
  instructed: Mapping[str, str] = dataclasses.field(default_factory=dict)
  contexts: InContext | Sequence[InContext] = ()
  called: Sequence[str] = ()
  controls: bool = True

  def __post_init__(self) -> None:
    self.test.dataset.insist_on_split()
    if self.test.context is not None:
      raise ValueError(
        "`test` has a context, which would stand before the inputs of every "
        "method. Put it into compare.contexts: these ask the model alone."
      )
    self._check_trainings()
    self._check_names()
    tasks = self.trainings[0].experiment.dataset.names
    for job in self.trainings:
      names = job.experiment.dataset.names
      if not job.experiment.tuners:
        raise ValueError("TUNER is None; compare needs a tuning method.")
      if names != tasks:
        raise ValueError(
          "The methods to compare train on different tasks: "
          f"{', '.join(tasks)} and {', '.join(names)}. Give all of them the "
          "same MIXTURE_OR_TASK_NAME."
        )
    experiments = [job.experiment for job in self.trainings]
    for title, experiment in zip(self.titles, experiments, strict=True):
      if experiments.count(experiment) > 1:
        raise ValueError(
          f"compare has {title} twice, with the same settings; give each "
          "method once. For several seeds of one, set SEEDS."
        )
    if self.multitask is not None:
      self._check_multitask(self.multitask)
    drawn = [(c.title, c.drawn_by) for c in listed(self.contexts)]
    for title, seed in drawn:
      if drawn.count((title, seed)) > 1:
        raise ValueError(
          f"compare.contexts has {title} twice, with the same seed; give each "
          "once, or with different seeds."
        )
    for task, twin in self.instructed.items():
      if task not in tasks:
        raise ValueError(
          f"INSTRUCTED names {task!r}, but nothing trains on it; expected "
          f"some of {', '.join(sorted(tasks))}."
        )
      spec.get(twin)

  def _check_trainings(self) -> None:
    """Insist that there are trainings, and that they are trainings."""
    trainings, others = self.trainings, (self.models, self.multitask)
    if not trainings or not all(isinstance(j, TrainJob) for j in trainings):
      raise ValueError(
        f"compare.prompts is {self.prompts!r:.80}; expected @train(), or "
        "several trainings, as in (@train(), @longer/train())."
      )
    for name, job in zip(("models", "multitask"), others, strict=True):
      if job is not None and not isinstance(job, TrainJob):
        raise ValueError(
          f"compare.{name} is {job!r:.80}; expected @{name}/train(), or None."
        )

  def _check_names(self) -> None:
    """Insist that the names of methods differ, from baselines too."""
    names, count = list(self.called), len(self.trainings)
    if not names:
      return
    taken = {*BASELINES, *(c.title for c in listed(self.contexts))}
    free = len({*names} - taken)
    if not free == len(names) == count:
      raise ValueError(
        f"The names of {count} methods are {', '.join(map(repr, names))}; "
        "expected a different name for each, and none of "
        f"{', '.join(sorted(taken))}."
      )

  def _check_multitask(self, job: TrainJob) -> None:
    """Insist that one model trains on all tasks."""
    if job.experiment.tuners or len(job.experiment.dataset.names) != 1:
      raise ValueError(
        "compare.multitask tunes one model on one mixture, without a TUNER; "
        f"its tasks are {', '.join(job.experiment.dataset.names)}."
      )
    known = self.members(job.experiment.dataset.names[0])
    for task in self.trainings[0].experiment.dataset.names:
      missing = set(self.members(self.named.get(task, task))) - set(known)
      if missing:
        raise ValueError(
          f"compare.multitask does not train on {', '.join(sorted(missing))}, "
          "but compare scores it. Put it into MULTITASK_TASKS, or let NAMED "
          f"map {task} to its name there: {', '.join(known)}."
        )

  def members(self, name: str) -> list[str]:
    """List the tasks of a task or mixture that have the split of `test`."""
    split = self.test.dataset.split or spec.task(name).eval_split
    return [task.name for task, _ in spec.get(name).components(split)]

  @property
  def trainings(self) -> tuple[TrainJob, ...]:
    """The training of every method."""
    jobs: tuple[TrainJob, ...] = listed(self.prompts)
    return jobs

  @property
  def titles(self) -> tuple[str, ...]:
    """The name of every training's method in reports.

    If trainings share a method, the names hold the settings that differ.
    """
    if self.called:
      return tuple(self.called)
    methods = [job.experiment.tuners[0] for job in self.trainings]
    kinds = list(map(type, methods))
    titles = list(map(name_of, kinds))
    for kind in {kind for kind in kinds if kinds.count(kind) > 1}:
      members = [i for i, other in enumerate(kinds) if other is kind]
      labels = method_names.labels([methods[i] for i in members])
      for i, label in zip(members, labels, strict=True):
        titles[i] = f"{titles[i]} {label}".rstrip()
    return tuple(titles)

  def title(self, job: TrainJob) -> str:
    """Return the name of a training in reports."""
    if job is self.models:
      return MODEL
    if job is self.multitask:
      return MULTITASK
    return self.titles[self.trainings.index(job)]

  def run_titles(self, job: TrainJob) -> tuple[str, ...]:
    """Return the names of a training's runs in reports.

    Runs that differ only in task or seed have the same name.
    """
    experiment, title = job.experiment, self.title(job)
    return tuple(
      f"{title} {experiment.setting(run)}".rstrip() for run in experiment.runs
    )

  def folder(self, job: TrainJob) -> str:
    """Return the folder of a training."""
    if job is self.models:
      return "models"
    if job is self.multitask:
      return "multitask"
    alone = len(self.trainings) == 1
    return "prompts" if alone else self.title(job).replace(" ", "_")

  def placed(self, job: TrainJob) -> TrainJob:
    """Give a training its folder, and let it check the frozen weights."""
    folder = str(files.below(self.model_dir, self.folder(job), "A method"))
    output = dataclasses.replace(job.output, model_dir=folder, controls=True)
    return dataclasses.replace(job, output=output)
