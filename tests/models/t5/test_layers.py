"""Activations."""

import jax
import numpy as np

from prompt_tuning.models.t5 import layers


def _exact_gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_gelu_is_the_tanh_form(tolerance):
  x = np.linspace(-12, 12, 4801, dtype=np.float32)
  expected = _exact_gelu(x.astype(np.float64))
  np.testing.assert_allclose(layers.gelu(x), expected, **tolerance["formula"])


def test_gelu_is_no_farther_from_float64_than_jax():
  x = np.linspace(-8, 8, 4001, dtype=np.float32)
  exact = _exact_gelu(x.astype(np.float64))
  slope = np.gradient(_exact_gelu(np.linspace(-8, 8, 400_001)), 4e-5)[::100]

  def error(function):
    derivative = jax.vmap(jax.grad(function))(x)
    return np.abs(function(x) - exact).max(), np.abs(derivative - slope).max()

  ours, theirs = error(layers.gelu), error(jax.nn.gelu)
  assert ours[0] <= theirs[0]
  assert ours[1] <= theirs[1] + 1e-6
