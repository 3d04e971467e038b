"""The job of `pretrain`, as plain values."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from prompt_tuning.core import files, partition
from prompt_tuning.data import cache, corpus
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.data.token_rows import FEATURES
from prompt_tuning.jobs.settings import (
  Dataset,
  MeshShape,
  insist_on_lengths,
)
from prompt_tuning.jobs.train_job import (
  Duration,
  EvaluationPlan,
  Experiment,
  ModelSource,
  Output,
  TrainJob,
)
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.train.objectives import CrossEntropy, Objective
from prompt_tuning.train.optimizers import Optax, OptimizerFactory
from prompt_tuning.train.schedules import FactorSchedule, Schedule


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of pre-training; each has a fresh optimizer.

  Attributes:
    name: name of its folder below MODEL_DIR.
    denoising: turns texts into examples.
    steps: updates.
    batch_size: packed rows of a batch.
    packed_lengths: positions of a row, `inputs` and `targets`.
    learning_rate: base learning rate.
    optimizer: builds the optimizer.
    schedule: (step, base) -> learning rate; steps count from the stage's start.
  """

  name: str
  denoising: corpus.Denoising
  steps: int
  batch_size: int
  packed_lengths: Mapping[str, int]
  learning_rate: float
  optimizer: OptimizerFactory = dataclasses.field(
    default_factory=lambda: Optax("adamw")
  )
  schedule: Schedule = dataclasses.field(default_factory=FactorSchedule)

  def __post_init__(self) -> None:
    files.check_name(self.name, "A stage of STAGES")
    if self.steps < 1:
      raise ValueError(
        f"{self.name}: {self.steps} steps; expected at least one. Leave the "
        "stage out of STAGES to skip it."
      )
    insist_on_lengths("PACKED_LENGTHS", self.packed_lengths)
    room = tuple(self.packed_lengths[feature] for feature in FEATURES)
    chunk, longest = self.denoising.chunk_length, self.denoising.longest
    if longest[0] > room[0] or longest[1] > room[1]:
      raise ValueError(
        f"{self.name}: texts of CHUNK_LENGTH {chunk} make examples of up to "
        f"{longest[0]} inputs and {longest[1]} targets, but packed rows have "
        f"{room[0]} and {room[1]} positions. Raise PACKED_LENGTHS, or lower "
        "CHUNK_LENGTH."
      )


@dataclasses.dataclass(frozen=True)
class PretrainJob:
  """The settings of `pretrain`.

  Attributes:
    model_dir: folder of the run; each stage has a folder in it.
    model: shape of the model.
    corpora: the texts.
    stages: stages in order; each continues with the model of the one before.
    vocabulary_file: SentencePiece model; None for the environment's.
    initial_checkpoint_path: initial weights; None draws random ones.
    seed: seed of the weights and of the order of examples.
    relpos_scale: multiplies the relative position biases of random weights. T5
      draws them so small that in a few thousand steps a model hardly learns the
      positions of words.
    objective: gives the loss to minimise.
    eval_period: steps between losses on held-out text.
    eval_steps: batches of each held-out corpus.
    checkpoint_period: steps between bundles.
    keep_checkpoints: bundles kept.
    log_period: steps between lines of the log.
    num_microbatches: pieces of a batch whose gradients are added up.
    mesh: arrangement of the devices.
    save_dtype: of the exported weights.
    cache_dir: where tokenised examples are; None for the usual place.
    num_continuations: held-out texts that each stage's model continues, to see
      how many continuations have a sentinel.
    progress_bar: whether to draw one.
    tensorboard: whether to write event files.
  """

  model_dir: str
  model: T5Config
  corpora: Sequence[corpus.Corpus]
  stages: Sequence[Stage]
  vocabulary_file: str | None = None
  initial_checkpoint_path: str | None = None
  seed: int = 0
  relpos_scale: float = 1.0
  objective: Objective = dataclasses.field(
    default_factory=lambda: CrossEntropy(
      loss_normalizing_factor="NUM_REAL_TARGET_TOKENS"
    )
  )
  eval_period: int = 500
  eval_steps: int = 20
  checkpoint_period: int = 500
  keep_checkpoints: int = 1
  log_period: int = 50
  num_microbatches: int = 1
  mesh: MeshShape = dataclasses.field(default_factory=MeshShape)
  save_dtype: str = "float32"
  cache_dir: str | None = None
  num_continuations: int = 128
  progress_bar: bool = True
  tensorboard: bool = True

  def __post_init__(self) -> None:
    names = [stage.name for stage in self.stages]
    if not names or len(set(names)) < len(names):
      raise ValueError(
        f"STAGES are {', '.join(names) or 'none'}; expected at least one, each "
        "with a name of its own."
      )
    vocabulary = vocabularies.load(self.vocabulary_file)
    vocabulary.check_fits(self.model.vocab_size)

  @property
  def texts(self) -> tuple[corpus.Text, ...]:
    """The corpora that are running text and have held-out documents."""
    return tuple(
      source
      for source in self.corpora
      if isinstance(source, corpus.Text) and corpus.VALIDATION in source.splits
    )

  def folder(self, stage: Stage) -> pathlib.Path:
    """Return the folder of a stage."""
    return files.below(self.model_dir, stage.name, "A stage of STAGES")

  def steps_after(self, stage: Stage) -> int:
    """Count the steps of the model that a stage ends with."""
    names = [other.name for other in self.stages]
    done = self.stages[: names.index(stage.name) + 1]
    return sum(other.steps for other in done)

  def train_job(self, stage: Stage) -> TrainJob:
    """Describe a stage as a training of the whole model.

    Args:
      stage: one of the job's.

    Returns:
      The job; its model must be passed in.

    Raises:
      FileNotFoundError: a corpus is missing.
    """
    mixture = corpus.declare_mixture(self.corpora, stage.denoising)
    return TrainJob(
      Experiment(
        self.model,
        self.dataset(stage, mixture.name),
        rules=partition.EVERYTHING,
        optimizer=stage.optimizer,
        schedule=stage.schedule,
        objective=self.objective,
        learning_rates=(stage.learning_rate,),
        seeds=(self.seed,),
        num_microbatches=self.num_microbatches,
      ),
      ModelSource(None, mesh=self.mesh),
      Duration(relative_steps=stage.steps, restored_step=0),
      EvaluationPlan(eval_period=self.eval_period, eval_at_start=True),
      Output(
        str(self.folder(stage)),
        checkpoint_period=self.checkpoint_period,
        keep_checkpoints=self.keep_checkpoints,
        keep_best=False,
        log_period=self.log_period,
        progress_bar=self.progress_bar,
        tensorboard=self.tensorboard,
      ),
    )

  def dataset(self, stage: Stage, name: str, split: str = "train") -> Dataset:
    """Describe how a stage reads a task or mixture."""
    return Dataset(
      name,
      batch_size=stage.batch_size,
      split=split,
      batching="packed",
      packed_lengths=stage.packed_lengths,
      vocabulary_file=self.vocabulary_file,
      cache_dir=self.cache_dir,
    )


def check_fills_a_batch(
  stage: Stage, tokens: Sequence[tuple[cache.TokenCache, float]]
) -> None:
  """Refuse a corpus that is too small to fill a batch without repetition.

  Args:
    stage: gives the size of a batch.
    tokens: the examples, with their rates.

  Raises:
    ValueError: there are too few.
  """
  for feature in FEATURES:
    room = stage.batch_size * stage.packed_lengths[feature]
    count = sum(
      int(np.sum(getattr(store, feature).lengths)) for store, _ in tokens
    )
    if count >= room:
      return
  raise ValueError(
    f"{stage.name}: the corpora are shorter than a batch of "
    f"{stage.batch_size} rows of {dict(stage.packed_lengths)} positions; lower "
    "BATCH_SIZE or PACKED_LENGTHS, or give more text."
  )
