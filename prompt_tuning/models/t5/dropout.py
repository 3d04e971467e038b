"""Dropout masks of every row, drawn for all layers of a stack at once.

Masks are drawn once per stack, not in every layer: T5 1.1 small uses dropout
over a hundred times, and compiling a draw for each took most of the time before
the first step. The numbers are the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from prompt_tuning.core.types import Array, Shape


def fold_keys(keys: Array | None, number: int) -> Array | None:
  """Derive each row's PRNG key for one stack.

  Args:
    keys: [B] PRNG keys or None.
    number: the number to fold in.

  Returns:
    [B] PRNG keys, or None if `keys` is None.
  """
  return None if keys is None else _fold(keys, jnp.asarray(number))


def _fold(keys: Array, numbers: Array) -> Array:
  """Fold every number into every key: [N...], [B...] -> [N..., B...]."""
  # An axis at a time: flattened, rows that a mesh splits would be gathered.
  fold: Callable[..., Array] = jax.random.fold_in
  for _ in range(keys.ndim):
    fold = jax.vmap(fold, (0, None))
  for _ in range(numbers.ndim):
    fold = jax.vmap(fold, (None, 0))
  return fold(keys, numbers)


def draw(keys: Array, rate: float, shape: Shape) -> Array:
  """Draw dropout masks, one per key.

  Each row has its own key, so that a row drops the same activations in any
  batch, and a mask's prefix does not depend on the row's padding.

  Args:
    keys: [...] PRNG keys.
    rate: probability of dropping.
    shape: (*outer, features) of the dropped activations, without their length.

  Returns:
    [..., *outer, 1, features] booleans: one mask for all positions (all
    queries, in attention), as T5 has it.
  """
  *outer, features = shape

  def one(key: Array) -> Array:
    # Features first: then the bits of position i do not depend on the number
    # of positions (threefry is partitionable: bit i is a function of i).
    keep = jax.random.bernoulli(key, 1.0 - rate, (features, *outer))
    return jnp.expand_dims(jnp.moveaxis(keep, 0, -1), -2)

  every: Callable[[Array], Array] = one
  for _ in range(keys.ndim):
    every = jax.vmap(every)
  return every(keys)


def of_layers(
  keys: Array | None, rate: float, count: int, uses: Sequence[Shape]
) -> tuple[Any, ...]:
  """Draw the masks of all layers of a stack.

  Args:
    keys: [B] PRNG keys of the stack, or None to keep all.
    rate: probability of dropping.
    count: number of layers, L.
    uses: the shape of every use in a layer, see `draw`.

  Returns:
    For every use, [L, B, *outer, 1, features], or None.
  """
  if keys is None or rate == 0.0:
    return (None,) * len(uses)
  by_layer = _fold(keys, jnp.arange(count))
  masks: dict[int, Array] = {}
  for shape in dict.fromkeys(uses):
    numbers = [i for i, use in enumerate(uses) if use == shape]
    drawn = draw(_fold(by_layer, jnp.asarray(numbers)), rate, shape)
    masks |= zip(numbers, drawn, strict=True)
  return tuple(masks[i] for i in range(len(uses)))


def around_layers(
  keys: Array | None, rate: float, count: int, features: int
) -> tuple[Array | None, Array | None]:
  """Draw the masks before the first layer and after the last.

  Args:
    keys: [B] PRNG keys of the stack, or None to keep all.
    rate: probability of dropping.
    count: number of layers; these masks use the numbers after theirs.
    features: H.

  Returns:
    Two [B, 1, H], or None.
  """
  if keys is None or rate == 0.0:
    return None, None
  numbers = count + jnp.arange(2)
  before, after = draw(_fold(keys, numbers), rate, (features,))
  return before, after


def dropout(x: Array, rate: float, keep: Array | None) -> Array:
  """Drop activations.

  Args:
    x: [B, ..., length, features].
    rate: probability of dropping.
    keep: [B, ..., 1, features] booleans, see `draw`; None keeps all.

  Returns:
    The shape and dtype of `x`.
  """
  if keep is None:
    return x
  return jnp.where(keep, x / jnp.asarray(1.0 - rate, x.dtype), 0)
