"""Logical axis names and the rules that map them to mesh axes.

Names follow T5X, so that its users' rule overrides keep their meaning; the
prompt adds `prompt`, `prompt_embed` and `run`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import (
  Mesh,
  NamedSharding,
  PartitionSpec,
  Sharding,
  SingleDeviceSharding,
)

from prompt_tuning.core import tree
from prompt_tuning.core.types import Batch, DType, Params

LogicalAxes = tuple[str | None, ...]
AxisRules = Sequence[tuple[str, str | None]]

DATA, MODEL = "data", "model"

# T5X's one-dimensional rules (parameters over `model`, activations over
# `data`). The first rule whose mesh axis is still free in the array wins.
STANDARD_RULES: AxisRules = (
  ("batch", DATA),
  ("vocab", MODEL),
  ("embed", None),
  ("mlp", MODEL),
  ("heads", MODEL),
  ("kv", None),
  ("joined_kv", MODEL),
  ("relpos_buckets", None),
  ("abspos_buckets", None),
  ("length", None),
  ("layers", None),
  ("stack", None),
  ("mlp_activations", None),
  ("run", None),
  ("prompt", None),
  ("prompt_embed", None),
)

# T5X's two-dimensional parameter partitioning: `embed` is sharded over `data`
# too, which divides the bytes of the frozen weights by the whole mesh.
FULLY_SHARDED_RULES: AxisRules = (("embed", DATA), *STANDARD_RULES)


def partition_spec(axes: LogicalAxes, rules: AxisRules) -> PartitionSpec:
  """Map the logical axes of one array to mesh axes.

  Args:
    axes: one logical name (or None) per dimension.
    rules: ordered (logical, mesh axis or None) pairs; the first rule for a name
      whose mesh axis is not yet used by this array wins.

  Returns:
    The `PartitionSpec`, one entry per dimension.

  Raises:
    ValueError: a logical name that no rule mentions.
  """
  known = {name for name, _ in rules}
  used: set[str] = set()
  spec: list[str | None] = []
  for axis in axes:
    if axis is not None and axis not in known:
      raise ValueError(
        f"No rule for logical axis {axis!r}; rules name {sorted(known)}. Add "
        "one to the axis rules of the mesh."
      )
    mesh_axis = next(
      (m for name, m in rules if name == axis and m not in used), None
    )
    if mesh_axis is not None:
      used.add(mesh_axis)
    spec.append(mesh_axis)
  return PartitionSpec(*spec)


def sharding(mesh: Mesh, axes: LogicalAxes, rules: AxisRules) -> NamedSharding:
  """Build the sharding of one array from its logical axes."""
  return NamedSharding(mesh, partition_spec(axes, rules))


def stacked(where: Sharding) -> Sharding:
  """Split an array of copies as one of them is, with all on every device.

  Args:
    where: of one copy.

  Returns:
    The sharding with a dimension in front, written as JAX returns it from a
    compiled function; one written otherwise would not be equal.
  """
  if not isinstance(where, NamedSharding):
    return where
  spec = [None, *where.spec]
  while spec and spec[-1] is None:
    spec.pop()
  return NamedSharding(where.mesh, PartitionSpec(*spec))


def make_mesh(data: int, model: int) -> Mesh:
  """Arrange the devices of all hosts as a (data, model) mesh.

  Args:
    data: data-parallel ways.
    model: model-parallel ways.

  Returns:
    A mesh with automatic (compiler-propagated) axis types.

  Raises:
    ValueError: data * model is not the number of devices.
  """
  count = jax.device_count()
  if data * model != count:
    raise ValueError(
      f"A mesh of {data} data x {model} model needs {data * model} devices; "
      f"this job has {count}."
    )
  auto = jax.sharding.AxisType.Auto
  return jax.make_mesh((data, model), (DATA, MODEL), axis_types=(auto, auto))


def restore_target(
  shapes: Params,
  axes: Params,
  mesh: Mesh | None,
  rules: AxisRules,
  dtype: DType | None = None,
) -> Params:
  """Say where and in which dtype every parameter shall be restored.

  Args:
    shapes: tree of `jax.ShapeDtypeStruct`.
    axes: the same tree of logical axis tuples.
    mesh: the mesh; None for the default device.
    rules: axis rules.
    dtype: of all parameters; None keeps that of `shapes`.

  Returns:
    The tree of `jax.ShapeDtypeStruct` with dtype and sharding.

  Raises:
    ValueError: lists every dimension that the mesh cannot split evenly.
  """
  names = tree.flatten(axes)
  target, uneven = {}, []
  for path, struct in tree.flatten(shapes).items():
    where = None if mesh is None else sharding(mesh, names[path], rules)
    if where is not None:
      uneven += _uneven(path, struct.shape, where)
    target[path] = jax.ShapeDtypeStruct(
      struct.shape, dtype or struct.dtype, sharding=where
    )
  if uneven:
    raise ValueError(
      "The mesh cannot split these parameters evenly; change the mesh or its "
      "axis rules:\n  " + "\n  ".join(uneven)
    )
  return tree.unflatten(target)


def _uneven(path: str, shape: Sequence[int], where: NamedSharding) -> list[str]:
  return [
    f"{path}: dimension {size} over {where.mesh.shape[axis]} ways of {axis!r}"
    for size, axis in zip(shape, where.spec, strict=True)
    if axis is not None and size % where.mesh.shape[axis]
  ]


def data_shard(mesh: Mesh | None) -> tuple[int, int]:
  """Say which part of every batch this host has to bring.

  Hosts that share a part of the data axis, because the model is split over
  them, bring the same rows.

  Args:
    mesh: the mesh; None for a single host's default device.

  Returns:
    (index, count): part `index` of `count` equal ones.

  Raises:
    ValueError: the host's devices are no contiguous part of the data axis.
  """
  if mesh is None:
    return 0, 1
  axis = mesh.axis_names.index(DATA)
  own = jax.process_index()
  places = sorted(
    {
      place[axis]
      for place, device in np.ndenumerate(mesh.devices)
      if device.process_index == own
    }
  )
  first, size, ways = places[0], len(places), mesh.devices.shape[axis]
  if places != list(range(first, first + size)) or first % size or ways % size:
    raise ValueError(
      f"The devices of process {own} stand at {places} of the data axis's "
      f"{ways} ways; a host needs an equal, contiguous part. Change the mesh."
    )
  return first // size, ways // size


def batch_placer(
  mesh: Mesh | None, rules: AxisRules
) -> Callable[[Mapping[str, np.ndarray]], Batch]:
  """Build what puts a host's rows of a batch on the devices.

  Args:
    mesh: the mesh; None for the default device.
    rules: axis rules; `batch` is split, everything else replicated.

  Returns:
    (arrays [rows of this host, see `data_shard`, ...]) -> global arrays.

  Raises:
    ValueError: from the result: a number of rows that the mesh cannot split.
  """
  if mesh is None:
    return jax.device_put
  ways = mesh.shape[DATA] // data_shard(mesh)[1]

  def place(batch: Mapping[str, np.ndarray]) -> Batch:
    placed = {}
    for name, array in batch.items():
      if array.shape[0] % ways:
        raise ValueError(
          f"The {array.shape[0]} rows of {name} cannot be split over {ways} "
          "data-parallel ways; change BATCH_SIZE or the mesh."
        )
      axes = ("batch", *(None,) * (array.ndim - 1))
      where = sharding(mesh, axes, rules)
      placed[name] = jax.make_array_from_process_local_data(where, array)
    return placed

  return place


def describe_batch(
  mesh: Mesh | None,
  rules: AxisRules,
  batch: Mapping[str, np.ndarray],
  hosts: int = 1,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Describe what `batch_placer` makes of a batch.

  Args:
    mesh: the mesh; None for the default device.
    rules: axis rules.
    batch: arrays [rows of a host, ...].
    hosts: parts that its rows are brought in, see `data_shard`.

  Returns:
    Shapes, dtypes and places of the global arrays.
  """

  def describe(array: np.ndarray) -> jax.ShapeDtypeStruct:
    names = ("batch", *(None,) * (array.ndim - 1))
    where = None if mesh is None else sharding(mesh, names, rules)
    rows, *rest = array.shape
    return jax.ShapeDtypeStruct(
      (rows * hosts, *rest), array.dtype, sharding=where
    )

  return {name: describe(array) for name, array in batch.items()}


def everywhere(mesh: Mesh | None) -> Sharding:
  """Say that every device of a mesh, or the default device, has all of it."""
  if mesh is None:
    return SingleDeviceSharding(jax.local_devices()[0])
  return NamedSharding(mesh, PartitionSpec())


def replicated(mesh: Mesh | None, params: Any) -> Any:
  """Put a tree on every device of the mesh, or on the default device."""
  if mesh is None:
    return jax.device_put(params)
  return jax.device_put(params, everywhere(mesh))
