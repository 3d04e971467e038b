"""Check that the loss depends on every leaf that should train.

Without a gradient, a leaf would silently do nothing but decay. While a gradient
is traced, JAX knows which leaves have one; this check costs nothing. A gradient
that is always zero shows after a few steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.custom_derivatives import SymbolicZero

from prompt_tuning.core import tree
from prompt_tuning.core.types import Array, Params
from prompt_tuning.train.errors import UnreachedError

_REMEDY = (
  "Training would not change them: freeze them (PARTITION_RULES, "
  "`train.rules`), or change TUNER or OBJECTIVE."
)


def watch(params: Params, reached: set[str]) -> Params:
  """Return the same leaves; the backward pass notes which have a gradient.

  Args:
    params: leaves of any shapes.
    reached: tracing the gradient adds the paths of leaves that have one.

  Returns:
    The tree.
  """
  flat = tree.flatten(params)
  return tree.unflatten({p: _noted(p, reached)(x) for p, x in flat.items()})


def insist(params: Params, reached: set[str]) -> None:
  """Insist that every leaf has a gradient.

  Args:
    params: the trainable part.
    reached: the paths that `watch` noted.

  Raises:
    UnreachedError: leaves have no gradient; the message names them.
  """
  missing = [path for path in tree.flatten(params) if path not in reached]
  if missing:
    raise UnreachedError(
      f"The loss does not depend on {', '.join(missing)}. {_REMEDY}"
    )


def zero_leaves(
  params: Params, squares: Sequence[np.ndarray]
) -> Mapping[str, np.ndarray]:
  """Find the leaves whose gradient was zero at all of some steps.

  Args:
    params: the trainable part.
    squares: `Metrics.squares` of the steps, [leaves, K] each.

  Returns:
    Path -> [K] booleans, True for runs with zero gradients; only leaves with at
    least one such run.
  """
  always_zero = np.logical_and.reduce([values == 0 for values in squares])
  names = tree.flatten(params)
  return {
    name: of_runs
    for name, of_runs in zip(names, always_zero, strict=True)
    if of_runs.any()
  }


def insist_nonzero(
  params: Params, squares: Sequence[np.ndarray], folder: str | None
) -> list[str]:
  """Insist that no gradient is zero at all of some steps.

  Args:
    params: the trainable part.
    squares: see `zero_leaves`.
    folder: leaves below it must have a gradient; None requires nothing.

  Returns:
    One line for every other zero gradient: of leaves elsewhere, or in only some
    of the runs.

  Raises:
    UnreachedError: the gradient of leaves was zero in all runs; the message
      names them.
  """
  zero = zero_leaves(params, squares)
  dead = [
    path
    for path, of_runs in zero.items()
    if folder and of_runs.all() and path.startswith(f"{folder}/")
  ]
  if dead:
    raise UnreachedError(
      f"The gradient of {', '.join(dead)} was zero at each of "
      f"{len(squares)} steps. {_REMEDY}"
    )
  return [
    f"{path}: the gradient was zero at each of {len(squares)} steps, in run "
    f"{', '.join(map(str, np.flatnonzero(of_runs)))}."
    for path, of_runs in zero.items()
  ]


def _noted(path: str, reached: set[str]) -> Any:
  """Build an identity that notes when its gradient is computed."""

  @jax.custom_vjp
  def same(leaf: Array) -> Array:
    return leaf

  def forward(leaf: Any) -> tuple[Array, None]:
    return leaf.value, None

  def backward(_: None, cotangent: Any) -> tuple[Any]:
    if isinstance(cotangent, SymbolicZero):
      return (None,)
    reached.add(path)
    return (cotangent,)

  same.defvjp(forward, backward, symbolic_zeros=True)
  return same
