"""Mixtures of any tasks, declared from gin or Python."""

import math
from collections.abc import Mapping, Sequence

from prompt_tuning.data import spec

# A mixture needs no seqio module of its own: its tasks have theirs.
_MODULE = "prompt_tuning.data.tasks.registry"


def declare(
  name: str,
  tasks: Sequence[str] | Mapping[str, float],
  temperature: float | None = None,
  limit: int | None = None,
) -> spec.MixtureSpec:
  """Declare that several tasks train together, under one name.

  Args:
    name: name of the mixture; no other task or mixture may have it.
    tasks: names, or name -> rate.
    temperature: T; each rate is multiplied by n^(1 / T), for n training
      examples of the task: proportional to n at T = 1, equal at infinity. None
      leaves the rates as they are.
    limit: maximum of n.

  Returns:
    The registered mixture.

  Raises:
    ValueError: no tasks, an unknown task, a repeated task, a bad rate or
      temperature, or a name that is taken.

  Source: Raffel et al. 2020, section 3.5.2; seqio's `mixing_rate_num_examples`.
  """
  if isinstance(tasks, str) or not tasks:
    raise ValueError(f"mixture.tasks must list tasks; got {tasks!r}.")
  if not isinstance(tasks, Mapping) and len(set(tasks)) < len(tasks):
    raise ValueError(f"mixture.tasks names a task twice: {', '.join(tasks)}.")
  rates = (
    dict(tasks) if isinstance(tasks, Mapping) else dict.fromkeys(tasks, 1.0)
  )
  for member, rate in rates.items():
    spec.task(member)
    if not (isinstance(rate, int | float) and 0 <= rate < math.inf):
      raise ValueError(f"The rate of {member} is {rate!r}; expected a number.")
  if temperature is not None and not temperature > 0:
    raise ValueError(
      f"mixture.temperature must be positive; got {temperature}."
    )
  if limit is not None and (temperature is None or limit < 1):
    raise ValueError(
      f"mixture.limit is {limit!r}; expected a positive number, together with "
      "mixture.temperature."
    )
  mixture = spec.MixtureSpec(name, rates, _MODULE, temperature, limit)
  spec.add(mixture)
  return mixture
