"""Logical axis names and the rules that map them to mesh axes.

Names follow T5X, so that its users' rule overrides keep their meaning; the
prompt adds `prompt`, `prompt_embed` and `run`.
"""

from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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
