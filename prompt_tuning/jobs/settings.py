"""Settings that commands share: data, evaluation and devices."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from prompt_tuning.core import axes, bounds
from prompt_tuning.data import planning, spec
from prompt_tuning.data.in_context import InContext
from prompt_tuning.data.token_rows import FEATURES
from prompt_tuning.infer import evaluate
from prompt_tuning.infer.calibrated import Calibration
from prompt_tuning.jobs import task_modules
from prompt_tuning.models.scorers import Scorer, WordsLike
from prompt_tuning.models.t5.decoding import DecodingMethod, Greedy


def insist_on_lengths(name: str, value: Any, optional: bool = False) -> None:
  """Insist on a number of tokens for inputs and for targets.

  Args:
    name: name of the setting.
    value: its value.
    optional: whether a length may be None.

  Raises:
    ValueError: the value is something else.
  """
  if not isinstance(value, Mapping):
    raise ValueError(
      f"{name} is {value!r}; expected a limit of tokens for each of "
      f"{' and '.join(FEATURES)}, such as {{'inputs': 512, 'targets': 8}}."
    )
  if set(value) != set(FEATURES):
    raise ValueError(
      f"{name} names {', '.join(value)}; expected {' and '.join(FEATURES)}."
    )
  for what, length in value.items():
    bounds.insist_whole(f"{name}[{what!r}]", length, 1, optional=optional)


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The data of a training or an evaluation.

  Attributes:
    mixture_or_task_name: a task or mixture, or several (in training, for a
      bank of runs); None if a file is read instead.
    task_feature_lengths: limits of `inputs` and `targets` in tokens, with EOS
      and without virtual tokens; None for no limits.
    batch_size: rows of a batch; in training, rows of each run.
    module: the user's module that declares the task, or several.
    split: split of the task; None for its default evaluation split.
    batching: `fixed`, `longest`, `buckets` or `packed`.
    max_shapes: largest number of lengths with `buckets` in training; a step is
      compiled for each.
    packed_lengths: positions of packed rows, `inputs` and `targets`, with
      virtual tokens; None chooses them from the data.
    use_cached: T5X's switch for tasks that seqio cached. It has no effect,
      because tokenised examples are always cached here.
    vocabulary_file: SentencePiece model; None for the environment's.
    cache_dir: folder of tokenised examples; None for the default folder.
  """

  mixture_or_task_name: str | Sequence[str] | None
  task_feature_lengths: Mapping[str, int | None] | None = None
  batch_size: int = 128
  module: str | Sequence[str] | None = None
  split: str | None = "train"
  batching: str = "buckets"
  max_shapes: int = 8
  packed_lengths: Mapping[str, int] | None = None
  use_cached: bool = False
  vocabulary_file: str | None = None
  cache_dir: str | None = None

  def __post_init__(self) -> None:
    task_modules.ensure(listed(self.module or ()))
    for name in self.names:
      spec.get(name)
    if self.task_feature_lengths is not None:
      insist_on_lengths(
        "TASK_FEATURE_LENGTHS", self.task_feature_lengths, optional=True
      )
    if self.packed_lengths is not None:
      insist_on_lengths("PACKED_LENGTHS", self.packed_lengths)
    bounds.insist_whole("BATCH_SIZE", self.batch_size, 1)
    bounds.insist_whole("MAX_SHAPES", self.max_shapes, 1)
    if self.split == "":
      raise ValueError(
        "TRAIN_SPLIT, EVAL_SPLIT and INFER_SPLIT are names of splits, or None "
        "for the task's evaluation split; got ''."
      )
    if self.batching not in planning.BATCHINGS:
      raise ValueError(
        f"BATCHING {self.batching!r}: expected one of "
        f"{', '.join(planning.BATCHINGS)}."
      )

  @property
  def names(self) -> tuple[str, ...]:
    """The tasks or mixtures."""
    name = self.mixture_or_task_name
    return () if name is None else listed(name)

  @property
  def lacking(self) -> list[str]:
    """The tasks and mixtures that do not have the split."""
    split = self.split
    return [
      n for n in self.names if split and not spec.get(n).components(split)
    ]

  def insist_on_split(self) -> None:
    """Insist that every task has the split.

    Raises:
      ValueError: one has not.
    """
    for name in self.lacking:
      raise ValueError(
        f"{name!r} has no split {self.split!r}; change TRAIN_SPLIT, EVAL_SPLIT "
        "or INFER_SPLIT."
      )

  @property
  def packed_size(self) -> tuple[int, int] | None:
    """Encoder and decoder positions of packed rows, if they are given."""
    lengths = self.packed_lengths
    return (lengths["inputs"], lengths["targets"]) if lengths else None

  @property
  def lengths(self) -> Mapping[str, int | None]:
    """The limits, with None for no limit."""
    return self.task_feature_lengths or dict.fromkeys(FEATURES)


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
  """How to score a run in training, and by `eval`.

  Attributes:
    dataset: the data.
    by: `generation` decodes, `rank` picks the most likely label word. If there
      are several, all are computed, and the first one selects the best step.
      None for generation.
    decoder: how to decode.
    max_decode_length: positions to decode; None for the longest target.
    num_examples: number of first examples of each task; None for all.
    scorer: how ranking scores classes. None scores label words as whole
      targets; this also applies to runs that lack what the scorer reads.
    label_words: the words to score; None for the task's own label words.
    context: instruction and demonstrations before every input; None for
      neither.
    calibration: calibration of the scores of words; None for none.
  """

  dataset: Dataset
  by: str | Sequence[str] | None = None
  decoder: DecodingMethod = dataclasses.field(default_factory=Greedy)
  max_decode_length: int | None = None
  num_examples: int | None = None
  scorer: Scorer | None = None
  label_words: WordsLike = None
  context: InContext | None = None
  calibration: Calibration | None = None

  def __post_init__(self) -> None:
    if self.calibration is not None and self.scorer is None:
      raise ValueError(
        "CALIBRATION corrects the scores of label words, but no scorer is "
        "set: give objectives/classes.gin, or set "
        "evaluation.Evaluation.scorer."
      )
    if self.calibration is not None and self.context is not None:
      raise ValueError(
        "CALIBRATION cannot be used with demonstrations or an instruction. Set "
        "one of the two to None."
      )
    for name, value in (
      ("MAX_DECODE_LENGTH", self.max_decode_length),
      ("EVALUATOR_NUM_EXAMPLES", self.num_examples),
    ):
      bounds.insist_whole(name, value, 1, optional=True)
    if not self.ways:
      raise ValueError(
        "EVALUATE_BY is empty; expected at least one of 'generation' and "
        "'rank'."
      )
    for way in self.ways:
      if way not in evaluate.PREDICTION:
        raise ValueError(
          f"EVALUATE_BY {way!r}: expected "
          f"{' or '.join(map(repr, evaluate.PREDICTION))}."
        )

  @property
  def ways(self) -> tuple[str, ...]:
    """The ways to evaluate."""
    return listed(evaluate.GENERATION if self.by is None else self.by)


@dataclasses.dataclass(frozen=True)
class MeshShape:
  """How devices are arranged.

  Attributes:
    data: data-parallel devices; None for all that `model` leaves.
    model: model-parallel devices.
    rules: logical axis -> mesh axis.
    slices: number of groups of devices, connected by a slower network, that
      divide the rows. None for what TPUs report, or one if they report nothing.
  """

  data: int | None = None
  model: int = 1
  rules: axes.AxisRules = axes.STANDARD_RULES
  slices: int | None = None

  def __post_init__(self) -> None:
    if type(self.model) is not int or self.model < 1:
      raise ValueError(
        f"MODEL_PARALLEL is {self.model!r}; expected how many devices share "
        "the model, at least 1."
      )
    bounds.insist_whole("meshes.Mesh.data", self.data, 1, optional=True)
    bounds.insist_whole("NUM_SLICES", self.slices, 1, optional=True)

  def build(self) -> Mesh | None:
    """Make the mesh; None if there is only one device.

    Raises:
      ValueError: the devices of the job do not make up this mesh.
    """
    data = self.data
    if data is None:
      data = max(jax.device_count() // self.model, 1)
    is_alone = data == self.model == (self.slices or 1) == 1
    if is_alone and jax.process_count() == 1:
      return None
    return axes.make_mesh(data, self.model, self.slices)


def listed(value: Any) -> tuple[Any, ...]:
  """Turn one value or several into a tuple; a text is one value."""
  is_several = isinstance(value, Iterable) and not isinstance(value, str)
  return tuple(value) if is_several else (value,)
