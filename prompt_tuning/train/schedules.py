"""Learning-rate schedules in T5X's factor language.

A schedule is a function (step, base) -> learning rate. `step` counts optimizer
updates; if the run starts from a restored step, those of pre-training count,
too. `base` is the run's own base learning rate, so that the runs of a bank
share a schedule but not a learning rate.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from prompt_tuning.core import tree
from prompt_tuning.core.types import Array

Schedule = Callable[[Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class FactorSchedule:
  """A product of named factors, as in T5X's `create_learning_rate_scheduler`.

  With s = max(0, step - step_offset) and w = warmup_steps the factors are:

    constant                base
    linear_warmup           min(1, s / w)
    linear_decay            base * min(s / w, 1 + decay_factor * (w - s))
    rsqrt_decay             1 / sqrt(max(s, w))
    rsqrt_normalized_decay  sqrt(w / max(s, w))
    decay_every             decay_factor ** floor(s / steps_per_decay)
    cosine_decay            (1 + cos(pi * (max(0, s - w) / cycle mod 1))) / 2

  Attributes:
    factors: names separated by `*`, such as `constant * linear_warmup`;
      `linear_decay` contains `constant` and `linear_warmup` already.
    warmup_steps: w.
    decay_factor: see the table.
    steps_per_decay: see the table.
    steps_per_cycle: steps of one cosine cycle.
    step_offset: the step that counts as 0. With the restored step, a schedule
      starts with the run.
    min_learning_rate: smallest learning rate that the schedule returns.
  """

  factors: str = "constant"
  warmup_steps: int = 1_000
  decay_factor: float = 0.5
  steps_per_decay: int = 20_000
  steps_per_cycle: int = 100_000
  step_offset: int = 0
  min_learning_rate: float = 1e-8

  def __post_init__(self) -> None:
    for name in self._names():
      if name not in _FACTORS:
        raise ValueError(
          f"Unknown learning-rate factor {name!r} in {self.factors!r}."
          f"{tree.nearest(name, _FACTORS)} Known: {', '.join(_FACTORS)}."
        )
    for setting in ("warmup_steps", "steps_per_decay", "steps_per_cycle"):
      steps = getattr(self, setting)
      if steps <= 0:
        raise ValueError(f"{setting} must be positive; got {steps}.")

  def __call__(self, step: Array, base: Array) -> Array:
    """Compute the rate.

    Args:
      step: integer scalar.
      base: float32 scalar, the base learning rate.

    Returns:
      Float32 scalar.
    """
    steps = jnp.maximum(0, jnp.asarray(step) - self.step_offset)
    rate = jnp.ones((), jnp.float32)
    for name in self._names():
      rate = rate * _FACTORS[name](self, steps.astype(jnp.float32), base)
    return jnp.maximum(rate, self.min_learning_rate)

  def _names(self) -> list[str]:
    return [name.strip() for name in self.factors.split("*")]


def _cosine(schedule: FactorSchedule, steps: Array) -> Array:
  past = jnp.maximum(0.0, steps - schedule.warmup_steps)
  cycles = past / schedule.steps_per_cycle
  return 0.5 * (1.0 + jnp.cos(jnp.pi * (cycles % 1.0)))


_FACTORS: dict[str, Callable[[FactorSchedule, Array, Array], Array]] = {
  "constant": lambda f, s, base: base,
  "linear_warmup": lambda f, s, base: jnp.minimum(1.0, s / f.warmup_steps),
  "linear_decay": lambda f, s, base: (
    base
    * jnp.minimum(
      s / f.warmup_steps, 1.0 + f.decay_factor * (f.warmup_steps - s)
    )
  ),
  "rsqrt_decay": lambda f, s, base: (
    1.0 / jnp.sqrt(jnp.maximum(s, f.warmup_steps))
  ),
  "rsqrt_normalized_decay": lambda f, s, base: jnp.sqrt(
    f.warmup_steps / jnp.maximum(s, f.warmup_steps)
  ),
  "decay_every": lambda f, s, base: (
    f.decay_factor ** jnp.floor(s / f.steps_per_decay)
  ),
  "cosine_decay": lambda f, s, base: _cosine(f, s),
}
