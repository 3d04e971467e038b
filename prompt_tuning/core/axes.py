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


class UnevenError(ValueError):
  """Devices cannot share a dimension equally; with another mesh, they might."""


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


def stacked(of_one: Sharding) -> Sharding:
  """Split an array of copies as one of them is, with all on every device.

  Args:
    of_one: the sharding of one copy.

  Returns:
    The sharding with a dimension in front, see `trimmed`.
  """
  if not isinstance(of_one, NamedSharding):
    return of_one
  return trimmed(NamedSharding(of_one.mesh, PartitionSpec(None, *of_one.spec)))


def trimmed(untrimmed: NamedSharding) -> NamedSharding:
  """Write a sharding as JAX returns it from a compiled function.

  Args:
    untrimmed: one entry per dimension.

  Returns:
    The same without entries at the end that split nothing; one written
    otherwise would not be equal, and a step be compiled twice.
  """
  spec = list(untrimmed.spec)
  while spec and spec[-1] is None:
    spec.pop()
  return NamedSharding(untrimmed.mesh, PartitionSpec(*spec))


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


def shardings(
  shapes: Params, axes: Params, mesh: Mesh, rules: AxisRules
) -> Params:
  """Build the shardings of many arrays.

  Args:
    shapes: tree of arrays, or of what describes them.
    axes: the same tree of logical axis tuples.
    mesh: the mesh.
    rules: axis rules.

  Returns:
    The tree of `NamedSharding`, one entry per dimension each.

  Raises:
    UnevenError: dimensions that the mesh cannot split evenly, all of them.
    ValueError: a logical name that no rule mentions.
  """
  names = tree.flatten(axes)
  by_path, uneven = {}, []
  for path, leaf in tree.flatten(shapes).items():
    by_path[path] = sharding(mesh, names[path], rules)
    uneven += _uneven(path, leaf.shape, names[path], by_path[path])
  if uneven:
    raise UnevenError(
      "The mesh cannot split these parameters evenly; change the mesh or its "
      "axis rules:\n  " + "\n  ".join(uneven)
    )
  return tree.unflatten(by_path)


def method_shardings(
  shapes: Params, axes: Params, mesh: Mesh, rules: AxisRules
) -> Params:
  """Build the shardings of a tuning method's arrays.

  A method's axis that no rule mentions is on every device: rules of meshes that
  were written before the method know nothing of it.

  Args:
    shapes: tree of arrays, or of what describes them.
    axes: the same tree of logical axis tuples.
    mesh: the mesh.
    rules: axis rules.

  Returns:
    The tree of `NamedSharding`, see `trimmed`.

  Raises:
    UnevenError: dimensions that the mesh cannot split evenly, all of them.
  """
  known = {name for name, _ in rules}
  names = {
    path: tuple(name if name in known else None for name in of_leaf)
    for path, of_leaf in tree.flatten(axes).items()
  }
  untrimmed = shardings(shapes, tree.unflatten(names), mesh, rules)
  return jax.tree.map(trimmed, untrimmed)


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
    UnevenError: see `shardings`.
    ValueError: see `shardings`.
  """

  def target(
    leaf: jax.ShapeDtypeStruct, split: NamedSharding | None = None
  ) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, dtype or leaf.dtype, sharding=split)

  if mesh is None:
    return jax.tree.map(target, shapes)
  return jax.tree.map(target, shapes, shardings(shapes, axes, mesh, rules))


def _uneven(
  path: str,
  shape: Sequence[int],
  names: LogicalAxes,
  split: NamedSharding,
) -> list[str]:
  """Describe the dimensions that the devices cannot share equally."""
  return [
    f"{path}: dimension {size} over {split.mesh.shape[axis]} ways of {axis!r}, "
    f"by the rule {(name, axis)}"
    for size, name, axis in zip(shape, names, split.spec, strict=True)
    if axis is not None and size % split.mesh.shape[axis]
  ]


def put(leaves: Any, to: Any) -> Any:
  """Put arrays where they shall lie, or describe them as lying there.

  Args:
    leaves: tree of arrays or of `jax.ShapeDtypeStruct`.
    to: a sharding for all, or a tree of shardings.

  Returns:
    The tree of the same kind of leaves.
  """
  if not _is_description(leaves):
    return jax.device_put(leaves, to)
  return jax.tree.map(_described, leaves, _spread(to, leaves))


def compute(function: Callable[..., Any], to: Any, *arguments: Any) -> Any:
  """Compute arrays right where they shall lie, or describe what would be there.

  No device ever has the whole of what is split.

  Args:
    function: of arrays.
    to: a sharding for all its results, or a tree of shardings; for arrays also
      None, which leaves it to JAX.
    *arguments: trees of arrays, or of `jax.ShapeDtypeStruct`.

  Returns:
    The function's results, of the same kind of leaves as the arguments.
  """
  if not _is_description(arguments):
    return jax.jit(function, out_shardings=to)(*arguments)
  shapes = jax.eval_shape(function, *arguments)
  return jax.tree.map(_described, shapes, _spread(to, shapes))


def _is_description(leaves: Any) -> bool:
  return any(
    isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(leaves)
  )


def _spread(to: Any, leaves: Any) -> Any:
  """Repeat one sharding for every leaf."""
  return jax.tree.map(lambda _: to, leaves) if isinstance(to, Sharding) else to


def _described(leaf: Any, to: Sharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=to)


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
  process = jax.process_index()
  indices = sorted(
    {
      index[axis]
      for index, device in np.ndenumerate(mesh.devices)
      if device.process_index == process
    }
  )
  first, size, ways = indices[0], len(indices), mesh.devices.shape[axis]
  if indices != list(range(first, first + size)) or first % size or ways % size:
    raise ValueError(
      f"The devices of process {process} stand at {indices} of the data axis's "
      f"{ways} ways; a host needs an equal, contiguous part. Change the mesh."
    )
  return first // size, ways // size


def batch_sharder(
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

  def shard(batch: Mapping[str, np.ndarray]) -> Batch:
    global_arrays = {}
    for name, array in batch.items():
      if array.shape[0] % ways:
        raise ValueError(
          f"The {array.shape[0]} rows of {name} cannot be split over {ways} "
          "data-parallel ways; change BATCH_SIZE or the mesh."
        )
      axes = ("batch", *(None,) * (array.ndim - 1))
      global_arrays[name] = jax.make_array_from_process_local_data(
        sharding(mesh, axes, rules), array
      )
    return global_arrays

  return shard


def describe_batch(
  mesh: Mesh | None,
  rules: AxisRules,
  batch: Mapping[str, np.ndarray],
  hosts: int = 1,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Describe what `batch_sharder` makes of a batch.

  Args:
    mesh: the mesh; None for the default device.
    rules: axis rules.
    batch: arrays [rows of a host, ...].
    hosts: parts that its rows are brought in, see `data_shard`.

  Returns:
    Shapes, dtypes and shardings of the global arrays.
  """

  def describe(array: np.ndarray) -> jax.ShapeDtypeStruct:
    names = ("batch", *(None,) * (array.ndim - 1))
    rows, *rest = array.shape
    return jax.ShapeDtypeStruct(
      (rows * hosts, *rest),
      array.dtype,
      sharding=None if mesh is None else sharding(mesh, names, rules),
    )

  return {name: describe(array) for name, array in batch.items()}


def everywhere(mesh: Mesh | None) -> Sharding:
  """Return the sharding by which every device has all of an array.

  Args:
    mesh: whose devices; None for the default device alone.

  Returns:
    The sharding.
  """
  if mesh is None:
    return SingleDeviceSharding(jax.local_devices()[0])
  return NamedSharding(mesh, PartitionSpec())


def replicated(mesh: Mesh | None, params: Any) -> Any:
  """Put a tree on every device of the mesh, or on the default device."""
  return jax.device_put(params, everywhere(mesh) if mesh else None)
