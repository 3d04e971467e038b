"""From leaves on disk to sharded arrays, a few at a time.

A few threads read the leaves, largest first, within a budget of bytes. So the
bytes in flight stay a small part of the bytes restored. Each host reads the
smallest box that covers its own devices' shards, straight into an array of the
target's dtype. On a CPU that array becomes the `jax.Array` without a copy.
"""

import collections
import concurrent.futures
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from prompt_tuning.checkpoints.errors import CheckpointError, Mismatch
from prompt_tuning.checkpoints.source import Box, Leaf, box_shape, damaged
from prompt_tuning.core.types import Array

_MAX_THREADS = 16
_BUDGET_FRACTION = 1 / 20  # of the bytes restored; one leaf may always go
_BUDGET_FLOOR = 2**20

# (path, restored array) -> {path: array to keep}.
Convert = Callable[[str, Array], Mapping[str, Array]]


def load(
  path: str | os.PathLike[str],
  leaves: Mapping[str, Leaf],
  target: Mapping[str, Any],
  convert: Convert | None = None,
) -> dict[str, Array]:
  """Read leaves into arrays of the target's dtypes and shardings.

  Args:
    path: the checkpoint, for messages.
    leaves: flat path -> leaf, each of its target's shape (see `strict.match`).
    target: flat path -> something with `shape`, `dtype` and perhaps `sharding`.
    convert: function to apply to each array at once, so that no more bytes than
      the budget wait for it; called in the same order on every host.

  Returns:
    Flat path -> array, for all leaves.

  Raises:
    CheckpointError: bytes are damaged or missing; lists every such leaf.
  """
  order = sorted(leaves, key=lambda name: -leaves[name].nbytes)
  total = sum(leaf.nbytes for leaf in leaves.values())
  limit = max(int(total * _BUDGET_FRACTION), _BUDGET_FLOOR)
  arrays: dict[str, Array] = {}
  mismatches: list[Mismatch] = []
  in_flight: collections.deque[tuple[str, Future[Array]]] = collections.deque()
  free = limit

  def share(name: str) -> int:
    return min(leaves[name].nbytes, limit)

  def settle() -> None:
    """Take the array that was asked for first."""
    nonlocal free
    name, future = in_flight.popleft()
    try:
      array = future.result()
    except Exception as error:
      # Any library may have read it, so any exception is possible. The rest is
      # still read, so that one error lists all the damage of a checkpoint.
      mismatches.append(damaged(name, leaves[name], error))
      arrays.clear()
    else:
      if not mismatches:
        arrays.update(convert(name, array) if convert else {name: array})
    free += share(name)

  threads = min(_MAX_THREADS, os.cpu_count() or 1)
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    for name in order:
      # Take leaves in order. Otherwise the largest ones would wait until the
      # end, and need memory on top of all the others.
      while share(name) > free:
        settle()
      free -= share(name)
      in_flight.append(
        (name, pool.submit(load_leaf, leaves[name], target[name]))
      )
    while in_flight:
      settle()
  if mismatches:
    raise CheckpointError(path, sorted(mismatches, key=lambda m: m.path))
  return arrays if convert else {name: arrays[name] for name in leaves}


def load_leaf(leaf: Leaf, struct: Any) -> Array:
  """Read one leaf into one array.

  Args:
    leaf: of the target's shape.
    struct: its target.

  Returns:
    The array, on the target's devices.
  """
  shape, dtype = tuple(struct.shape), np.dtype(struct.dtype)
  sharding = getattr(struct, "sharding", None)
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  boxes = host_boxes(sharding, shape)
  hosted = {}
  for box in set(boxes.values()):
    hosted[box] = np.empty(box_shape(_slices(box)), dtype)
    leaf.read_into(_slices(box), hosted[box])

  def shard(index: Any) -> np.ndarray:
    asked = _bounds(index, shape)
    box = boxes[asked]
    offsets = tuple(
      slice(a - start, b - start)
      for (a, b), (start, _) in zip(asked, box, strict=True)
    )
    return hosted[box][offsets]

  return jax.make_array_from_callback(shape, sharding, shard, dtype=dtype)


_Bounds = tuple[tuple[int, int], ...]  # (start, stop) per dimension; hashable


def host_boxes(
  sharding: jax.sharding.Sharding, shape: tuple[int, ...]
) -> dict[_Bounds, _Bounds]:
  """Plan which boxes of an array this host reads.

  Args:
    sharding: the target's sharding.
    shape: of the whole array.

  Returns:
    For each of this host's shards, the box to read it from. If the shards fill
    one common box, it is that box, so that no chunk is decoded twice. Otherwise
    each distinct shard is its own box.
  """
  indices = sharding.addressable_devices_indices_map(shape)
  shards = {_bounds(index, shape) for index in indices.values()}
  starts = zip(*((a for a, _ in s) for s in shards), strict=True)
  stops = zip(*((b for _, b in s) for s in shards), strict=True)
  hull = tuple((min(a), max(b)) for a, b in zip(starts, stops, strict=True))
  filled = sum(map(_volume, shards)) == _volume(hull)
  return {s: hull if filled else s for s in shards}


def _bounds(index: Any, shape: tuple[int, ...]) -> _Bounds:
  """Normalise an index of slices, some of them open."""
  return tuple(
    s.indices(size)[:2] for s, size in zip(index, shape, strict=True)
  )


def _slices(bounds: _Bounds) -> Box:
  return tuple(slice(a, b) for a, b in bounds)


def _volume(bounds: _Bounds) -> int:
  return math.prod(b - a for a, b in bounds)
