"""What makes a run this run, as JSON values.

A bundle carries them. A run that resumes must have the same ones, and whoever
loads a bundle rebuilds the tuning method from them.
"""

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import linen as nn

from prompt_tuning.checkpoints import sizes
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import tree
from prompt_tuning.core.placement import Placement
from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.tuners import prompt

# Name in a bundle -> tuning method.
METHODS: Mapping[str, type[nn.Module]] = {"Prompt": prompt.Prompt}

_CLASS = "class"
_FLAX_FIELDS = ("parent", "name")


def identity(
  job: TrainJob,
  tuners: Sequence[nn.Module],
  backbone: Backbone,
  vocabulary: str,
  start_step: int,
) -> dict[str, Any]:
  """Describe a run by everything that decides its numbers.

  Args:
    job: what to do; how long, how often and where are left out, so that a run
      may be continued for longer, or elsewhere.
    tuners: the tuning method of every run; none for model tuning.
    backbone: the frozen model.
    vocabulary: hash of the vocabulary.
    start_step: that of the optimizer.

  Returns:
    JSON values.
  """
  dataset = job.dataset
  found = {
    "runs": [
      {
        "name": run.name,
        "seed": run.seed,
        "learning_rate": run.learning_rate,
        "task": run.task,
      }
      for run in job.runs
    ],
    "tuners": tuners,
    "placements": [placement_of(tuner) for tuner in tuners],
    "backbone": {
      "fingerprint": backbone.fingerprint,
      "shapes": sizes.described(backbone.config),
      "dtype": str(np.dtype(backbone.config.dtype)),
      "dropout_rate": backbone.config.dropout_rate,
      "weights": job.restore_dtype,
    },
    "vocabulary": vocabulary,
    "data": {
      "task_feature_lengths": dataset.lengths,
      "batch_size": dataset.batch_size,
      "batching": [dataset.batching, dataset.max_shapes],
      "split": dataset.split,
      "num_microbatches": job.num_microbatches,
    },
    "rules": list(job.rules),
    "optimizer": job.optimizer,
    "schedule": job.schedule,
    "objective": job.objective,
    "start_step": start_step,
  }
  return json.loads(json.dumps(describe(found)))


def placement_of(tuner: nn.Module) -> Placement:
  """Return where a method's virtual tokens stand; nowhere, if it has none."""
  return getattr(tuner, "placement", Placement())


def placements_of(
  tuners: Sequence[nn.Module], num_runs: int
) -> tuple[Placement, ...]:
  """Return `placement_of` every run; model tuning has no virtual tokens."""
  return tuple(map(placement_of, tuners)) or (Placement(),) * num_runs


def describe(value: Any) -> Any:
  """Write a setting as JSON values that equal settings share.

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
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {_CLASS: f"{array.dtype}{list(array.shape)}", "sha256": digest}
  if isinstance(value, np.dtype):
    return value.name
  if inspect.isroutine(value) or isinstance(value, type):
    return {_CLASS: f"{value.__module__}.{value.__qualname__}"}
  return {
    _CLASS: type(value).__name__,
    **{name: describe(part) for name, part in _parts(value).items()},
  }


def _parts(value: Any) -> dict[str, Any]:
  if dataclasses.is_dataclass(value):
    names = [field.name for field in dataclasses.fields(value)]
    return {n: getattr(value, n) for n in names if n not in _FLAX_FIELDS}
  return {n: v for n, v in vars(value).items() if not n.startswith("_")}


def rebuild(described: Mapping[str, Any]) -> nn.Module:
  """Make the tuning method that `describe` wrote down, without initialisers.

  Args:
    described: of a method.

  Returns:
    The method.

  Raises:
    ValueError: an unknown method, from a later version perhaps.
  """
  name = str(described.get(_CLASS))
  if name not in METHODS:
    raise ValueError(
      f"The bundle was tuned with {name!r}, which is not known here."
      f"{tree.nearest(name, METHODS)} Known: {', '.join(METHODS)}."
    )
  settings = {
    key: value
    for key, value in described.items()
    if key != _CLASS and not isinstance(value, Mapping)
  }
  return METHODS[name](**settings)
