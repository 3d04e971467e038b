"""Random numbers in the place of what was learned, to hold it against."""

import jax

from prompt_tuning.core import algebra
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.types import Array
from prompt_tuning.tuners import interpret

# Letters of the dimensions, see `core.types`, over which there is a norm each.
_SEVERAL = "KLPC"


def of_same_norms(delta: Delta, key: Array) -> Delta:
  """Draw a delta that is as far from changing nothing as a given one.

  Args:
    delta: any.
    key: random key.

  Returns:
    The same sites. Of every layer, and of every vector of a prompt or prefix,
    the distance from the identity is kept and the direction is random.
  """
  drawn = {}
  for i, (name, array) in enumerate(algebra.named_leaves(delta).items()):
    drawn[name] = array
    if array.dtype == bool:
      continue
    field, leaf = name.split("/")[0], name.split("/")[-1]
    kind = algebra.KINDS[field].get(leaf) or algebra.KINDS[field][field]
    leading = len(kind.axes) - len(kind.axes.lstrip(_SEVERAL))
    flat = (array - kind.identity).reshape(*array.shape[:leading], -1)
    noise = interpret.random_control(jax.random.fold_in(key, i), flat)
    drawn[name] = kind.identity + noise.reshape(array.shape)
  return algebra.from_named_leaves(drawn)
