"""Many runs of one tuning method as one tree with a leading run axis."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import meta

from prompt_tuning.core import algebra, tree
from prompt_tuning.core.axes import LogicalAxes
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.types import Array, Batch, Params
from prompt_tuning.tuners.initializers import InitializerContext
from prompt_tuning.tuners.method import (
  Inputs,
  Method,
  name_of,
  settings_of,
  slots_of,
)

RUN_AXIS = "run"
# Parameters of `Method.extra` before it got random keys.
_BEFORE_KEYS = 3


class BankError(ValueError):
  """Methods that cannot form a bank, whatever their initialisers."""


class Bank(NamedTuple):
  """Parameters of K runs.

  Attributes:
    params: tree of arrays, each with a leading run axis of size K.
    axes: tree of the same paths. A leaf is the tuple of the array's logical
      axes, `run` first. Read it with `core.tree.flatten`, because for JAX a
      tuple is not a leaf.
  """

  params: Params
  axes: Params


def init_bank(
  tuners: Sequence[Method],
  rngs: Sequence[Array],
  contexts: Sequence[InitializerContext],
) -> Bank:
  """Initialise K runs, each with the values that it has alone, and stack them.

  Args:
    tuners: one module per run; they may differ in their initialisers, not in
      the shape of their parameters.
    rngs: one random key per run.
    contexts: what the initialisers of each run may read.

  Returns:
    The stacked parameters; entry k of every leaf equals
    `tuners[k].init(rngs[k], Inputs(contexts[k]))`, bit for bit.

  Raises:
    BankError: the arguments differ in length, two runs differ in their
      parameters, or a method has no parameters or one with a slash in its
      name.
  """
  counts = {len(tuners), len(rngs), len(contexts)}
  if len(counts) > 1 or not tuners:
    raise BankError(
      f"A bank needs one tuner, key and context per run; got {len(tuners)} "
      f"tuners, {len(rngs)} keys and {len(contexts)} contexts."
    )
  boxed = [
    tuner.init(rng, Inputs(context)).get("params", {})
    for tuner, rng, context in zip(tuners, rngs, contexts, strict=True)
  ]
  _check_names(tuners[0], boxed[0])
  flat = [tree.flatten(meta.unbox(run)) for run in boxed]
  expected = _signature(flat[0])
  for k, run in enumerate(flat):
    if _signature(run) != expected:
      raise BankError(
        f"Runs of one bank must have equal parameters; run 0 has {expected}, "
        f"run {k} has {_signature(run)}. Train different lengths as separate "
        "banks."
      )
  stacked = {path: jnp.stack([run[path] for run in flat]) for path in expected}
  axes = {path: _axes(leaf) for path, leaf in tree.flatten(boxed[0]).items()}
  return Bank(tree.unflatten(stacked), tree.unflatten(axes))


def apply_runs(
  tuners: Sequence[Method], params: Params, keys: Array | None = None
) -> Delta:
  """Make the delta of runs whose methods may have different settings.

  Args:
    tuners: one per run.
    params: see `apply_bank`.
    keys: see `apply_bank`.

  Returns:
    See `apply_bank`.
  """
  first = settings_of(tuners[0])
  if all(settings_of(tuner) == first for tuner in tuners):
    return apply_bank(tuners[0], params, keys)
  deltas = []
  for k, tuner in enumerate(tuners):
    of_run = jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], params)
    own_keys = None if keys is None else keys[k : k + 1]
    deltas.append(apply_bank(tuner, of_run, own_keys))
  return algebra.join(deltas, list(map(slots_of, tuners)))


def apply_bank(
  tuner: Method, params: Params, keys: Array | None = None
) -> Delta:
  """Make the delta of all runs at once.

  Args:
    tuner: any of the bank's modules; their settings are equal.
    params: parameters with a leading run axis.
    keys: [K] random keys for the method's dropout in training; None outside of
      training.

  Returns:
    A delta whose arrays have a leading axis of size K. If the method has T
    conditions or components, its size is K T, and those of the first run come
    first.

  Raises:
    BankError: the method returns something else.
  """
  numbers = jnp.arange(slots_of(tuner))
  is_one = len(tuner.conditions) == 0 and tuner.components == 1

  def one(run: Params, key: Array | None, condition: Array | None) -> Any:
    if key is not None and condition is not None:
      key = jax.random.fold_in(key, condition)
    rngs = None if key is None else {"dropout": key}
    inputs = Inputs(train=key is not None, condition=condition)
    made = tuner.apply({"params": run}, inputs, rngs=rngs)
    if not isinstance(made, Delta):
      name = name_of(type(tuner))
      raise BankError(f"{name} returns {made!r}; expected a Delta.")
    return made

  def of_run(run: Params, key: Array | None) -> Any:
    if is_one:
      return one(run, key, None)
    return jax.vmap(one, in_axes=(None, None, 0))(run, key, numbers)

  delta: Delta = jax.vmap(of_run)(params, keys)
  if is_one:
    return delta
  slots: Delta = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), delta)
  return slots


def extra_of(
  tuners: Sequence[Method],
) -> (
  Callable[[Delta, Outputs, Batch, Array | None], Mapping[str, Array]] | None
):
  """Return the function that adds to the loss of every example of a bank.

  Args:
    tuners: one per run; none for model tuning.

  Returns:
    `Method.extra` of all methods; None if they have none.

  Raises:
    BankError: methods add something and differ in their settings.
  """
  adding = [t for t in tuners if type(t).extra is not Method.extra]
  if not adding:
    return None
  if any(settings_of(t) != settings_of(adding[0]) for t in tuners):
    raise BankError(
      f"{name_of(type(adding[0]))} adds to the loss of every example, so all "
      "runs of its bank need the same settings. Give them the same settings, "
      "or train them in banks of their own."
    )
  extra: Callable[..., Mapping[str, Array]] = adding[0].extra
  if len(inspect.signature(extra).parameters) == _BEFORE_KEYS:
    return lambda delta, outputs, batch, keys: extra(delta, outputs, batch)
  return extra


def penalty_of(tuners: Sequence[Method]) -> Callable[[Params], Array] | None:
  """Return the function that adds to the loss of every run of a bank.

  Args:
    tuners: one per run; none for model tuning.

  Returns:
    A function: parameters with a leading run axis -> [K]; None if no method
    adds anything.
  """
  if all(type(tuner).penalty is Method.penalty for tuner in tuners):
    return None

  def penalties(params: Params) -> Array:
    of_runs = []
    for k, tuner in enumerate(tuners):
      params_of_run = jax.tree.map(lambda leaf, k=k: leaf[k], params)
      of_runs.append(tuner.penalty(params_of_run))
    return jnp.stack(of_runs)

  return penalties


def _check_names(tuner: Method, params: Params) -> None:
  """Refuse parameters with ambiguous paths, and methods without parameters."""
  name = name_of(type(tuner))
  if not jax.tree.leaves(params):
    raise BankError(
      f"{name} has no parameters; expected at least one to train."
    )
  slashed = [key for key in _keys(params) if tree.SEPARATOR in key]
  if slashed:
    raise BankError(
      f"{name} has parameters whose names hold {tree.SEPARATOR!r}: "
      f"{', '.join(slashed)}. Paths use it as separator; rename them."
    )


def _keys(params: Any) -> list[str]:
  """List the names of all levels of a tree."""
  if not isinstance(params, Mapping):
    return []
  return [*params, *(k for part in params.values() for k in _keys(part))]


def _signature(flat: Mapping[str, Any]) -> dict[str, str]:
  return {
    path: f"{leaf.dtype}{list(np.shape(leaf))}" for path, leaf in flat.items()
  }


def _axes(leaf: Any) -> LogicalAxes:
  if isinstance(leaf, nn.Partitioned):
    if len(leaf.names) != leaf.value.ndim:
      raise BankError(
        f"A parameter of shape {list(leaf.value.shape)} has the logical axes "
        f"{leaf.names}; expected a name or None for each dimension."
      )
    return (RUN_AXIS, *leaf.names)
  return (RUN_AXIS, *(None,) * leaf.ndim)
