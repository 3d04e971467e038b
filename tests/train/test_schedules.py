"""Learning-rate factors against T5X's formulas in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.train.schedules import FactorSchedule

BASE, WARMUP, FACTOR, EVERY, CYCLE = 0.4, 100, 0.25, 150, 1_000
STEPS = [0, 1, 50, 99, 100, 101, 149, 150, 299, 300, 600, 1_099, 1_100, 1_350]

ORACLES = {
  "constant": lambda s: BASE,
  "linear_warmup": lambda s: min(1.0, s / WARMUP),
  "linear_decay": lambda s: BASE * min(s / WARMUP, 1.0 + FACTOR * (WARMUP - s)),
  "rsqrt_decay": lambda s: 1 / np.sqrt(max(s, WARMUP)),
  "rsqrt_normalized_decay": lambda s: np.sqrt(WARMUP / max(s, WARMUP)),
  "decay_every": lambda s: FACTOR ** (s // EVERY),
  "cosine_decay": lambda s: (
    0.5 + 0.5 * np.cos(np.pi * (max(0, s - WARMUP) / CYCLE % 1.0))
  ),
}


def _rates(factors, steps=STEPS, **settings):
  defaults = {
    "warmup_steps": WARMUP,
    "decay_factor": FACTOR,
    "steps_per_decay": EVERY,
    "steps_per_cycle": CYCLE,
  }
  schedule = FactorSchedule(factors, **(defaults | settings))
  rates = [schedule(jnp.int32(step), jnp.float32(BASE)) for step in steps]
  assert all(rate.dtype == jnp.float32 and not rate.shape for rate in rates)
  return np.array(rates)


@pytest.mark.parametrize(
  "factors",
  [
    *ORACLES,
    "constant * linear_warmup * rsqrt_decay",
    "constant*cosine_decay",
    "constant * decay_every * linear_warmup",
  ],
)
def test_factors(factors, tolerance):
  names = [name.strip() for name in factors.split("*")]

  rates = _rates(factors)

  expected = [np.prod([ORACLES[n](s) for n in names]) for s in STEPS]
  np.testing.assert_allclose(
    rates, np.maximum(expected, 1e-8), **tolerance["formula"]
  )


def test_offset_makes_a_schedule_relative():
  late = [1_100_000 + step for step in STEPS]

  shifted = _rates("constant * linear_warmup", late, step_offset=1_100_000)

  np.testing.assert_array_equal(shifted, _rates("constant * linear_warmup"))
  assert _rates("linear_warmup", [3], step_offset=5) == [np.float32(1e-8)]


def test_floor():
  assert _rates("linear_decay", [10_000]) == [np.float32(1e-8)]
  assert _rates("constant", [0], min_learning_rate=0.5) == [np.float32(0.5)]


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"factors": "constant * linear_warmpu"}, "Did you mean 'linear_warmup'"),
    ({"factors": ""}, "Unknown learning-rate factor ''"),
    ({"warmup_steps": 0}, "warmup_steps must be positive; got 0"),
  ],
)
def test_malformed_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    FactorSchedule(**settings)
