"""The identity of a run, as JSON values.

A bundle holds these values. A run can resume only with the same values, and a
loaded bundle rebuilds its tuning method from them.
"""

import dataclasses
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.checkpoints import sizes
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import files
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.data import spec
from prompt_tuning.infer.evaluate import GENERATION
from prompt_tuning.jobs.settings import EvaluationSettings
from prompt_tuning.jobs.train_job import Experiment
from prompt_tuning.tuners import discovery
from prompt_tuning.tuners.method import (
  CLASS,
  FLAX_FIELDS,
  INITIALISER,
  Method,
  check_settings,
  name_of,
  settings_of,
)

_WORD_FILES = "word_files"


def identity(
  experiment: Experiment,
  tuners: Sequence[Method],
  backbone: Backbone,
  vocabulary: str,
  start_step: int,
  evaluation: EvaluationSettings | None = None,
  keep_best: bool = True,
) -> dict[str, Any]:
  """Describe everything that decides the numbers of a run.

  Args:
    experiment: see `settings`.
    tuners: see `settings`.
    backbone: the frozen model.
    vocabulary: see `settings`.
    start_step: see `settings`.
    evaluation: see `settings`.
    keep_best: see `settings`.

  Returns:
    JSON values.
  """
  described = settings(
    experiment, tuners, vocabulary, start_step, evaluation, keep_best
  )
  model = {
    "fingerprint": backbone.fingerprint,
    "shapes": sizes.described(backbone.config),
    "dtype": str(np.dtype(backbone.config.dtype)),
    "dropout_rate": backbone.config.dropout_rate,
    "weights": backbone.weights_dtype,
  }
  return described | {"backbone": _as_json(model)}


def settings(
  experiment: Experiment,
  tuners: Sequence[Method],
  vocabulary: str,
  start_step: int,
  evaluation: EvaluationSettings | None = None,
  keep_best: bool = True,
) -> dict[str, Any]:
  """Describe what is known of a run before its model is read.

  Args:
    experiment: everything that decides the numbers. Durations, periods and
      paths are left out, so that a run may continue for longer, be evaluated at
      other steps, or move.
    tuners: the tuning method of every run; empty for model tuning.
    vocabulary: hash of the vocabulary.
    start_step: first step of the optimizer.
    evaluation: on which data and how scores are computed, because other scores
      cannot be compared with those so far. None without evaluation.
    keep_best: whether the best step of every run is kept.

  Returns:
    JSON values.
  """
  dataset = experiment.dataset
  description = {
    "runs": [
      {
        "name": run.name,
        "seed": run.seed,
        "learning_rate": run.learning_rate,
        "task": run.task,
      }
      for run in experiment.runs
    ],
    "tuners": [describe_method(tuner) for tuner in tuners],
    "placements": [tuner.placement for tuner in tuners],
    "vocabulary": vocabulary,
    "tasks": {
      name: task.identity() for name, task in _tasks(experiment).items()
    },
    "data": {
      "task_feature_lengths": dataset.lengths,
      "batch_size": dataset.batch_size,
      "batching": [dataset.batching, dataset.max_shapes],
      "split": dataset.split,
      "num_microbatches": experiment.num_microbatches,
    },
    "rules": list(experiment.rules),
    "optimizer": experiment.run_optimizer,
    "schedule": experiment.schedule,
    "objective": experiment.run_objective,
    "start_step": start_step,
    "evaluation": _describe_evaluation(evaluation, keep_best),
  }
  if experiment.run_stages:
    description["stages"] = experiment.run_stages
  if experiment.start_from is not None:
    description["start_from"] = experiment.start_from
  if hashes := _word_files(experiment, evaluation):
    description[_WORD_FILES] = hashes
  return _as_json(description)


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
  return dict(json.loads(json.dumps(describe(settings))))


def data_files(
  experiment: Experiment, evaluation: EvaluationSettings | None = None
) -> dict[str, str]:
  """Find the files of a run's data and of its label words.

  Args:
    experiment: what is trained.
    evaluation: how it is scored; None where it is not.

  Returns:
    Key of a file's hash in `settings` -> the file.
  """
  of_tasks = {
    f"tasks.{name}.content.sha256.{split}": path
    for name, task in _tasks(experiment).items()
    if "sha256" in task.content
    for split, path in task.splits.items()
  }
  words = _word_files(experiment, evaluation)
  return of_tasks | {f"{_WORD_FILES}.{path}": path for path in words}


def data_sources(experiment: Experiment) -> list[str]:
  """List the TFDS names and versions of the runs' training data."""
  tasks = _tasks(experiment).values()
  return sorted({task.source for task in tasks if task.is_from_tfds})


def _tasks(experiment: Experiment) -> dict[str, spec.TaskSpec]:
  """List what the runs train on: name -> task."""
  names = {run.task for run in experiment.runs}
  split = experiment.dataset.split or "train"
  members = (m for n in sorted(names) for m in spec.get(n).components(split))
  return {task.name: task for task, _ in members}


def _describe_evaluation(
  settings: EvaluationSettings | None, keep_best: bool
) -> dict[str, Any] | None:
  """Describe what makes scores comparable, and which steps are kept."""
  if settings is None:
    return None
  decodes = GENERATION in settings.ways
  scoring: dict[str, Any] = {}
  if settings.scorer is not None:
    scoring = {"scorer": settings.scorer, "label_words": settings.label_words}
  if settings.context is not None:
    scoring["context"] = settings.context
  if settings.calibration is not None:
    scoring["calibration"] = settings.calibration
  return {
    **scoring,
    "split": settings.dataset.split,
    "task_feature_lengths": settings.dataset.lengths,
    "by": settings.ways,
    "decoder": settings.decoder if decodes else None,
    "max_decode_length": settings.max_decode_length if decodes else None,
    "num_examples": settings.num_examples,
    "keep_best": keep_best,
  }


def _word_files(
  experiment: Experiment, evaluation: EvaluationSettings | None
) -> dict[str, str]:
  """Hash the files of label words: their content may change under one name."""
  choices = [
    experiment.run_objective,
    *(stage.objective for stage in experiment.run_stages),
    evaluation,
  ]
  given = [getattr(choice, "label_words", None) for choice in choices]
  paths = sorted({path for path in given if isinstance(path, str)})
  return {path: files.file_sha256(files.path(path)) for path in paths}


def placements_of(
  tuners: Sequence[Method], num_runs: int
) -> tuple[Placement, ...]:
  """Return every run's placement; model tuning has no virtual tokens."""
  placements = tuple(tuner.placement for tuner in tuners)
  return placements or (Placement(),) * num_runs


def describe_method(method: Method) -> dict[str, Any]:
  """Write a method as JSON values, from which `rebuild` restores it.

  Args:
    method: any.

  Returns:
    Its name in bundles under `class`, and its settings.

  Raises:
    ValueError: a setting that JSON cannot hold as it is.
  """
  check_settings(method)
  described = {n: describe(part) for n, part in _fields(method).items()}
  return {CLASS: discovery.bundle_name(type(method)), **described}


def describe(value: Any) -> Any:
  """Write a setting as JSON values; equal settings give equal values.

  Args:
    value: plain values, containers, arrays, and objects of these.

  Returns:
    JSON values. An object is a mapping with its `class`.
  """
  if value is None or isinstance(value, bool | int | float | str):
    return value
  if isinstance(value, Mapping):
    return {str(key): describe(part) for key, part in value.items()}
  if isinstance(value, list | tuple):
    return [describe(part) for part in value]
  if hasattr(value, "__array__"):
    array = np.asarray(value)
    digest = files.sha256(np.ascontiguousarray(array).tobytes())
    return {CLASS: f"{array.dtype}{list(array.shape)}", "sha256": digest}
  if isinstance(value, np.dtype):
    return value.name
  if inspect.isroutine(value) or isinstance(value, type):
    return {CLASS: f"{value.__module__}.{value.__qualname__}"}
  return {
    CLASS: type(value).__name__,
    **{name: describe(part) for name, part in _fields(value).items()},
  }


def _fields(value: Any) -> dict[str, Any]:
  if dataclasses.is_dataclass(value):
    # Settings that came later are written only where they matter. So runs of
    # older versions can continue, and older versions can read what is written
    # here.
    later = getattr(value, "later", ())
    return {
      field.name: getattr(value, field.name)
      for field in dataclasses.fields(value)
      if field.name not in FLAX_FIELDS
      and not (
        field.name in later and getattr(value, field.name) == field.default
      )
    }
  return {n: v for n, v in vars(value).items() if not n.startswith("_")}


def without_initialisers(method: Method) -> Method:
  """Make the same method with the initialisers that it has by default."""
  kind, settings = settings_of(method)
  return kind(**settings)


def rebuild(described: Mapping[str, Any]) -> Method:
  """Make the tuning method that `describe_method` wrote down.

  Args:
    described: of a method.

  Returns:
    The method; fields that end in `_init` have their defaults.

  Raises:
    ValueError: an unknown method, or one that has no such setting: those of a
      later version, perhaps.
  """
  kind = discovery.from_bundle_name(str(described.get(CLASS)))
  known = {field.name for field in dataclasses.fields(kind)}
  try:
    settings = {
      name: _restored(value)
      for name, value in described.items()
      if name != CLASS and not name.endswith(INITIALISER)
    }
  except TypeError as error:  # sizes of a model that are none
    raise _unusable(kind, error) from error
  unknown = sorted(settings.keys() - known)
  if unknown:
    raise ValueError(
      f"The bundle's {name_of(kind)} has the settings {', '.join(unknown)}, "
      f"which {kind.__module__} does not know: it was written by another "
      "version."
    )
  try:
    method: Method = kind(**settings)
  except Exception as error:  # the method may be anybody's
    raise _unusable(kind, error) from error
  return method


def _unusable(kind: type[Method], error: Exception) -> ValueError:
  """Say that a method cannot be rebuilt from its description in a bundle."""
  return ValueError(
    f"The bundle's {name_of(kind)} does not have all settings of "
    f"{kind.__module__}, or has wrong values: it was written by another "
    f"version, or damaged. {error}"
  )


def _restored(value: Any) -> Any:
  """Undo `describe` for plain settings; lists come back as tuples."""
  if isinstance(value, list):
    return tuple(map(_restored, value))
  if isinstance(value, Mapping):
    fields = {name: _restored(part) for name, part in value.items()}
    return ModelShape(**fields) if fields.pop(CLASS, None) else fields
  return value
