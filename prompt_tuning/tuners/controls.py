"""Random numbers in place of learned ones, as a control in reports."""

import jax

from prompt_tuning.core import algebra
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.types import Array
from prompt_tuning.tuners import interpret

# Letters of the dimensions, see `core.types`, over which there is a norm each.
_SEVERAL = "KLPC"


def of_same_norms(delta: Delta, key: Array) -> Delta:
  """Draw a random delta of the same size of change as a given one.

  Args:
    delta: any.
    key: random key.

  Returns:
    A delta with the same sites. Every layer, and every vector of a prompt or
    prefix, keeps its distance from the value that changes nothing. Its
    direction is random.
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
