"""Logical axis names and the rules that map them to mesh axes.

Names follow T5X, so that its users' rule overrides keep their meaning; the
prompt adds `prompt`, `prompt_embed` and `run`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
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
MeshAxes = str | tuple[str, ...] | None
AxisRules = Sequence[tuple[str, MeshAxes]]

# Only meshes of several slices have `slice`. The network between slices is
# slower than the links within one.
SLICE, DATA, MODEL = "slice", "data", "model"

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


# Rows that come out of the embedding table; used only with several slices, see
# `rules_on`.
LOOKED_UP = "looked_up"


class UnevenError(ValueError):
  """Devices cannot share a dimension equally; with another mesh, they might."""


def partition_spec(axes: LogicalAxes, rules: AxisRules) -> PartitionSpec:
  """Map the logical axes of one array to mesh axes.

  Args:
    axes: one logical name (or None) per dimension.
    rules: ordered (logical, mesh axis, axes or None) pairs. The first rule for
      a name wins whose mesh axis this array does not use yet.

  Returns:
    The `PartitionSpec`, one entry per dimension.

  Raises:
    ValueError: a logical name that no rule mentions.
  """
  known = {name for name, _ in rules}
  used: set[str] = set()
  spec: list[MeshAxes] = []
  for axis in axes:
    if axis is not None and axis not in known:
      raise ValueError(
        f"No rule for logical axis {axis!r}; rules name {sorted(known)}. Add "
        "one to the axis rules of the mesh."
      )
    mesh_axes = next(
      (m for name, m in rules if name == axis and used.isdisjoint(_names(m))),
      None,
    )
    used.update(_names(mesh_axes))
    spec.append(mesh_axes)
  return PartitionSpec(*spec)


def _names(mesh_axes: MeshAxes) -> tuple[str, ...]:
  """List the mesh axes that a rule names."""
  if mesh_axes is None:
    return ()
  return (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes


def rules_on(mesh: Mesh, rules: AxisRules) -> AxisRules:
  """Split only the rows over slices.

  Every slice has the whole model, split over its own chips as the rules say. So
  only sums over rows cross the network between slices.

  Args:
    mesh: the mesh.
    rules: axis rules for one slice.

  Returns:
    The same rules. On a mesh of several slices they split `batch` over slices
    first. There `looked_up` splits the rows that the embedding table gives,
    over the mesh axes that do not split the table's features.
  """
  if SLICE not in mesh.axis_names:
    return rules
  features = {
    axis for name, over in rules if name == "embed" for axis in _names(over)
  }
  on_slices: list[tuple[str, MeshAxes]] = []
  for name, over in rules:
    rows = (SLICE, *_names(over))
    on_slices.append((name, rows if name == "batch" else over))
    if name == "batch":
      kept = tuple(axis for axis in rows if axis not in features)
      on_slices.append((LOOKED_UP, kept))
  return on_slices


def sharding(mesh: Mesh, axes: LogicalAxes, rules: AxisRules) -> NamedSharding:
  """Build the sharding of one array from its logical axes."""
  return NamedSharding(mesh, partition_spec(axes, rules_on(mesh, rules)))


def stacked(of_one: Sharding) -> Sharding:
  """Split every copy in a stacked array as `of_one` splits one copy.

  Args:
    of_one: the sharding of one copy.

  Returns:
    The sharding with an unsplit dimension in front, see `trimmed`.
  """
  if not isinstance(of_one, NamedSharding):
    return of_one
  return trimmed(NamedSharding(of_one.mesh, PartitionSpec(None, *of_one.spec)))


def trimmed(untrimmed: NamedSharding) -> NamedSharding:
  """Write a sharding as JAX returns it from a compiled function.

  Args:
    untrimmed: one entry per dimension.

  Returns:
    The same without entries at the end that split nothing. With them, it would
    not be equal to JAX's result, and JAX would compile a step twice.
  """
  spec = list(untrimmed.spec)
  while spec and spec[-1] is None:
    spec.pop()
  return NamedSharding(untrimmed.mesh, PartitionSpec(*spec))


def make_mesh(
  data: int,
  model: int,
  slices: int | None = None,
  devices: Sequence[Any] | None = None,
) -> Mesh:
  """Arrange devices as a (data, model) mesh, or as (slice, data, model).

  Args:
    data: data-parallel ways of all slices together.
    model: model-parallel ways within a slice.
    slices: number of slices: groups of devices that a slower network joins;
      None for the number that the TPUs report.
    devices: devices to arrange; None for those of all hosts.

  Returns:
    A mesh with automatic (compiler-propagated) axis types. With several slices
    its first axis is `slice`, and `data` has the ways of one slice.

  Raises:
    ValueError: data * model is not the number of devices, or a slice does not
      have its share of them.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  if data * model != count:
    raise ValueError(
      f"A mesh of {data} data x {model} model needs {data * model} devices; "
      f"this job has {count}."
    )
  groups = _by_slice(devices, slices)
  auto = jax.sharding.AxisType.Auto
  if len(groups) == 1:
    return jax.make_mesh(
      *((data, model), (DATA, MODEL)),
      axis_types=(auto, auto),
      devices=devices,
    )
  ways = data // len(groups)
  if ways * len(groups) != data:
    raise ValueError(
      f"MODEL_PARALLEL is {model}, but a model is split within a slice, and "
      f"each of the {len(groups)} slices has {len(groups[0])} devices. Set "
      f"MODEL_PARALLEL to a divisor of {len(groups[0])}."
    )
  # The same order as jax.experimental.mesh_utils.create_hybrid_device_mesh((1,
  # ways, model), (slices, 1, 1)), which works only with TPUs or processes.
  arranged = [
    mesh_utils.create_device_mesh((ways, model), group) for group in groups
  ]
  return Mesh(np.stack(arranged), (SLICE, DATA, MODEL), axis_types=(auto,) * 3)


def _by_slice(
  devices: Sequence[Any], slices: int | None
) -> list[Sequence[Any]]:
  """Group devices by slice, or by their order if they have no slice."""
  # GPUs give a slice index too, but per machine; a model may span machines.
  of_tpus = [
    device.slice_index
    for device in devices
    if device.platform == "tpu" and hasattr(device, "slice_index")
  ]
  known = sorted(set(of_tpus))
  count = slices or max(len(known), 1)
  if len(known) > 1 and count != len(known):
    raise ValueError(
      f"NUM_SLICES is {count}, but these TPUs belong to {len(known)} slices. "
      f"Set NUM_SLICES to {len(known)}."
    )
  sizes = [of_tpus.count(one) for one in known]
  if len(set(sizes)) > 1:
    raise ValueError(
      f"The {len(known)} slices of these TPUs have {sizes} chips; expected "
      "equal numbers, because all slices get equal parts of every batch. Ask "
      "for slices of one kind, and start the program on all their hosts."
    )
  if len(devices) % count:
    raise ValueError(
      f"NUM_SLICES is {count}, which does not divide the {len(devices)} "
      "devices of this job."
    )
  ordered = list(devices)
  if len(known) > 1:
    ordered.sort(key=lambda device: device.slice_index)
  elif count > 1:
    ordered.sort(key=lambda device: (device.process_index, device.id))
  size = len(ordered) // count
  return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def row_ways(mesh: Mesh | None) -> int:
  """Count the parts that a batch's rows are split into.

  Args:
    mesh: the mesh; None for the default device.

  Returns:
    The data-parallel ways of all slices.
  """
  if mesh is None:
    return 1
  return mesh.shape.get(SLICE, 1) * mesh.shape.get(DATA, 1)


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

  Every device has the whole of an axis that no rule mentions: a user may have
  written the rules before the method existed.

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
  """Give the dtype and the sharding to restore every parameter with.

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
  of_axis = split.mesh.shape
  return [
    f"{path}: a dimension of {size} cannot be split {ways} ways over "
    f"{axis!r}, by the rule {(name, axis)}"
    for size, name, axis in zip(shape, names, split.spec, strict=True)
    if size % (ways := math.prod(of_axis[one] for one in _names(axis)))
  ]


def rows_sharding(mesh: Mesh) -> NamedSharding:
  """Build the sharding of an array whose first dimension is rows."""
  over = tuple(axis for axis in (SLICE, DATA) if axis in mesh.axis_names)
  return NamedSharding(mesh, PartitionSpec(over if len(over) > 1 else DATA))


def put(leaves: Any, to: Any) -> Any:
  """Put arrays on their devices, or describe them as if they were there.

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
  """Compute arrays on the devices that keep them, or describe the results.

  No device ever holds the whole of an array that is split.

  Args:
    function: a function of arrays.
    to: a sharding for all its results, or a tree of shardings; for arrays also
      None, which lets JAX choose.
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
  """Say which part of every batch this host has to read.

  Hosts read the same rows if the model is split over them, so that they share a
  part of the data axis.

  Args:
    mesh: the mesh; None for a single host's default device.

  Returns:
    (index, count): part `index` of `count` equal ones.

  Raises:
    ValueError: the host's devices are not a contiguous part of the data axis.
  """
  if mesh is None:
    return 0, 1
  process = jax.process_index()
  ways = math.prod(mesh.devices.shape[:-1])  # the model's axis is the last
  of_rows = mesh.devices.reshape(ways, -1)
  indices = sorted(
    {
      row
      for (row, _), device in np.ndenumerate(of_rows)
      if device.process_index == process
    }
  )
  first, size = indices[0], len(indices)
  if indices != list(range(first, first + size)) or first % size or ways % size:
    raise ValueError(
      f"Process {process} holds the parts {indices} of the {ways} parts of the "
      "data axis; expected an equal, contiguous share. Change the mesh."
    )
  return first // size, ways // size


def batch_sharder(
  mesh: Mesh | None, rules: AxisRules
) -> Callable[[Mapping[str, np.ndarray]], Batch]:
  """Build the function that puts a host's rows of a batch on the devices.

  Args:
    mesh: the mesh; None for the default device.
    rules: axis rules; `batch` is split, everything else replicated.

  Returns:
    (arrays [rows of this host, see `data_shard`, ...]) -> global arrays.

  Raises:
    ValueError: the returned function raises it for a number of rows that the
      mesh cannot split.
  """
  if mesh is None:
    return jax.device_put
  ways = row_ways(mesh) // data_shard(mesh)[1]

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
  """Describe the arrays that `batch_sharder` makes from a batch.

  Args:
    mesh: the mesh; None for the default device.
    rules: axis rules.
    batch: arrays [rows of a host, ...].
    hosts: number of parts that hosts read, see `data_shard`.

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
  """Return the sharding that puts the whole array on every device.

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
