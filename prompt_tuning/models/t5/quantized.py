"""Frozen weights as int8 or int4: their leaves, storage and products.

A quantised kernel is two leaves: the integers, under the kernel's own name and
in its shape, and float32 scales (`kernel` and `kernel_scale`). Both are plain
arrays for partitioning, meshes, checksums and plans. The model is the same
function: it multiplies by scales if the tree has them. Rounding is symmetric:
scale = largest magnitude / largest integer, one for every output channel
(int8), or for every 32 inputs of one (int4), of kernel and head, and of every
row of the embedding table. Norms and relative positions stay floats.

We looked at qwix (0.1.8) and did not use it: it finds the matmuls of a model by
intercepting JAX's functions, and makes trees of dataclasses; here one layer
multiplies by all kernels, and frozen leaves are plain arrays. Its gain, integer
arithmetic with quantised activations, is not what saves memory.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

from prompt_tuning.core import tree
from prompt_tuning.core.types import Array, DType, Params, Shape

SUFFIX = "_scale"
_TABLE = "token_embedder/embedding"


class Scheme(NamedTuple):
  """A rule for rounding floats to integers.

  Attributes:
    dtype: dtype of the integers.
    largest: largest integer; the smallest is its negative.
    group: maximum number of inputs that share a scale; None for all inputs of a
      channel.
  """

  dtype: Any
  largest: int
  group: int | None


SCHEMES: Mapping[str, Scheme] = {
  "int8": Scheme(jnp.int8, 127, None),
  "int4": Scheme(jnp.int4, 7, 32),
}


def scheme(dtype: str) -> Scheme | None:
  """Return the scheme of a dtype setting.

  Args:
    dtype: dtype of the weights: `int8`, `int4`, or a floating dtype.

  Returns:
    The scheme; None if the weights stay floats.

  Raises:
    ValueError: another dtype.
  """
  if dtype in SCHEMES:
    return SCHEMES[dtype]
  try:
    known = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
  except TypeError:
    known = False
  if known:
    return None
  raise ValueError(
    f"RESTORE_DTYPE {dtype!r}: expected 'float32', 'bfloat16', "
    f"{' or '.join(map(repr, SCHEMES))}."
    + tree.nearest(dtype, ["float32", "bfloat16", *SCHEMES])
  )


def float_dtype(dtype: str) -> str:
  """Return the dtype of leaves when read, and of leaves that stay floats.

  Args:
    dtype: dtype of the weights, see `scheme`.
  """
  return dtype if scheme(dtype) is None else "float32"


def itemsize(dtype: Any) -> float:
  """Return the bytes of one value on a device (half a byte for int4)."""
  return 0.5 if dtype == jnp.int4 else float(dtype.itemsize)


def _summed_axis(path: str) -> int | None:
  """Find the axis that products sum over; None if a leaf is not quantised."""
  if path.rpartition("/")[2] == "kernel":
    return -2
  return -1 if path == _TABLE else None


def target(params: Params, dtype: str) -> Params:
  """Describe the quantised form of described parameters.

  Args:
    params: tree of `jax.ShapeDtypeStruct`, floats, as `axes.restore_target`
      makes them.
    dtype: dtype of the weights, see `scheme`.

  Returns:
    The same tree for floats; otherwise a tree with integers and their scales,
    sharded so that a device has the scales of its own integers.
  """
  int_scheme = scheme(dtype)
  if int_scheme is None:
    return params
  described: dict[str, jax.ShapeDtypeStruct] = {}
  for path, leaf in tree.flatten(params).items():
    axis = _summed_axis(path)
    described[path] = leaf
    if axis is not None:
      described[path], described[path + SUFFIX] = _described(
        leaf, int_scheme, axis
      )
  return tree.unflatten(described)


def _described(
  leaf: jax.ShapeDtypeStruct, int_scheme: Scheme, axis: int
) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
  sharding: Any = leaf.sharding
  integers = jax.ShapeDtypeStruct(
    leaf.shape, int_scheme.dtype, sharding=sharding
  )
  shape = list(leaf.shape)
  shape[axis] = groups = _groups(leaf.shape[axis], int_scheme)
  if isinstance(sharding, NamedSharding):
    spec = [*sharding.spec, *(None,) * (len(shape) - len(sharding.spec))]
    name = spec[axis]
    # Scales that the mesh cannot shard are small enough to replicate.
    if name is not None and groups % sharding.mesh.shape[name]:
      spec[axis] = None
    sharding = NamedSharding(sharding.mesh, PartitionSpec(*spec))
  scales = jax.ShapeDtypeStruct(tuple(shape), jnp.float32, sharding=sharding)
  return integers, scales


def _groups(size: int, int_scheme: Scheme) -> int:
  """Count the scales along an axis: equal groups, as large as allowed."""
  group = min(int_scheme.group or size, size)
  while size % group:
    group -= 1
  return size // group


def _split(shape: Shape, groups: int, axis: int) -> Shape:
  """Divide an axis into groups: [..., I, O] -> [..., G, I / G, O]."""
  at = len(shape) + axis
  return (*shape[:at], groups, shape[at] // groups, *shape[at + 1 :])


def quantize(
  values: Array, int_scheme: Scheme, axis: int
) -> tuple[Array, Array]:
  """Round to integers.

  Args:
    values: floats, such as a kernel [(L,) I, O].
    int_scheme: scheme of the integers.
    axis: axis that products sum over, -2 for a kernel, -1 for the table.

  Returns:
    (integers of the same shape, float32 scales with G in place of the axis);
    their product differs from `values` by at most half a scale.
  """
  shape = _split(values.shape, _groups(values.shape[axis], int_scheme), axis)
  grouped = values.astype(jnp.float32).reshape(shape)
  most = jnp.max(jnp.abs(grouped), axis=axis)
  # Zeros stay zeros, whatever their scale is.
  scale = jnp.where(most > 0, most / int_scheme.largest, 1.0)
  steps = jnp.round(grouped / jnp.expand_dims(scale, axis))
  clipped = jnp.clip(steps, -int_scheme.largest, int_scheme.largest)
  return clipped.astype(int_scheme.dtype).reshape(values.shape), scale


@functools.lru_cache
def _compiled(int_scheme: Scheme, axis: int, shardings: Any) -> Any:
  return jax.jit(
    lambda values: quantize(values, int_scheme, axis), out_shardings=shardings
  )


def quantizer(
  described: Params, dtype: str
) -> Callable[[str, Array], dict[str, Array]]:
  """Build the function that quantises restored leaves one by one.

  Args:
    described: the described tree, see `target`.
    dtype: dtype of the weights, see `scheme`.

  Returns:
    (path, floats) -> path -> array: two arrays for a quantised leaf, sharded as
    described; otherwise the leaf itself. The function returns when they are
    computed.
  """
  int_scheme, flat = scheme(dtype), tree.flatten(described)

  def convert(path: str, leaf: Array) -> dict[str, Array]:
    axis = _summed_axis(path)
    if int_scheme is None or axis is None:
      return {path: leaf}
    names = (path, path + SUFFIX)
    shardings = tuple(getattr(flat[name], "sharding", None) for name in names)
    out_shardings = None if None in shardings else shardings
    made = _compiled(int_scheme, axis, out_shardings)(leaf)
    return dict(zip(names, jax.block_until_ready(made), strict=True))

  return convert


def requantize(params: Mapping[str, Array], path: str, values: Any) -> Params:
  """Convert new values to the form of an existing leaf.

  Args:
    params: flat path -> array of a model, quantised or not.
    path: path of the leaf.
    values: floats of its shape.

  Returns:
    Flat path -> array: the leaf, and its scales if it has any, with the dtypes
    and sharding of those in `params`.
  """
  old, scales = params[path], params.get(path + SUFFIX)
  if scales is None:
    return {path: jax.device_put(values.astype(old.dtype), old.sharding)}
  name = next(n for n, s in SCHEMES.items() if s.dtype == old.dtype)
  axis = _summed_axis(path)
  assert axis is not None
  made = _compiled(SCHEMES[name], axis, (old.sharding, scales.sharding))
  integers, fresh = made(jax.device_put(values, old.sharding))
  return {path: integers, path + SUFFIX: fresh}


def dequantize(
  values: Array, scale: Array | None, dtype: DType, axis: int = -2
) -> Array:
  """Return weights as floats.

  Args:
    values: integers, such as a kernel [(L,) I, O], or floats without a scale.
    scale: see `quantize`; None for floats.
    dtype: dtype of the result.
    axis: axis that products sum over.

  Returns:
    The shape of `values`.
  """
  if scale is None:
    return values.astype(dtype)
  shape = _split(values.shape, scale.shape[axis], axis)
  floats = values.reshape(shape).astype(jnp.float32)
  floats = floats * jnp.expand_dims(scale, axis)
  return floats.astype(dtype).reshape(values.shape)


def scale_of(module: nn.Module, name: str) -> Array | None:
  """Fetch the scales of a module's parameter; None if it is a float."""
  scale: Array | None = module.get_variable("params", name + SUFFIX)
  return scale


def matmul(x: Array, kernel: Array, scale: Array | None) -> Array:
  """Multiply by a kernel that may be quantised.

  Args:
    x: [..., I].
    kernel: [I, O].
    scale: [G, O], or None.

  Returns:
    [..., O] in the dtype of `x`. With one scale per channel the integers are
    multiplied, and the scale comes last.
  """
  if scale is None:
    return x @ kernel.astype(x.dtype)
  return _matmul(x, kernel, scale)


# The backward pass keeps the integers. Without this, it would keep their float
# copy, for all layers at once.
@jax.checkpoint
def _matmul(x: Array, kernel: Array, scale: Array) -> Array:
  # Products with integers that are not scaled yet are too large for float16.
  if scale.shape[0] > 1 or x.dtype == jnp.float16:
    return x @ dequantize(kernel, scale, x.dtype)
  y = (x @ kernel.astype(x.dtype)).astype(jnp.float32)
  scale = jnp.expand_dims(scale[0], range(y.ndim - 1))
  return (y * scale).astype(x.dtype)


def einsum(
  equation: str, x: Array, kernel: Array, scale: Array | None, shape: Shape
) -> Array:
  """Contract with a kernel, perhaps quantised, in another shape.

  Args:
    equation: equation of `jnp.einsum`; the kernel is its second operand.
    x: floats.
    kernel: [I, O].
    scale: [G, O], or None.
    shape: shape of the kernel in the equation.

  Returns:
    The result of the equation, in the dtype of `x`.
  """

  def contract(x: Array, kernel: Array, scale: Array | None) -> Array:
    floats = dequantize(kernel, scale, x.dtype)
    return jnp.einsum(equation, x, floats.reshape(shape))

  if scale is not None:
    contract = jax.checkpoint(contract)  # as in `_matmul`
  return contract(x, kernel, scale)


def embedding_table(params: Params) -> Array:
  """Return a model's whole embedding table as floats.

  Args:
    params: parameters of the model.

  Returns:
    [V, H]: the array itself if it is not quantised, otherwise a float32 copy.
  """
  embedder = params["token_embedder"]
  table, scale = embedder["embedding"], embedder.get("embedding" + SUFFIX)
  if scale is None:
    return table
  give = jax.jit(dequantize, static_argnums=(2, 3))
  whole: Array = give(table, scale, jnp.float32, -1)
  return whole


def refuse_training(trained: Iterable[tuple[str, str]]) -> None:
  """Check that no quantised leaf trains.

  Args:
    trained: (path, dtype) of all leaves that train.

  Raises:
    ValueError: a quantised leaf trains; the message names the leaves and the
      settings.
  """
  leaves = dict(trained)
  bad = [path for path, dtype in leaves.items() if dtype in SCHEMES]
  bad += [
    p for p in leaves if p.endswith(("/kernel" + SUFFIX, _TABLE + SUFFIX))
  ]
  if bad:
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    raise ValueError(
      f"The partition rules train {', '.join(bad[:3])}{more}, which "
      "RESTORE_DTYPE quantised: integers have no gradient. Set RESTORE_DTYPE "
      "to 'float32' or 'bfloat16', or freeze them in PARTITION_RULES."
    )


def nbytes(params: Params) -> int:
  """Add up the bytes of a tree of arrays or of their descriptions."""
  leaves = tree.flatten(params).values()
  return round(sum(math.prod(a.shape) * itemsize(a.dtype) for a in leaves))
