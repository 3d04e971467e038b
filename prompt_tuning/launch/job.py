"""What a training command does, as plain values that gin, or code, builds.

A job is checked as far as it can be before anything large is read.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax.sharding import Mesh

from prompt_tuning.core import axes, partition
from prompt_tuning.data import cache, planning, spec
from prompt_tuning.infer import evaluate
from prompt_tuning.launch import task_modules
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.models.t5.decoding import Greedy, Method
from prompt_tuning.train.objectives import CrossEntropy, Objective
from prompt_tuning.train.optimizers import Adafactor, OptimizerFactory
from prompt_tuning.train.schedules import FactorSchedule, Schedule

# Called with those fields of the model that it has too; see `build_tuner`.
TunerFactory = Callable[..., nn.Module]


@dataclasses.dataclass(frozen=True)
class Dataset:
  """What to train or evaluate on.

  Attributes:
    mixture_or_task_name: a task or mixture; in training also several, for a
      bank of runs.
    task_feature_lengths: limits of `inputs` and `targets` in tokens, EOS
      included, virtual tokens not; None for no limits.
    batch_size: rows of a batch; in training, of each run.
    module: the user's own module, or several, that declares the task.
    split: of the task; None for what it is evaluated on by default.
    batching: `fixed`, `longest`, `buckets` or `packed`.
    max_shapes: most different lengths with `buckets`.
    use_cached: T5X's switch for tasks that seqio cached; without effect, since
      tokenised examples are always cached here.
    vocabulary_file: SentencePiece model; None for that of the environment.
    cache_dir: where tokenised examples are; None for the usual place.
  """

  mixture_or_task_name: str | Sequence[str]
  task_feature_lengths: Mapping[str, int | None] | None = None
  batch_size: int = 128
  module: str | Sequence[str] | None = None
  split: str | None = "train"
  batching: str = "buckets"
  max_shapes: int = 4
  use_cached: bool = False
  vocabulary_file: str | None = None
  cache_dir: str | None = None

  def __post_init__(self) -> None:
    task_modules.ensure(_listed(self.module or ()))
    for name in self.names:
      if self.split and not spec.get(name).components(self.split):
        raise ValueError(
          f"{name!r} has no split {self.split!r}; change TRAIN_SPLIT or "
          "EVAL_SPLIT."
        )
    if self.batch_size < 1:
      raise ValueError(f"BATCH_SIZE must be positive; got {self.batch_size}.")
    if self.batching not in planning.BATCHINGS:
      raise ValueError(
        f"BATCHING {self.batching!r}: expected one of "
        f"{', '.join(planning.BATCHINGS)}."
      )

  @property
  def names(self) -> tuple[str, ...]:
    """The tasks or mixtures."""
    return _listed(self.mixture_or_task_name)

  @property
  def lengths(self) -> Mapping[str, int | None]:
    """The limits, None where there is none."""
    return self.task_feature_lengths or dict.fromkeys(cache.FEATURES)


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """How a run is scored while it trains, and by `eval`.

  Attributes:
    dataset: what on.
    by: `generation` decodes, `rank` picks the likeliest label word; several
      are all done, and the first one selects.
    decoder: how to decode.
    max_decode_length: positions to decode; None for the longest target.
    num_examples: only the first so many of each task; None for all.
  """

  dataset: Dataset
  by: str | Sequence[str] = evaluate.GENERATION
  decoder: Method = dataclasses.field(default_factory=Greedy)
  max_decode_length: int | None = None
  num_examples: int | None = None

  def __post_init__(self) -> None:
    for way in self.ways:
      if way not in evaluate.PREDICTION:
        raise ValueError(
          f"EVALUATE_BY {way!r}: expected "
          f"{' or '.join(map(repr, evaluate.PREDICTION))}."
        )

  @property
  def ways(self) -> tuple[str, ...]:
    """The ways to evaluate."""
    return _listed(self.by)


@dataclasses.dataclass(frozen=True)
class MeshShape:
  """How devices are arranged.

  Attributes:
    data: data-parallel ways; None for all that `model` leaves.
    model: model-parallel ways.
    rules: logical axis -> mesh axis.
  """

  data: int | None = None
  model: int = 1
  rules: axes.AxisRules = axes.STANDARD_RULES

  def build(self) -> Mesh | None:
    """Make the mesh; None where one device does everything.

    Raises:
      ValueError: the devices of the job do not make up this mesh.
    """
    data = self.data
    if data is None:
      data = max(jax.device_count() // self.model, 1)
    if data == self.model == 1 and jax.process_count() == 1:
      return None
    return axes.make_mesh(data, self.model)


class Run(NamedTuple):
  """One of the runs that train side by side.

  Attributes:
    name: tells it from the others; empty where there is only one.
    seed: of its initial values, its order of examples, and its dropout.
    learning_rate: its base learning rate.
    task: its task or mixture.
    tuner: makes its tuning method; None tunes the model itself.
    group: shared with the runs that differ in their seeds only; None where
      there is one seed.
  """

  name: str
  seed: int
  learning_rate: float
  task: str
  tuner: TunerFactory | None
  group: str | None = None


@dataclasses.dataclass(frozen=True)
class TrainJob:
  """Everything that `train` needs to know.

  The runs are all combinations of seeds, learning rates, tasks and tuners.
  They train side by side in one program, each as it would alone.

  Attributes:
    model_dir: folder of the run.
    model: the backbone.
    initial_checkpoint_path: its weights.
    dataset: what to train on.
    tuner: makes the tuning method, or several; None for model tuning.
    rules: what trains, see `core.partition`.
    total_steps: the step to stop at, counted as T5X does: the steps of the
      checkpoint included.
    relative_steps: steps to train, the checkpoint's not counted; wins over
      `total_steps`.
    restored_step: the step that the optimizer goes on from; None for the
      checkpoint's.
    optimizer: builds each run's optimizer.
    schedule: (step, base rate) -> rate.
    objective: what is minimised.
    learning_rates: base rates.
    seeds: seeds.
    num_microbatches: pieces of a batch whose gradients are added up.
    mesh: arrangement of the devices.
    restore_dtype: of the frozen weights.
    evaluation: how runs are scored; None for not at all.
    eval_period: steps between evaluations.
    eval_steps: batches of the evaluation split on which the training loss is
      computed too; 0 for none.
    checkpoint_period: steps between bundles.
    keep_checkpoints: bundles kept besides the best.
    log_period: steps between lines of the log.
    patience: evaluations without improvement after which training stops.
    controls: at the end, also score the model without a prompt and with a
      random one, and hash the frozen weights to show that they are unchanged.
    json_write_n_results: predictions written at the end; None for all.
    progress_bar: whether to draw one.
    tensorboard: whether to write event files.
  """

  model_dir: str
  model: T5Config
  initial_checkpoint_path: str
  dataset: Dataset
  tuner: TunerFactory | Sequence[TunerFactory] | None = None
  rules: Sequence[partition.RuleLike] = partition.TUNER_ONLY
  total_steps: int | None = None
  relative_steps: int | None = None
  restored_step: int | None = None
  optimizer: OptimizerFactory = dataclasses.field(default_factory=Adafactor)
  schedule: Schedule = dataclasses.field(default_factory=FactorSchedule)
  objective: Objective = dataclasses.field(default_factory=CrossEntropy)
  learning_rates: Sequence[float] = (0.3,)
  seeds: Sequence[int] = (0,)
  num_microbatches: int = 1
  mesh: MeshShape = MeshShape()
  restore_dtype: str = "float32"
  evaluation: Evaluation | None = None
  eval_period: int = 1_000
  eval_steps: int = 20
  checkpoint_period: int = 1_000
  keep_checkpoints: int = 2
  log_period: int = 100
  patience: int | None = None
  controls: bool = False
  json_write_n_results: int | None = None
  progress_bar: bool = True
  tensorboard: bool = True

  def __post_init__(self) -> None:
    if self.total_steps is None and self.relative_steps is None:
      raise ValueError("Set TRAIN_STEPS, or TRAIN_STEPS_RELATIVE.")
    for seed in _listed(self.seeds):
      if not isinstance(seed, int):
        raise ValueError(
          f"Seeds are integers; got {seed!r}. A run must be repeatable, also "
          "when it resumes: set RANDOM_SEED to a number."
        )
    build_tuners(self.tuner, self.model)

  @property
  def runs(self) -> tuple[Run, ...]:
    """All combinations, those of the first task first."""
    choices = {
      "task": self.dataset.names,
      "tuner": _listed(self.tuner) or (None,),
      "learning_rate": _listed(self.learning_rates),
      "seed": _listed(self.seeds),
    }
    runs = []
    for values in itertools.product(*choices.values()):
      chosen = dict(zip(choices, values, strict=True))
      labels = {
        what: _label(what, value, choices[what])
        for what, value in chosen.items()
        if len(choices[what]) > 1
      }
      name, group = "_".join(labels.values()), None
      if "seed" in labels:
        del labels["seed"]
        group = "_".join(labels.values())
      runs.append(Run(name=name, group=group, **chosen))
    return tuple(runs)

  def num_steps(self, restored_step: int) -> int:
    """Count the updates to do after a checkpoint.

    Args:
      restored_step: the step that the run goes on from.

    Returns:
      Updates in all, those that a resumed run has done included.

    Raises:
      ValueError: the end lies before the start.
    """
    if self.relative_steps is not None:
      steps = self.relative_steps
    else:
      steps = (self.total_steps or 0) - restored_step
    if steps < 1:
      raise ValueError(
        f"TRAIN_STEPS = {self.total_steps} leaves {steps} steps: as in T5X it "
        f"counts the {restored_step:,} steps of the checkpoint. Set it to "
        f"{restored_step:,} plus the steps to train, or set "
        "TRAIN_STEPS_RELATIVE."
      )
    return steps


def build_tuners(
  tuner: TunerFactory | Sequence[TunerFactory] | None, model: T5Config
) -> tuple[nn.Module, ...]:
  """Build the tuning methods for a model; see `build_tuner`."""
  return tuple(build_tuner(factory, model) for factory in _listed(tuner or ()))


def build_tuner(factory: TunerFactory, model: T5Config) -> nn.Module:
  """Build a tuning method for a model.

  Args:
    factory: a class of `tuners`, or a partial of one.
    model: gives the fields that have the same name, such as `emb_dim`.

  Returns:
    The method.

  Raises:
    ValueError: it is built already, or it is no tuning method.
  """
  kind = getattr(factory, "func", factory)
  if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
    raise ValueError(
      "TUNER must be a tuning method without parentheses, such as "
      f"@tuners.Prompt; got {factory!r}."
    )
  names = {field.name for field in dataclasses.fields(kind)}
  shared = {
    field.name: getattr(model, field.name)
    for field in dataclasses.fields(model)
    if field.name in names
  }
  return factory(**shared)


def _label(what: str, value: Any, values: Sequence[Any]) -> str:
  """Name one of several choices within the name of a run."""
  if what == "tuner":
    return f"tuner{values.index(value)}"
  return {"seed": "seed", "learning_rate": "lr", "task": ""}[what] + str(value)


def _listed(value: Any) -> tuple[Any, ...]:
  """See one value as several."""
  is_several = isinstance(value, Iterable) and not isinstance(value, str)
  return tuple(value) if is_several else (value,)
