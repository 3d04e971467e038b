"""Specs of tasks and mixtures, and their registry, without TensorFlow.

A spec names the source of the rows, the features that evaluation needs, and the
functions from predictions to metrics. The seqio task of the same name
(`prompt_tuning.data.tasks`) makes the texts; it is needed only if the cache is
missing. Importing `prompt_tuning.data` adds the published tasks
(`prompt_tuning.data.catalog`).
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from prompt_tuning.core import tree

# (decoded text, example=..., is_target=...) -> what the metrics compare; the
# calling convention of seqio's `postprocess_fn`.
Postprocess = Callable[..., Any]
# (targets, predictions), both postprocessed -> metrics by name.
Metric = Callable[[Sequence[Any], Sequence[Any]], Mapping[str, float]]

# Sources that are not TFDS names: a user's files, a generator, or the source of
# a task of seqio's.
FILE, GENERATED, SEQIO = "file", "generated", "seqio"
# In place of evaluation features: all features of an example.
EVERYTHING = "*"

INPUTS = "inputs_pretokenized"
TARGETS = "targets_pretokenized"
# Target text of a row without a label, as in the published test splits.
UNLABELLED = "<unk>"

# How names of k-shot tasks end, as an example.
KSHOT_ENDING = "_k16_seed0"
_KSHOT_NAME = re.compile(r"(?P<base>.+)_k(?P<shots>[1-9]\d*)_seed(?P<seed>\d+)")


def keep_text(text: str, **unused: Any) -> str:
  """Return decoded text unchanged: the default postprocessor."""
  del unused
  return text


@dataclasses.dataclass(frozen=True)
class KShot:
  """A per-class subset of the training split, see `prompt_tuning.data.kshot`.

  Attributes:
    base: name of the task whose rows it uses.
    shots: rows per class (k).
    seed: seed of the draw.
  """

  base: str
  shots: int
  seed: int

  @classmethod
  def from_name(cls, name: str) -> "KShot | None":
    """Read `<task>_k<shots>_seed<seed>`; None if the name has another form."""
    match = _KSHOT_NAME.fullmatch(name)
    if not match:
      return None
    return cls(match["base"], int(match["shots"]), int(match["seed"]))


@dataclasses.dataclass(frozen=True)
class TaskSpec:
  """One task.

  Attributes:
    name: name of the spec and of the seqio task.
    benchmark: the catalogue of the task, such as `super_glue`, or `custom`.
    dataset: its name within the benchmark, such as `boolq`; the same for every
      variant (`taskless_`, `_examples`, k-shot) of a task.
    module: the module that registers the seqio task when imported.
    source: TFDS name and version, such as `super_glue/boolq:1.0.2`, or `file`,
      or `generated`.
    splits: split name -> split or slice of the TFDS source, or file.
    label_words: target words in TFDS order, or empty for free text.
    postprocess: text -> value, in seqio's calling convention.
    metrics: functions of postprocessed targets and predictions.
    by_ranks: whether ranking also gives the mean reciprocal rank of targets.
    eval_features: features of an example, next to `inputs_pretokenized` and
      `targets_pretokenized`, that evaluation or a submission file needs. Values
      are integers, strings, or lists of strings.
    candidates: the evaluation feature with the candidate texts of a row, for
      ranking; empty for `label_words`.
    ranked: always evaluate by ranking, for any settings, by the `sum` or `mean`
      of a candidate's log-likelihoods.
    log_examples: also log sample texts when evaluating (`_examples` names).
    preprocessor_version: increased whenever the text form changes.
    content: everything else that changes the examples (template, hashes of
      files), as JSON values.
    scarce_classes: whether a k-shot subset has all rows of a class that has
      fewer than k; otherwise such a class is an error.
    kshot: set when the training split is a k-shot subset.
    places: setting read from a file -> its `FILE:LINE`, or that of every class;
      only for errors.
  """

  name: str
  benchmark: str
  dataset: str
  module: str
  source: str
  splits: Mapping[str, str]
  label_words: tuple[str, ...] = ()
  postprocess: Postprocess = keep_text
  metrics: tuple[Metric, ...] = ()
  by_ranks: bool = False
  eval_features: tuple[str, ...] = ()
  candidates: str = ""
  ranked: Literal["sum", "mean"] | None = None
  log_examples: bool = False
  preprocessor_version: int = 1
  content: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  scarce_classes: bool = False
  kshot: KShot | None = None
  places: Mapping[str, tuple[str, ...]] = dataclasses.field(
    default_factory=dict, compare=False
  )

  def components(self, split: str) -> tuple[tuple["TaskSpec", float], ...]:
    """Return only this task if it has the split (as for a mixture)."""
    return ((self, 1.0),) if split in self.splits else ()

  def rate_of(self, rate: float, num_examples: int) -> float:
    """Return the rate, see `MixtureSpec.rate_of`."""
    del num_examples
    return rate

  @property
  def is_from_tfds(self) -> bool:
    """Whether the rows are TFDS's; otherwise `content` describes them."""
    return self.source not in (FILE, GENERATED, SEQIO)

  @property
  def eval_split(self) -> str:
    """The split that `evaluate` reads by default: validation, else test."""
    return "validation" if "validation" in self.splits else "test"

  def identity(self) -> dict[str, Any]:
    """Describe everything that decides the examples, for a cache key.

    Returns:
      A JSON-representable dictionary, the same for `_examples` names: logging
      does not change the examples.
    """
    return {
      "name": self.name.replace("_examples", ""),
      "source": self.source,
      # The path of a file does not matter; `content` has its hash.
      "splits": (
        dict(self.splits) if self.is_from_tfds else sorted(self.splits)
      ),
      "eval_features": list(self.eval_features),
      "preprocessor_version": self.preprocessor_version,
      "content": dict(self.content),
      "kshot": dataclasses.asdict(self.kshot) if self.kshot else None,
    }

  def evaluate(
    self, predictions: Sequence[str], examples: Sequence[Mapping[str, Any]]
  ) -> dict[str, float]:
    """Compute every metric of the task.

    Args:
      predictions: decoded model outputs, one per example.
      examples: the examples in the same order, with `targets_pretokenized` and
        `eval_features`.

    Returns:
      Metrics by name, in percent.

    Raises:
      ValueError: no examples, not one prediction per example, or an example
        without a gold label (the published test splits have none).
    """
    insist_on_examples(self.name, predictions, examples)
    targets = [
      self._target(row, example) for row, example in enumerate(examples)
    ]
    for row, target in enumerate(targets):
      if _lacks_label(target):
        raise ValueError(
          f"{self.name}: example {row} has no gold label; evaluate a split "
          "that has (validation), or write a submission file."
        )
    outputs = [
      self.postprocess(text, example=example, is_target=False)
      for text, example in zip(predictions, examples, strict=True)
    ]
    result: dict[str, float] = {}
    for metric in self.metrics:
      result.update(metric(targets, outputs))
    return result

  def _target(self, row: int, example: Mapping[str, Any]) -> Any:
    """Postprocess an example's target."""
    try:
      return self.postprocess(example[TARGETS], example=example, is_target=True)
    except KeyError as error:
      raise ValueError(
        f"{self.name}: example {row} has no field {error}, but the metrics "
        f"need it; the fields are: {', '.join(example)}."
      ) from error


def insist_on_examples(
  name: str, predictions: Sequence[str], examples: Sequence[Any]
) -> None:
  """Check that there is one prediction for every example, and at least one.

  Raises:
    ValueError: the numbers differ or are 0; the message names the task `name`.
  """
  if len(predictions) != len(examples):
    raise ValueError(
      f"{name}: {len(predictions)} predictions for {len(examples)} examples; "
      "expected one for each."
    )
  if not examples:
    raise ValueError(f"{name}: nothing to evaluate: no examples.")


def _lacks_label(target: Any) -> bool:
  """Whether a target has no label: class id -1, no answers, or `<unk>`.

  A score of -1.0 is a label.
  """
  value = target["value"] if isinstance(target, Mapping) else target
  if isinstance(value, float):
    return math.isnan(value)
  return value in (-1, [], UNLABELLED)


@dataclasses.dataclass(frozen=True)
class MixtureSpec:
  """Several tasks; each split uses the tasks that have this split.

  As in seqio, training samples the tasks that have a training split by rate;
  evaluation runs every task that has the split, whatever its rate. So a
  training set and the evaluation sets of other tasks can form one name.

  Attributes:
    name: name of the spec and of the seqio mixture.
    rates: task name -> sampling rate (relative; 0: evaluation only).
    module: the module that registers the seqio mixture when imported.
    temperature: T; rates are times n^(1 / T) of a task's n examples, see
      `rate_of`. None if numbers of examples do not matter.
    limit: maximum of n; None for no maximum.
  """

  name: str
  rates: Mapping[str, float]
  module: str
  temperature: float | None = None
  limit: int | None = None

  def components(self, split: str) -> tuple[tuple[TaskSpec, float], ...]:
    """Return the tasks of one split with their rates.

    Args:
      split: `train` drops tasks with rate 0, which are only evaluated.

    Returns:
      (task, rate) pairs in the mixture's order; empty if no task has the split.
    """
    members = [(task(name), rate) for name, rate in self.rates.items()]
    return tuple(
      (member, rate)
      for member, rate in members
      if split in member.splits and (rate > 0 or split != "train")
    )

  def rate_of(self, rate: float, num_examples: int) -> float:
    """Return a task's rate for its number of examples.

    Args:
      rate: the rate in the mixture.
      num_examples: number of examples, n.
    """
    if self.temperature is None:
      return rate
    counted = min(num_examples, self.limit or num_examples)
    return rate * float(counted) ** (1 / self.temperature)

  def identity(self) -> dict[str, Any]:
    """Describe what decides the examples, see `TaskSpec.identity`."""
    described: dict[str, Any] = {"name": self.name, "rates": dict(self.rates)}
    if self.temperature is not None:
      described |= {"temperature": self.temperature, "limit": self.limit}
    return described


_specs: dict[str, TaskSpec | MixtureSpec] = {}
# Called for names without a spec; each returns whether it added the spec.
_adopters: list[Callable[[str], bool]] = []


def on_unknown(adopt: Callable[[str], bool]) -> None:
  """Register a function that may add the spec of an unknown name.

  Args:
    adopt: name -> whether it was added.
  """
  _adopters.append(adopt)


def add(spec: TaskSpec | MixtureSpec) -> None:
  """Register a spec.

  Raises:
    ValueError: the name is taken by another spec.
  """
  other = _specs.get(spec.name)
  if other and other.identity() != spec.identity():
    raise ValueError(
      f"A different task or mixture named {spec.name!r} is registered already; "
      "choose another name."
    )
  _specs[spec.name] = spec


def names() -> list[str]:
  """Return the sorted names of all registered tasks and mixtures."""
  return sorted(_specs)


def get(name: str) -> TaskSpec | MixtureSpec:
  """Return the spec of a task or mixture.

  Args:
    name: a registered name, or a task's name followed by `_k16_seed0` for its
      16-shot subset of seed 0.

  Returns:
    The spec.

  Raises:
    ValueError: an unknown name; the message names the nearest known one.
  """
  if name in _specs:
    return _specs[name]
  subset = KShot.from_name(name)
  asked = subset.base if subset else name
  if asked not in _specs and any(adopt(asked) for adopt in _adopters):
    return get(name)
  if subset is None or subset.base not in _specs:
    unknown = subset.base if subset else name
    raise ValueError(
      f"Unknown task or mixture {unknown!r}.{tree.nearest(unknown, _specs)} "
      "`prompt-tuning data list` prints all names; a task of your own is "
      "declared with `prompt_tuning.data.custom`."
    )
  return _shots_of(task(subset.base), subset)


def task(name: str) -> TaskSpec:
  """Return the spec of a single task.

  Raises:
    ValueError: an unknown name, or the name of a mixture.
  """
  task_or_mixture = get(name)
  if not isinstance(task_or_mixture, TaskSpec):
    raise ValueError(
      f"{name!r} is a mixture of {', '.join(task_or_mixture.rates)}; a single "
      "task is needed here."
    )
  return task_or_mixture


def _shots_of(base: TaskSpec, subset: KShot) -> TaskSpec:
  """Return the spec of a k-shot task: only its training split is smaller."""
  if "train" not in base.splits:
    raise ValueError(
      f"{base.name!r} has no training split, but {subset.shots} shots come "
      f"from it; the splits are: {', '.join(base.splits)}."
    )
  return dataclasses.replace(
    base,
    name=f"{base.name}_k{subset.shots}_seed{subset.seed}",
    kshot=subset,
  )
