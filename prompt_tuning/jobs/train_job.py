"""The job of training commands, as plain values.

As much as possible of a job is checked before anything large is read.
"""

import collections
import dataclasses
import functools
import inspect
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from prompt_tuning.core import bounds, files, partition, tree
from prompt_tuning.data import spec
from prompt_tuning.jobs import classes, method_names, recipes
from prompt_tuning.jobs.settings import (
  Dataset,
  EvaluationSettings,
  MeshShape,
  listed,
)
from prompt_tuning.models.t5 import quantized
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.train.objectives import Choice
from prompt_tuning.train.optimizers import OptimizerFactory
from prompt_tuning.train.schedules import FactorSchedule, Schedule
from prompt_tuning.tuners.method import (
  FLAX_FIELDS,
  Method,
  check_settings,
  name_of,
)

_VALIDATION = "validation"
_NO_SETTING = {"set by": "jobs"}  # metadata of fields that no user sets

logger = logging.getLogger(__name__)

# A method; or a class, or a partial of one, that is called with values of the
# model. See `build_tuner`.
TunerFactory = Method | Callable[..., Method]


class Run(NamedTuple):
  """One of the runs that train side by side.

  Attributes:
    name: its name among the runs; empty for a single run.
    seed: seed of its initial values, its order of examples, and its dropout.
    learning_rate: its base learning rate.
    task: its task or mixture.
    tuner: makes its tuning method; None tunes the model itself.
    group: name that runs share if they differ only in their seeds; None for a
      single seed.
  """

  name: str
  seed: int
  learning_rate: float
  task: str
  tuner: TunerFactory | None
  group: str | None = None


@dataclasses.dataclass(frozen=True)
class TrainingStage:
  """A training before the others of the same runs, on the same data.

  Attributes:
    name: name of its folder, below `stages` in that of the run.
    steps: updates.
    rules: decide which parameters of the method train in it, see
      `core.partition`.
    optimizer: builds each run's optimizer; None for the experiment's.
    schedule: (step, base) -> learning rate; None for the experiment's.
    learning_rate: base learning rate of all runs; None for the experiment's.
    objective: gives the loss to minimise; None for the experiment's.
  """

  name: str
  steps: int
  rules: Sequence[partition.RuleLike]
  optimizer: OptimizerFactory | None = None
  schedule: Schedule | None = None
  learning_rate: float | None = None
  objective: Choice | None = None

  def __post_init__(self) -> None:
    files.check_name(self.name, "The name of a stage")
    if type(self.steps) is not int or self.steps < 1:
      raise ValueError(
        f"Stage {self.name} has {self.steps!r} steps; expected at least one."
      )


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The model, data and method of a training: all that decides its numbers.

  The runs are all combinations of seeds, learning rates, tasks and tuners.
  They train side by side in one program, with the same results as alone.

  Attributes:
    model: the backbone.
    dataset: the training data.
    tuner: makes the tuning method, or several; None for model tuning.
    rules: decide what trains, see `core.partition`.
    optimizer: builds each run's optimizer; None for that of the method's
      recipe.
    schedule: (step, base) -> learning rate.
    objective: gives the loss to minimise; None for that of the method's recipe.
    learning_rates: base learning rates, with None for that of the recipe.
    seeds: seeds.
    num_microbatches: number of pieces of a batch whose gradients are added.
    start_from: MODEL_DIR or bundle of one run; the method's parameters start
      with its values, as far as it has them. None for initial values.
    stages: trainings before this one, in order; None for those of the recipe.
    after: folder of the stage before, which `jobs.stages` sets.
  """

  model: T5Config
  dataset: Dataset
  tuner: TunerFactory | Sequence[TunerFactory] | None = None
  rules: Sequence[partition.RuleLike] = partition.TUNER_ONLY
  optimizer: OptimizerFactory | None = None
  schedule: Schedule = dataclasses.field(default_factory=FactorSchedule)
  objective: Choice | None = None
  learning_rates: Sequence[float | None] = (None,)
  seeds: Sequence[int] = (0,)
  num_microbatches: int = 1
  start_from: str | None = None
  stages: Sequence[TrainingStage] | None = None
  after: str | None = dataclasses.field(default=None, metadata=_NO_SETTING)

  def __post_init__(self) -> None:
    self.dataset.insist_on_split()
    bounds.insist_whole("NUM_MICROBATCHES", self.num_microbatches, 1)
    for name, values in (
      ("SEEDS", self.seeds),
      ("LEARNING_RATES", self.learning_rates),
    ):
      if not listed(values):
        raise ValueError(
          f"{name} is {values!r}, so nothing would train; expected at least "
          "one."
        )
    for rate in listed(self.learning_rates):
      if rate is not None:
        bounds.insist_positive("LEARNING_RATE", rate)
    for seed in listed(self.seeds):
      if not isinstance(seed, int):
        raise ValueError(
          f"The seed is {seed!r}; expected a whole number, so that a run can "
          "be repeated and resumed. Set RANDOM_SEED."
        )
    # Errors in building show here.
    for factory in listed(self.tuner):
      if factory is not None:
        build_tuner(factory, self.model, self.dataset.names[0])
    _ = self.run_optimizer, self.run_objective
    stages = collections.Counter(stage.name for stage in self.run_stages)
    if twice := [name for name, count in stages.items() if count > 1]:
      raise ValueError(
        f"Several stages are called {', '.join(twice)}; give each a different "
        "name."
      )
    names = collections.Counter(run.name for run in self.runs)
    for name in filter(None, names):  # they become folders
      files.check_name(name, "The name of a run")
    twice = [name for name, count in names.items() if count > 1]
    if twice:
      raise ValueError(
        f"Several runs are called {', '.join(twice)}: SEEDS, LEARNING_RATES, "
        "MIXTURE_OR_TASK_NAME or TUNER name the same one twice."
      )

  @property
  def runs(self) -> tuple[Run, ...]:
    """All combinations, those of the first task first."""
    choices = {
      "task": self.dataset.names,
      "tuner": listed(self.tuner) or (None,),
      "learning_rate": listed(self.learning_rates),
      "seed": listed(self.seeds),
    }
    runs = []
    for values in itertools.product(*choices.values()):
      settings = dict(zip(choices, values, strict=True))
      settings["learning_rate"] = recipes.learning_rate(
        settings["learning_rate"], method_class(settings["tuner"])
      )
      labels = {
        what: self._label(what, value)
        for what, value in settings.items()
        if len(choices[what]) > 1
      }
      name, group = "_".join(labels.values()), None
      if "seed" in labels:
        del labels["seed"]
        group = "_".join(labels.values())
      runs.append(Run(name=name, group=group, **settings))
    return tuple(runs)

  def setting(self, run: Run) -> str:
    """Name how a run differs from others of its task and seed; may be empty."""
    choices = {"tuner": self.tuner, "learning_rate": self.learning_rates}
    return "_".join(
      self._label(what, getattr(run, what))
      for what, values in choices.items()
      if len(listed(values)) > 1
    )

  def _label(self, what: str, value: Any) -> str:
    """Write one of several choices for the name of a run."""
    if what == "tuner":
      return self._tuner_labels[listed(self.tuner).index(value)]
    return {"seed": "seed", "learning_rate": "lr", "task": ""}[what] + str(
      value
    )

  @functools.cached_property
  def _tuner_labels(self) -> list[str]:
    """Name every tuner by its differences."""
    return method_names.labels(
      [
        build_tuner(factory, self.model, self.dataset.names[0])
        for factory in listed(self.tuner)
      ]
    )

  @property
  def tuners(self) -> tuple[Method, ...]:
    """The tuning method of every run; none for model tuning."""
    return tuple(
      build_tuner(run.tuner, self.model, run.task)
      for run in self.runs
      if run.tuner is not None
    )

  @property
  def run_optimizer(self) -> OptimizerFactory:
    """The optimizer of every run: the given one, or the recipe's."""
    return self.optimizer or recipes.shared_optimizer(self.tuners)

  @property
  def run_objective(self) -> Choice:
    """The objective of every run: the given one, or the recipe's."""
    return self.objective or recipes.objective(self.tuners)

  @property
  def run_stages(self) -> tuple[TrainingStage, ...]:
    """The stages: the given ones, or the recipe's."""
    if self.stages is not None:
      return tuple(self.stages)
    return tuple(
      TrainingStage(
        stage.name,
        stage.steps,
        stage.rules,
        recipes.optimizer(stage.recipe),
        learning_rate=stage.recipe.learning_rate,
      )
      for stage in recipes.stages(self.tuners)
    )

  @property
  def notes(self) -> list[str]:
    """One line per method with the values from its recipe."""
    lines = {}
    for method in self.tuners:
      recipe, title = method.recipe, name_of(type(method))
      settings = [f"{n}={value!r}" for n, value in recipe.settings.items()]
      choices = []
      if self.optimizer is None:
        arguments = ", ".join(settings)
        choices.append(f"OPTIMIZER = {recipe.optimizer}({arguments})")
        choices += [
          f"{own.optimizer} at {own.learning_rate} for {path}"
          for path, own in recipe.by_path.items()
        ]
        if recipe.max_norm is not None:
          choices.append(f"gradients of a norm of {recipe.max_norm} at most")
      if None in listed(self.learning_rates):
        choices.append(f"LEARNING_RATE = {recipe.learning_rate}")
      if choices:
        lines[title] = f"By the recipe of {title}: {', '.join(choices)}."
    return list(lines.values())


@dataclasses.dataclass(frozen=True)
class ModelSource:
  """The source of the model's weights, and their layout in memory.

  Attributes:
    initial_checkpoint_path: the checkpoint; None if a model is passed in.
    restore_dtype: dtype of the frozen weights; `int8` and `int4` quantise
      kernels and embeddings, see `models.t5.quantized`.
    mesh: arrangement of the devices.
  """

  initial_checkpoint_path: str | None
  restore_dtype: str = "float32"
  mesh: MeshShape = dataclasses.field(default_factory=MeshShape)

  def __post_init__(self) -> None:
    quantized.scheme(self.restore_dtype)


@dataclasses.dataclass(frozen=True)
class Duration:
  """How long to train.

  Attributes:
    total_steps: the step at which to stop, as T5X counts: with the steps of the
      checkpoint.
    relative_steps: steps to train, without those of the checkpoint; overrides
      `total_steps`.
    restored_step: the step from which the optimizer continues; None for the
      checkpoint's.
  """

  total_steps: int | None = None
  relative_steps: int | None = None
  restored_step: int | None = None

  def __post_init__(self) -> None:
    if self.total_steps is None and self.relative_steps is None:
      raise ValueError("Set TRAIN_STEPS, or TRAIN_STEPS_RELATIVE.")
    for name, value, least in (
      ("TRAIN_STEPS", self.total_steps, 1),
      ("TRAIN_STEPS_RELATIVE", self.relative_steps, 1),
      ("RESTORED_STEP", self.restored_step, 0),
    ):
      bounds.insist_whole(name, value, least, optional=True)

  def num_steps(self, restored_step: int) -> int:
    """Count the updates to do after a checkpoint.

    Args:
      restored_step: the step from which the run continues.

    Returns:
      Number of all updates, also those before a resume.

    Raises:
      ValueError: there are no updates to do.
    """
    if self.relative_steps is not None:
      return self.relative_steps
    steps = (self.total_steps or 0) - restored_step
    if steps < 1:
      raise ValueError(
        f"TRAIN_STEPS = {self.total_steps} leaves {steps} steps. As in T5X, "
        f"it counts the {restored_step:,} steps of the checkpoint. Set it to "
        f"{restored_step:,} plus the steps to train, or set "
        "TRAIN_STEPS_RELATIVE."
      )
    return steps


@dataclasses.dataclass(frozen=True)
class EvaluationPlan:
  """When and how to score runs in training.

  Attributes:
    evaluation: how to evaluate; None for no evaluation, also if a task has no
      validation split.
    eval_period: steps between evaluations.
    eval_at_start: whether to evaluate before the first step, too.
    eval_steps: batches of the evaluation split for the training loss; 0 for
      none.
    patience: evaluations without improvement after which training stops.
  """

  evaluation: EvaluationSettings | None = None
  eval_period: int = 1_000
  eval_at_start: bool = False
  eval_steps: int = 20
  patience: int | None = None

  def __post_init__(self) -> None:
    bounds.insist_whole("EVAL_PERIOD", self.eval_period, 0)
    bounds.insist_whole("EVAL_STEPS", self.eval_steps, 0)
    bounds.insist_whole("PATIENCE", self.patience, 1, optional=True)
    if self.evaluation is None:
      return
    dataset = self.evaluation.dataset
    if dataset.split != _VALIDATION:  # chosen by somebody
      dataset.insist_on_split()
    elif dataset.lacking:
      logger.warning(
        "%s has no validation split. So there are no scores, and the last "
        "step is kept instead of the best. To change that, give validation "
        "rows, such as files={'validation': ...}.",
        ", ".join(dataset.lacking),
      )
      object.__setattr__(self, "evaluation", None)


@dataclasses.dataclass(frozen=True)
class Output:
  """What to write, where, and how often.

  Attributes:
    model_dir: folder of the run.
    checkpoint_period: steps between bundles.
    keep_checkpoints: bundles kept besides the best.
    keep_best: whether the best ones are kept.
    log_period: steps between lines of the log.
    controls: at the end, also score the frozen model alone and with random
      numbers, and hash the frozen weights to show that they are unchanged.
    json_write_n_results: predictions written at the end; None for all.
    progress_bar: whether to draw one.
    tensorboard: whether to write event files.
  """

  model_dir: str
  checkpoint_period: int = 1_000
  keep_checkpoints: int = 2
  keep_best: bool = True
  log_period: int = 100
  controls: bool = False
  json_write_n_results: int | None = None
  progress_bar: bool = True
  tensorboard: bool = True

  def __post_init__(self) -> None:
    if not isinstance(self.model_dir, str) or not self.model_dir:
      raise ValueError(f"MODEL_DIR is {self.model_dir!r}; expected a path.")
    bounds.insist_whole("CHECKPOINT_PERIOD", self.checkpoint_period, 0)
    bounds.insist_whole("KEEP_CHECKPOINTS", self.keep_checkpoints, 1)
    bounds.insist_whole("LOG_PERIOD", self.log_period, 1)
    results = self.json_write_n_results
    bounds.insist_whole("JSON_WRITE_N_RESULTS", results, 0, optional=True)


@dataclasses.dataclass(frozen=True)
class TrainJob:
  """The settings of `train`; functions take the part that they read.

  Attributes:
    experiment: everything that decides the numbers.
    source: the source of the model.
    duration: how long to train.
    evaluations: when and how to score the runs.
    output: what to write.
  """

  experiment: Experiment
  source: ModelSource
  duration: Duration
  evaluations: EvaluationPlan
  output: Output

  def __post_init__(self) -> None:
    evaluations, settings = self.evaluations, self.evaluations.evaluation
    if settings is None or self.experiment.objective is not None:
      return
    chosen = recipes.evaluation(settings, self.experiment.tuners)
    evaluations = dataclasses.replace(evaluations, evaluation=chosen)
    object.__setattr__(self, "evaluations", evaluations)


# Part of a job -> its class. Setting, by gin's name -> the part that has it.
_PARTS: dict[str, Any] = {
  part.name: part.type for part in dataclasses.fields(TrainJob)
}
_PART_OF = {
  setting.name: (part, setting)
  for part, kind in _PARTS.items()
  for setting in dataclasses.fields(kind)
  if setting.metadata != _NO_SETTING
}


def from_settings(**settings: Any) -> TrainJob:
  """Build a job from all its settings side by side, as gin files name them.

  Args:
    **settings: fields of the parts of `TrainJob`.

  Returns:
    The job.

  Raises:
    TypeError: a setting is unknown, or one without a default is missing.
    ValueError: the job cannot be done.
  """
  _SIGNATURE.bind(**settings)
  values: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
  for name, value in settings.items():
    values[_PART_OF[name][0]][name] = value
  return TrainJob(**{p: kind(**values[p]) for p, kind in _PARTS.items()})


def _parameter(setting: dataclasses.Field[Any]) -> inspect.Parameter:
  """Describe a setting as a keyword argument."""
  default = setting.default
  if setting.default_factory is not dataclasses.MISSING:
    default = setting.default_factory
  if default is dataclasses.MISSING:
    default = inspect.Parameter.empty
  return inspect.Parameter(
    setting.name, inspect.Parameter.KEYWORD_ONLY, default=default
  )


# Gin reads the names of the settings from it.
_SIGNATURE = inspect.Signature(
  [_parameter(setting) for _, setting in _PART_OF.values()]
)
from_settings.__signature__ = _SIGNATURE  # type: ignore[attr-defined]


def build_tuner(
  factory: TunerFactory, model: T5Config, task: str | None = None
) -> Method:
  """Build a tuning method for a model.

  Args:
    factory: a method, a class of `tuners`, or a partial of one.
    model: gives the fields that the class lists in `from_model`.
    task: task or mixture that it trains on, which gives those of `from_data`.

  Returns:
    The method.

  Raises:
    ValueError: it is not a tuning method, it needs a value that the model does
      not have, or it has a setting that a bundle cannot hold or with which it
      must not train (`Method.check_to_train`).
  """
  kind = method_class(factory)
  if kind is None:
    raise ValueError(
      "TUNER must be a tuning method without parentheses, such as "
      f"@tuners.Prompt; got {factory!r}."
    )
  _check_from_model(kind, model)
  fields = {name: getattr(model, name) for name in kind.from_model}
  from_data = _from_data(kind, task)
  if "tasks" in from_data:
    fields["tasks"] = from_data["tasks"]
  if isinstance(factory, Method):
    method = factory.clone(**fields)
  else:
    method = factory(**fields)
  words = from_data.get("label_words")
  if words and not method.label_words:
    method = method.clone(label_words=words)
  if "words" in from_data and task is not None:
    method = method.clone(words=classes.words_of(task, method.words).words)
  check_settings(method)
  method.check_to_train()
  return method


def _check_from_model(kind: type[Method], model: T5Config) -> None:
  """Insist that model and method have the fields that `from_model` names."""
  fields = {field.name for field in dataclasses.fields(kind)}
  sizes = [*(field.name for field in dataclasses.fields(model)), "shape"]
  for name in kind.from_model:
    if name not in sizes:
      raise ValueError(
        f"{name_of(kind)}.from_model names {name!r}, but a T5Config has no "
        f"such field.{tree.nearest(name, sizes)}"
      )
    if name not in fields:
      raise ValueError(
        f"{name_of(kind)}.from_model names {name!r}, but the class has no "
        "such field; expected some of "
        f"{', '.join(sorted(fields - {*FLAX_FIELDS}))}."
      )


def _from_data(
  kind: type[Method], task: str | None
) -> dict[str, tuple[str, ...]]:
  """Give a method the values that its `from_data` names."""
  if unknown := set(kind.from_data) - {*_FROM_DATA}:
    raise ValueError(
      f"{name_of(kind)}.from_data has {', '.join(sorted(unknown))}; expected "
      f"some of {', '.join(_FROM_DATA)}."
    )
  if not kind.from_data:
    return {}
  if task is None:
    raise ValueError(
      f"{name_of(kind)} needs the tasks of a mixture; got none. Set "
      "MIXTURE_OR_TASK_NAME."
    )
  tasks = [one for one, _ in spec.get(task).components("train")]
  return {name: _FROM_DATA[name](tasks) for name in kind.from_data}


def _names(tasks: Sequence[spec.TaskSpec]) -> tuple[str, ...]:
  return tuple(task.name for task in tasks)


def _label_words(tasks: Sequence[spec.TaskSpec]) -> tuple[str, ...]:
  """List the words of all tasks; none if the tasks differ."""
  lists = {task.label_words for task in tasks}
  return lists.pop() if len(lists) == 1 else ()


# Values that a run's data can give to a method; `words` depend on the method's
# own field.
_FROM_DATA: dict[str, Callable[[Sequence[spec.TaskSpec]], tuple[str, ...]]] = {
  "tasks": _names,
  "label_words": _label_words,
  "words": lambda tasks: (),
}


def method_class(factory: TunerFactory | None) -> type[Method] | None:
  """Return the class that a factory builds; None if it is not a method."""
  if isinstance(factory, Method):
    return type(factory)
  kind: Any = getattr(factory, "func", factory)
  is_method = isinstance(kind, type) and issubclass(kind, Method)
  return kind if is_method else None
