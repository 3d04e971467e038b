"""Tasks and mixtures that a user's own module registered with seqio.

Imports seqio, which such a module has imported already. Preprocessors run with
their lengths; postprocessors and metric functions run as in seqio. A feature of
seqio that is not supported raises an error that names it.
"""

import dataclasses
import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.core import files
from prompt_tuning.data import spec
from prompt_tuning.data.tasks import registration, registry
from prompt_tuning.data.token_rows import FEATURES

# Splits that a TFDS source may have before it has been prepared.
_USUAL_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class _Postprocess:
  """Calls a task's own postprocessor with examples in seqio's form.

  Attributes:
    task: the task that has the postprocessor.
  """

  task: seqio.Task

  def __call__(
    self, text: str, example: Mapping[str, Any], is_target: bool = False
  ) -> Any:
    row = {name: _as_numpy(value) for name, value in example.items()}
    return self.task.postprocess_fn(text, example=row, is_target=is_target)


@dataclasses.dataclass(frozen=True)
class AdoptedTask(spec.TaskSpec):
  """A task of seqio's registry: seqio makes its examples from its rows."""

  def evaluate(
    self, predictions: Sequence[str], examples: Sequence[Mapping[str, Any]]
  ) -> dict[str, float]:
    """Compute the task's metrics as seqio does, see `TaskSpec.evaluate`."""
    spec.insist_on_examples(self.name, predictions, examples)
    targets = [
      self.postprocess(str(row[spec.TARGETS]), example=row, is_target=True)
      for row in examples
    ]
    answers = [
      self.postprocess(text, example=row, is_target=False)
      for text, row in zip(predictions, examples, strict=True)
    ]
    result: dict[str, float] = {}
    for metric in self.metrics:
      result.update(_numbers(metric(targets, answers)))
    return result


def adopt(name: str) -> bool:
  """Register a task or mixture of seqio's, and the tasks of a mixture.

  Args:
    name: a name that `spec` does not know.

  Returns:
    Whether seqio has it.

  Raises:
    ValueError: it uses a feature that is not supported.
  """
  if name in seqio.TaskRegistry.names():
    task = seqio.TaskRegistry.get(name)
    if task.output_features is registration.FEATURES:
      return False  # one of ours, that seqio was told of
    spec.add(_task(task))
  elif name in seqio.MixtureRegistry.names():
    mixture = seqio.MixtureRegistry.get(name)
    for task in mixture.tasks:
      if task.name not in spec.names():
        adopt(task.name)
    rates = {task.name: _rate(mixture, task) for task in mixture.tasks}
    spec.add(spec.MixtureSpec(name, rates, __name__))
  else:
    return False
  return True


def dataset(
  task: spec.TaskSpec, split: str, lengths: Mapping[str, int | None]
) -> tf.data.Dataset:
  """Make the examples of a split with seqio, in the order of the source.

  Random preprocessors draw with seed 0.

  Args:
    task: an adopted task.
    split: name of the split.
    lengths: limits in tokens; seqio trims to them, and preprocessors may use
      them.
  """
  limits = {name: limit for name, limit in lengths.items() if limit is not None}
  made = registry.get(task.name).get_dataset(
    sequence_length=limits or None,
    split=split,
    shuffle=False,
    use_cached=False,
    seed=0,
  )
  for name, feature in made.element_spec.items():
    if name not in FEATURES and feature.shape.rank not in (0, 1):
      raise ValueError(
        f"{task.name}: the feature {name} has rank {feature.shape.rank}; "
        "expected scalars and lists, because examples are stored as JSON. "
        "Remove the feature with a preprocessor."
      )
  return made.map(lambda row: {**_texts(task, row), **row})


def fingerprint(task: spec.TaskSpec, split: str) -> str:
  """Hash the rows of a source outside TFDS.

  Args:
    task: an adopted task.
    split: name of the split.

  Returns:
    The hash of its files; if it has no files, the hash of all rows.
  """
  source = registry.get(task.name).source
  digest = hashlib.sha256()
  if isinstance(source, seqio.FileDataSource):
    for path in source.list_shards(split):
      digest.update(files.file_sha256(path).encode())
    return digest.hexdigest()
  for row in source.get_dataset(split, shuffle=False).as_numpy_iterator():
    for key in sorted(row):
      values = np.asarray(row[key])
      shown = values.tolist() if values.dtype == object else values.tobytes()
      digest.update(repr((key, values.shape, shown)).encode())
  return digest.hexdigest()


def _task(task: seqio.Task) -> AdoptedTask:
  """Describe a task."""
  _check_features(task)
  _check_metrics(task)
  source, splits = _source(task)
  return AdoptedTask(
    name=task.name,
    benchmark="seqio",
    dataset=task.name,
    module=__name__,
    source=source,
    splits=splits,
    postprocess=_Postprocess(task),
    metrics=tuple(task.predict_metric_fns),
    eval_features=(spec.EVERYTHING,),
    content={"code": _code(task), "seqio": seqio.__version__},
  )


def _source(task: seqio.Task) -> tuple[str, dict[str, str]]:
  """Return the source's name, and split -> split of the source."""
  source = task.source
  if not isinstance(source, seqio.TfdsDataSource):
    return spec.SEQIO, {split: split for split in task.splits}
  loader = source.tfds_dataset
  if loader.name is None:
    raise ValueError(
      f"{task.name}: the TFDS source has splits of several data sets; "
      "expected one data set. Make a task of each, and mix them."
    )
  known = source._splits or loader.info.splits or _USUAL_SPLITS
  return loader.name, {s: str(loader._map_split(s)) for s in known}


def _check_features(task: seqio.Task) -> None:
  """Check that the features are `inputs` and `targets`, and no others."""
  features = task.output_features
  if set(features) != set(FEATURES):
    raise ValueError(
      f"{task.name}: the seqio task has the output features "
      f"{', '.join(features) or 'none'}; expected {' and '.join(FEATURES)}. "
      "Rename its features with a preprocessor (seqio.preprocessors.rekey), "
      "and list these two as output_features."
    )
  for name, feature in features.items():
    if feature.rank != 1 or feature.dtype != tf.int32:
      raise ValueError(
        f"{task.name}: the feature {name} is {feature.dtype.name} of rank "
        f"{feature.rank}; expected token ids, int32 of rank 1."
      )


def _check_metrics(task: seqio.Task) -> None:
  """Refuse metrics that need more than predictions."""
  others = {
    "scores": task.score_metric_fns,
    "aux_values": task.predict_with_aux_metric_fns,
    "metric objects": task._metric_objs_constructor_args,
  }
  for what, found in others.items():
    if found:
      raise ValueError(
        f"{task.name}: a metric reads {what}; expected metric functions of "
        "targets and predictions. Give such functions to the task as "
        "metric_fns."
      )


def check_vocabulary(task: spec.TaskSpec) -> None:
  """Check that a task is tokenised with the model's vocabulary.

  Args:
    task: an adopted task.

  Raises:
    ValueError: it has another vocabulary.
  """
  features = registry.get(task.name).output_features
  for name, feature in features.items():
    if feature.vocabulary != registration.VOCABULARY:
      raise ValueError(
        f"{task.name}: the feature {name} has another vocabulary "
        f"({feature.vocabulary}) than VOCABULARY_FILE; give the task the "
        "model's, or set VOCABULARY_FILE to its file."
      )


def _rate(mixture: seqio.Mixture, task: seqio.Task) -> float:
  try:
    return float(mixture.get_rate(task))
  except Exception as error:  # a function of the user's, or of cached counts
    raise ValueError(
      f"{mixture.name}: the rate of {task.name} cannot be computed: {error}. "
      "Give the rate as a number, or give the source num_input_examples."
    ) from error


def _code(task: seqio.Task) -> list[str]:
  """Hash the modules that define the task's own functions."""
  functions = [*task.preprocessors, getattr(task.source, "_dataset_fn", None)]
  paths = {path for f in functions for path in _files_of(f)}
  return sorted(files.file_sha256(path) for path in paths)


def _files_of(function: Any) -> Iterator[str]:
  """Yield the file that defines a function, except seqio's own files."""
  for part in (function, getattr(function, "func", None)):
    if not callable(part):
      continue
    written = inspect.unwrap(part)
    try:
      path = inspect.getsourcefile(written)
    except TypeError:  # an object
      continue
    module = inspect.getmodule(written)
    if path and module and module.__name__.partition(".")[0] != "seqio":
      yield path


def _texts(task: spec.TaskSpec, row: Mapping[str, tf.Tensor]) -> dict[str, Any]:
  """Decode features without a text, as seqio does for its metrics."""
  features = registry.get(task.name).output_features
  return {
    f"{name}_pretokenized": features[name].vocabulary.decode_tf(row[name])
    for name in FEATURES
    if f"{name}_pretokenized" not in row
  }


def _as_numpy(value: Any) -> Any:
  """Return a value as tf.data gives it: text as bytes, lists as arrays."""
  if isinstance(value, str):
    return value.encode()
  if isinstance(value, list):
    texts = any(isinstance(part, str) for part in value)
    return np.array(
      [_as_numpy(part) for part in value], object if texts else None
    )
  return np.asarray(value)[()]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
  """Keep the numbers of a metric; texts and pictures are for TensorBoard."""
  plain = {
    k: v.value if isinstance(v, seqio.metrics.Scalar) else v
    for k, v in values.items()
  }
  return {k: float(v) for k, v in plain.items() if _is_number(v)}


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float | np.number) or (
    isinstance(value, np.ndarray) and value.ndim == 0
  )
