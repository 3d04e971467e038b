"""The identity and the sizes of every kind of site of a `Delta`.

They let one delta hold runs that tune different things. A run without a site
gets the site's identity. A run whose prompt, rank or set of words is smaller is
padded with values that change nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.core import finite
from prompt_tuning.core.delta import (
  NO_WORD,
  Bottleneck,
  Delta,
  Hidden,
  LowRank,
  Prefix,
)
from prompt_tuning.core.schema import Fault
from prompt_tuning.core.types import Array


class Leaf(NamedTuple):
  """One array of a kind of site.

  Attributes:
    axes: a letter per dimension, see `core.types`; I and O are a kernel's
      inputs and outputs, F any features, U label words of a class.
    identity: value with which the site, or the padding, does nothing.
    absent: value of an array that a site leaves out; None if it may not.
    marks: whether it only says which entries of the other arrays count. Then it
      is needed only where runs differ.
  """

  axes: str
  identity: float | bool
  absent: float | bool | None = None
  marks: bool = False


# Letters whose sizes may differ between the runs of one model.
_FREE = "PRCU"

# Field of `Delta` -> arrays of its sites. `virtual`, `head_rows`, `sight`,
# `log_weight` and `word_weights` are one site each; the mask of rows is a field
# beside them.
KINDS: Mapping[str, Mapping[str, Leaf]] = {
  "virtual": {"virtual": Leaf("KPH", 0.0)},
  "prefix": {
    "key": Leaf("KLPND", 0.0),
    "value": Leaf("KLPND", 0.0),
    "mask": Leaf("KLP", False, True, marks=True),
    "positioned": Leaf("KL", False, False),
  },
  "hidden": {
    "values": Leaf("KLPH", 0.0),
    "replace": Leaf("KLP", False),
  },
  "bottleneck": {
    "down": Leaf("KLHR", 0.0),
    "up": Leaf("KLRH", 0.0),
    "down_bias": Leaf("KLR", 0.0, 0.0),
    "up_bias": Leaf("KLH", 0.0, 0.0),
    "norm_scale": Leaf("KLH", 0.0, 0.0),
    "norm_bias": Leaf("KLH", 0.0, 0.0),
    "normed": Leaf("KL", False, True, marks=True),
    "parallel": Leaf("KL", False, False),
  },
  "lowrank": {"a": Leaf("KLIR", 0.0), "b": Leaf("KLRO", 0.0)},
  "scale": {"scale": Leaf("KLF", 1.0)},
  "norm": {"norm": Leaf("KLH", 1.0)},
  "head_rows": {
    "head_rows": Leaf("KCH", 0.0),
    "head_mask": Leaf("KC", False, True, marks=True),
  },
  "sight": {"sight": Leaf("KW", True)},
  "log_weight": {"log_weight": Leaf("K", 0.0)},
  "word_weights": {"word_weights": Leaf("KCU", NO_WORD)},
}
_STRUCTS = {
  "prefix": Prefix,
  "hidden": Hidden,
  "bottleneck": Bottleneck,
  "lowrank": LowRank,
}
# Fields that map a site to one array.
_ARRAYS = ("scale", "norm")
# A prefix stands right before the text, so padding goes in front of it.
_PADDED_IN_FRONT = ("prefix",)

# One site: {name of a leaf: array}; those that are None are left out.
_Site = Mapping[str, Array]


def join(deltas: Sequence[Delta], runs: Sequence[int]) -> Delta:
  """Put the runs of several deltas side by side.

  Args:
    deltas: of one model; they may fill different fields, and have prompts,
      ranks and answer words of different numbers.
    runs: number of runs of each, which an empty delta does not show.

  Returns:
    A delta of sum(runs) runs; each run computes the same as alone.

  Raises:
    ValueError: arrays cannot belong to one model, or have several dtypes.
  """
  if len(deltas) == 1:
    return deltas[0]
  fields: dict[str, Any] = {}
  tables = [_sites(delta) for delta in deltas]
  for field, name in dict.fromkeys(key for table in tables for key in table):
    sites = [table.get((field, name)) for table in tables]
    site = _join_site(f"{field}[{name}]" if name else field, field, sites, runs)
    fields |= _as_field(fields, field, name, site)
  return Delta(**fields)


def select(delta: Delta, runs: Sequence[int] | slice) -> Delta:
  """Take some runs out of a delta."""
  index = runs if isinstance(runs, slice) else jnp.asarray(runs)
  selected: Delta = jax.tree.map(lambda leaf: leaf[index], delta)
  return selected


def named_leaves(delta: Delta) -> dict[str, Array]:
  """Name every array of a delta.

  Args:
    delta: any.

  Returns:
    `virtual`, `lowrank/enc_self/query/a`, ... -> array.
  """
  named = {}
  for (field, site), leaves in _sites(delta).items():
    for leaf, array in leaves.items():
      path = (field, site, leaf) if field in _STRUCTS else (field, site)
      if field == leaf or leaf == "head_mask":
        path = (leaf, site)
      named["/".join(filter(None, path))] = array
  return named


def from_named_leaves(named: Mapping[str, Any]) -> Delta:
  """Build the delta whose `named_leaves` these are.

  Raises:
    ValueError: a name that no delta has, or a site that lacks an array.
  """
  sites: dict[tuple[str, str], dict[str, Array]] = {}
  for path, array in named.items():
    field, *rest = path.split("/")
    if field == "head_mask":
      field, rest, leaf = "head_rows", [], "head_mask"
    elif field in _STRUCTS:
      *rest, leaf = rest or [""]
    else:
      leaf = field
    known = KINDS.get(field, {})
    mapped = field in _STRUCTS or field in _ARRAYS
    if leaf not in known or bool(rest) != mapped:
      raise ValueError(f"{path!r} is not the path of an array of a delta.")
    sites.setdefault((field, "/".join(rest)), {})[leaf] = array
  fields: dict[str, Any] = {}
  for (field, name), leaves in sites.items():
    missing = [
      leaf
      for leaf, kind in KINDS[field].items()
      if leaf not in leaves and kind.absent is None
    ]
    if missing:
      site_name = "/".join(filter(None, (field, name)))
      raise ValueError(f"{site_name} lacks its arrays {', '.join(missing)}.")
    fields |= _as_field(fields, field, name, leaves)
  return Delta(**fields)


def faults(delta: Delta, runs: int) -> list[Fault]:
  """List the faults of a delta that are faults with every model.

  Args:
    delta: from a file, or of a method that a file described.
    runs: number of runs that it should have.

  Returns:
    One fault per array with a wrong rank, kind of number or number of runs, and
    per array with numbers that are not finite.
  """
  listed = []
  for (field, site), leaves in _sites(delta).items():
    for leaf, array in leaves.items():
      kind = KINDS[field][leaf]
      name = "/".join(dict.fromkeys(filter(None, (field, site, leaf))))
      shape = tuple(np.shape(array))
      number = np.bool_ if isinstance(kind.identity, bool) else np.floating
      if len(shape) != len(kind.axes) or shape[0] != runs or not all(shape):
        axes = ", ".join(kind.axes).replace("K", str(runs))
        listed.append(Fault(name, f"[{axes}], none of them 0", f"{[*shape]}"))
      elif not jnp.issubdtype(array.dtype, number):
        expected = "true or false" if number is np.bool_ else "real numbers"
        listed.append(Fault(name, expected, str(array.dtype)))
      elif number is np.floating and (bad := finite.fault(array)):
        listed.append(Fault(name, finite.EXPECTED, bad))
  return listed


def _sites(delta: Delta) -> dict[tuple[str, str], dict[str, Array]]:
  """List the sites of a delta: (field, name of the site) -> its arrays."""
  sites: dict[tuple[str, str], dict[str, Array]] = {}
  for field in KINDS:
    value = getattr(delta, field)
    if field in _STRUCTS:
      for name, site in value.items():
        leaves = site._asdict().items()
        sites[field, name] = {k: a for k, a in leaves if a is not None}
    elif isinstance(value, Mapping):
      sites |= {(field, name): {field: array} for name, array in value.items()}
    elif value is not None:
      sites[field, ""] = {field: value}
  if delta.head_mask is not None:
    sites["head_rows", ""]["head_mask"] = delta.head_mask
  return sites


def _as_field(
  fields: Mapping[str, Any], field: str, name: str, site: _Site
) -> dict[str, Any]:
  """Add one site to the arguments of `Delta` that were made so far."""
  if field in _STRUCTS:
    return {field: {**fields.get(field, {}), name: _STRUCTS[field](**site)}}
  if name:
    return {field: {**fields.get(field, {}), name: site[field]}}
  return dict(site)


def _join_site(
  site_name: str,
  field: str,
  sites: Sequence[_Site | None],
  runs: Sequence[int],
) -> dict[str, Array]:
  """Join one site of several deltas; None is a delta without it."""
  present = [part for part in sites if part is not None]
  sizes = _common_sizes(site_name, field, present)
  have = {leaf for part in present for leaf in part}
  alike = len(present) == len(sites) and all(
    set(part) == have and _sizes(field, part) == sizes for part in present
  )
  joined = {}
  for name, leaf in KINDS[field].items():
    needed = leaf.marks and not alike and _marks_something(field, have)
    if name not in have and not needed:
      continue
    dtypes = {str(part[name].dtype) for part in present if name in part}
    if len(dtypes) > 1:
      raise ValueError(
        f"{site_name}.{name} has the dtypes {', '.join(sorted(dtypes))} in "
        "different runs; expected one."
      )
    dtype = dtypes.pop() if dtypes else bool
    joined[name] = jnp.concatenate(
      [
        _leaf_of(field, name, part, count, sizes, dtype)
        for part, count in zip(sites, runs, strict=True)
      ]
    )
  return joined


def _marks_something(field: str, have: set[str]) -> bool:
  """Whether a mark is needed: in a bottleneck only if there is a norm."""
  return field != "bottleneck" or "norm_scale" in have


def _leaf_of(
  field: str,
  name: str,
  part: _Site | None,
  runs: int,
  sizes: Mapping[str, int],
  dtype: Any,
) -> Array:
  """Pad one part's array to the common sizes."""
  leaf = KINDS[field][name]
  if part is None:
    shape = [runs, *(sizes[letter] for letter in leaf.axes[1:])]
    return jnp.full(shape, leaf.identity, dtype)
  array = part.get(name)
  if array is None:
    own_sizes = _sizes(field, part)
    # A site has a norm if it has a scale for one.
    is_norm = name == "normed"
    absent = "norm_scale" in part if is_norm else bool(leaf.absent)
    shape = [runs, *(own_sizes[letter] for letter in leaf.axes[1:])]
    array = jnp.full(shape, absent, dtype)
  missing = [
    sizes[letter] - size
    for letter, size in zip(leaf.axes[1:], array.shape[1:], strict=True)
  ]
  if not any(missing):
    return array
  in_front = field in _PADDED_IN_FRONT
  widths = [(more, 0) if in_front else (0, more) for more in missing]
  return jnp.pad(array, [(0, 0), *widths], constant_values=leaf.identity)


def _sizes(field: str, part: _Site) -> dict[str, int]:
  """Read the size of every letter from one site."""
  return {
    letter: size
    for name, array in part.items()
    for letter, size in zip(
      KINDS[field][name].axes[1:], array.shape[1:], strict=True
    )
  }


def _common_sizes(
  site_name: str, field: str, sites: Sequence[_Site]
) -> dict[str, int]:
  """Find the size of every letter that holds all parts."""
  sizes: dict[str, int] = {}
  for part in sites:
    for letter, size in _sizes(field, part).items():
      known = sizes.setdefault(letter, size)
      if letter in _FREE:
        sizes[letter] = max(known, size)
      elif known != size:
        raise ValueError(
          f"{site_name} has {letter} = {known} in one run and {size} in "
          "another: they belong to different models."
        )
  return sizes
