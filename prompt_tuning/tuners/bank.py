"""Many runs of one tuning method as one tree with a leading run axis."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import meta

from prompt_tuning.core import tree
from prompt_tuning.core.axes import LogicalAxes
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.types import Array, Params
from prompt_tuning.tuners.initializers import Context

RUN_AXIS = "run"


class Bank(NamedTuple):
  """Parameters of K runs.

  Attributes:
    params: tree of arrays, each with a leading run axis of size K.
    axes: tree of the same paths; a leaf is the tuple of the array's logical
      axes, `run` first. Read it with `core.tree.flatten`: to JAX a tuple is no
      leaf.
  """

  params: Params
  axes: Params


def init_bank(
  tuners: Sequence[nn.Module],
  rngs: Sequence[Array],
  contexts: Sequence[Context],
) -> Bank:
  """Initialise K runs, each as it would be alone, and stack them.

  Args:
    tuners: one module per run; they may differ in their initialisers, not in
      the shape of their parameters.
    rngs: one random key per run.
    contexts: what the initialisers of each run may look at.

  Returns:
    The stacked parameters; entry k of every leaf equals
    `tuners[k].init(rngs[k], context=contexts[k])`, bit for bit.

  Raises:
    ValueError: the arguments differ in number, or two runs in their parameters.
  """
  counts = {len(tuners), len(rngs), len(contexts)}
  if len(counts) > 1 or not tuners:
    raise ValueError(
      f"A bank needs one tuner, key and context per run; got {len(tuners)} "
      f"tuners, {len(rngs)} keys and {len(contexts)} contexts."
    )
  boxed = [
    tuner.init(rng, context=context).get("params", {})
    for tuner, rng, context in zip(tuners, rngs, contexts, strict=True)
  ]
  flat = [tree.flatten(meta.unbox(run)) for run in boxed]
  expected = _signature(flat[0])
  for k, run in enumerate(flat):
    if _signature(run) != expected:
      raise ValueError(
        f"Runs of one bank must have equal parameters; run 0 has {expected}, "
        f"run {k} has {_signature(run)}. Train different lengths as separate "
        "banks."
      )
  stacked = {path: jnp.stack([run[path] for run in flat]) for path in expected}
  axes = {path: _axes(leaf) for path, leaf in tree.flatten(boxed[0]).items()}
  return Bank(tree.unflatten(stacked), tree.unflatten(axes))


def apply_bank(tuner: nn.Module, params: Params, *args: Any) -> Delta:
  """Produce the delta of all runs at once.

  Args:
    tuner: any of the bank's modules.
    params: parameters with a leading run axis.
    *args: further inputs of the tuner, with a leading run axis.

  Returns:
    A delta whose arrays have a leading run axis of size K.
  """

  def one(run: Params, *inputs: Any) -> Any:
    return tuner.apply({"params": run}, *inputs)

  delta: Delta = jax.vmap(one)(params, *args)
  return delta


def select_run(params: Params, index: int) -> Params:
  """Take the parameters of one run out of a bank."""
  return tree.unflatten(
    {path: leaf[index] for path, leaf in tree.flatten(params).items()}
  )


def _signature(flat: Mapping[str, Any]) -> dict[str, str]:
  return {
    path: f"{leaf.dtype}{list(np.shape(leaf))}" for path, leaf in flat.items()
  }


def _axes(leaf: Any) -> LogicalAxes:
  if isinstance(leaf, nn.Partitioned):
    return (RUN_AXIS, *leaf.names)
  return (RUN_AXIS, *(None,) * leaf.ndim)
