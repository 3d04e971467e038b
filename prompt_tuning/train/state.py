"""What training changes: nothing of the frozen model is in here."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from prompt_tuning.core import tree
from prompt_tuning.core.types import Array, Params, PyTree
from prompt_tuning.train.optimizers import (
  BankOptimizer,
  flatten_state,
  restore_state,
)

_STEP, _KEYS, _OPTIMIZER = "step", "dropout_keys", "optimizer"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything that a step reads and writes.

  Attributes:
    step: scalar int32, updates done in this run. The step that T5X would show
      is the restored model's plus this.
    trainable: the trainable part of {"model": ..., "tuner": ...}; every leaf
      has a leading run axis of size K.
    opt_state: the optimizer's, over `trainable` only.
    dropout_keys: [K, 2] uint32, raw PRNG key of each run; constant, the step is
      folded in.
  """

  step: Array
  trainable: Params
  opt_state: PyTree
  dropout_keys: Array


def create(
  trainable: Params, optimizer: BankOptimizer, seeds: list[int]
) -> TrainState:
  """Start a bank of runs.

  Args:
    trainable: see `TrainState`.
    optimizer: of the bank.
    seeds: K integers; run k drops activations as it would alone.

  Returns:
    The state before the first step.
  """
  keys = [jax.random.key_data(jax.random.key(seed)) for seed in seeds]
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    trainable=trainable,
    opt_state=optimizer.init(trainable),
    dropout_keys=jnp.stack(keys),
  )


def resume_arrays(state: TrainState) -> dict[str, Array]:
  """Name everything besides `trainable` that an exact resume needs."""
  named = {_STEP: state.step, _KEYS: state.dropout_keys}
  for name, array in flatten_state(state.opt_state).items():
    named[f"{_OPTIMIZER}/{name}"] = array
  return named


def from_arrays(
  template: TrainState,
  trainable: Mapping[str, Any],
  resume: Mapping[str, Any],
) -> TrainState:
  """Rebuild a state from its named arrays.

  Args:
    template: a fresh state of the same settings; gives structure, shapes and
      dtypes.
    trainable: flat {path: array}.
    resume: what `resume_arrays` named.

  Returns:
    The state, bit for bit.

  Raises:
    ValueError: arrays are missing, unknown, or of another shape or dtype.
  """
  expected = tree.flatten(template.trainable)
  faults = [
    f"{path}: expected {_describe(expected.get(path))}, found "
    f"{_describe(trainable.get(path))}"
    for path in sorted(expected.keys() | trainable.keys())
    if _describe(expected.get(path)) != _describe(trainable.get(path))
  ]
  if faults:
    raise ValueError(
      "The saved run does not fit these settings (PROMPT_LENGTH, number of "
      "runs, model or method):\n  " + "\n  ".join(faults)
    )
  prefix = f"{_OPTIMIZER}/"
  return TrainState(
    step=jnp.asarray(resume[_STEP]),
    trainable=tree.unflatten(
      {path: jnp.asarray(array) for path, array in trainable.items()}
    ),
    opt_state=restore_state(
      template.opt_state,
      {
        name.removeprefix(prefix): array
        for name, array in resume.items()
        if name.startswith(prefix)
      },
    ),
    dropout_keys=jnp.asarray(resume[_KEYS]),
  )


def _describe(leaf: Any) -> str:
  return "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
