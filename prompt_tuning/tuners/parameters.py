"""Parameters of a method under paths, such as `enc_self/query/a`."""

import fnmatch
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.core import tree
from prompt_tuning.core.axes import LogicalAxes
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Array, Shape
from prompt_tuning.tuners import settings


class Parameter(NamedTuple):
  """How one parameter is made.

  Attributes:
    init: (random key, shape, dtype) -> initial value, as flax's initialisers.
    shape: its shape.
    axes: a logical axis name, or None, per dimension.
  """

  init: Callable[..., Array]
  shape: Shape
  axes: LogicalAxes


def per_layer(
  shape: ModelShape,
  site: str,
  init: Callable[..., Array],
  size: Shape,
  axes: LogicalAxes,
) -> Parameter:
  """Describe a parameter that every layer of a site has.

  Args:
    shape: of the model.
    site: decides how many layers there are.
    init: for all layers at once, see `Parameter`.
    size: shape in one layer.
    axes: logical axes in one layer.

  Returns:
    The parameter, [L, ...].
  """
  layers = shape.num_layers(site)
  return Parameter(init, (layers, *size), ("layers", *axes))


def declare(
  module: nn.Module, parameters: Mapping[str, Parameter]
) -> dict[str, Array]:
  """Declare parameters inside a compact method, or fetch them.

  Args:
    module: the tuning method.
    parameters: path -> how to make it, float32.

  Returns:
    Path -> value.
  """
  values: dict[str, Array] = {}
  folders = itertools.groupby(sorted(parameters), lambda p: p.split("/")[0])
  for folder, group in folders:
    inside = {path: parameters[path] for path in group}
    made = module.param(folder, functools.partial(_draw, parameters=inside))
    values |= tree.flatten({folder: made})
  return values


def _draw(key: Array, parameters: Mapping[str, Parameter]) -> Any:
  """Draw what lies in one folder, boxed with its axes."""
  flat = {}
  keys = jax.random.split(key, len(parameters))
  for key_of_leaf, (path, (init, shape, axes)) in zip(
    keys, parameters.items(), strict=True
  ):
    boxed = nn.with_logical_partitioning(init, axes)
    flat[path] = boxed(key_of_leaf, shape, jnp.float32)
  (tree_inside,) = tree.unflatten(flat).values()
  return tree_inside


def select(names: Sequence[str], shape: ModelShape, setting: str) -> list[str]:
  """Find the kernels that a setting names.

  Args:
    names: `query`, for every sublayer that has one; `enc_self/query`; or
      patterns of either, such as `dec_*/w*`.
    shape: of the model.
    setting: the setting that errors tell the user to change.

  Returns:
    `<sublayer>/<kernel>`, in the model's order; empty without a model.

  Raises:
    ValueError: there are no names, one stands twice, or no kernel has one.
  """
  if shape == ModelShape():  # no model yet
    return []
  known = {site: site.partition("/")[2] for site in shape.kernels()}
  settings.different(setting, names, "a list of kernels")
  selection = set()
  for name in names:
    settings.text(f"A kernel of {setting}", name)
    match = functools.partial(fnmatch.fnmatchcase, pat=name)
    sites = {s for s, short in known.items() if match(s) or match(short)}
    if not sites:
      words = dict.fromkeys([*known.values(), *known])
      raise ValueError(
        f"{setting}: the model has no kernel {name!r}."
        f"{tree.nearest(name, words)} It has {', '.join(words)}."
      )
    selection |= sites
  return [site for site in known if site in selection]


def axes_of(site: str) -> tuple[str, str]:
  """Name the logical axes of a kernel, as the frozen one has them."""
  kernel = site.partition("/")[2]
  inner = "mlp" if kernel.startswith("w") else "joined_kv"
  return (inner, "embed") if kernel in ("wo", "out") else ("embed", inner)
