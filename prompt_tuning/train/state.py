"""The state that training changes, without the frozen model."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from prompt_tuning.core import axes, tree
from prompt_tuning.core.types import Array, Params, PyTree
from prompt_tuning.train.optimizers import (
  BankOptimizer,
  flatten_state,
  like_parameters,
  put_like,
  restore_state,
)

_STEP, _KEYS, _OPTIMIZER = "step", "dropout_keys", "optimizer"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything that a step reads and writes.

  Attributes:
    step: scalar int32, number of updates in this run. T5X's step is the
      restored model's plus this one.
    trainable: the trainable part of {"model": ..., "tuner": ...}; every leaf
      has a leading run axis of size K.
    opt_state: the optimizer's, over `trainable` only.
    dropout_keys: [K, 2] uint32, raw PRNG key of each run. It never changes;
      each step folds its number in.
  """

  step: Array
  trainable: Params
  opt_state: PyTree
  dropout_keys: Array


def shardings(
  trainable: Params, optimizer: BankOptimizer, mesh: Mesh | None
) -> Any:
  """Return the shardings of a bank's state.

  Args:
    trainable: see `TrainState`; arrays on the devices, or descriptions of them.
    optimizer: that of the bank.
    mesh: the devices; None for the default device.

  Returns:
    A `TrainState` of shardings. Arrays of the optimizer in the shape of a
    parameter are sharded like it. The rest, such as Adafactor's rows and
    columns, is small and on every device.
  """
  everywhere: Any = axes.everywhere(mesh)
  return TrainState(
    step=everywhere,
    trainable=jax.tree.map(lambda leaf: leaf.sharding, trainable),
    opt_state=like_parameters(
      jax.eval_shape(optimizer.init, trainable), trainable, everywhere
    ),
    dropout_keys=everywhere,
  )


def create(
  trainable: Params,
  optimizer: BankOptimizer,
  seeds: Sequence[int],
  to: Any = None,
) -> TrainState:
  """Start a bank of runs.

  Args:
    trainable: see `TrainState`; arrays, or descriptions of them.
    optimizer: that of the bank.
    seeds: K integers; each run drops the same activations as alone.
    to: the state's `shardings`, which `trainable` has already; None leaves
      arrays where JAX makes them.

  Returns:
    The state before the first step, or a description if `trainable` is one.
  """

  def start(trainable: Params) -> tuple[Array, PyTree, Array]:
    keys = [jax.random.key_data(jax.random.key(seed)) for seed in seeds]
    step = jnp.zeros((), jnp.int32)
    return step, optimizer.init(trainable), jnp.stack(keys)

  rest = None if to is None else (to.step, to.opt_state, to.dropout_keys)
  step, opt_state, keys = axes.compute(start, rest, trainable)
  return TrainState(step, trainable, opt_state, keys)


def resume_arrays(state: TrainState) -> dict[str, Array]:
  """Return, by name, the arrays besides `trainable` that a resume needs."""
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
    template: a new state with the same settings, for structure, shapes, dtypes
      and shardings.
    trainable: flat {path: array}.
    resume: the arrays of `resume_arrays`.

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
  for name, like in ((_STEP, template.step), (_KEYS, template.dropout_keys)):
    if _describe(resume.get(name)) != _describe(like):
      raise ValueError(
        f"The saved run cannot be continued: {name}: expected "
        f"{_describe(like)}, found {_describe(resume.get(name))}. Use an "
        "older bundle, or start a new run in another MODEL_DIR."
      )
  prefix = f"{_OPTIMIZER}/"
  return TrainState(
    step=put_like(resume[_STEP], template.step),
    trainable=tree.unflatten(
      {
        path: put_like(array, expected[path])
        for path, array in trainable.items()
      }
    ),
    opt_state=restore_state(
      template.opt_state,
      {
        name.removeprefix(prefix): array
        for name, array in resume.items()
        if name.startswith(prefix)
      },
    ),
    dropout_keys=put_like(resume[_KEYS], template.dropout_keys),
  )


def _describe(leaf: Any) -> str:
  return "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
