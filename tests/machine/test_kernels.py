"""XLA's own kernels for large steps on Intel; sums as exact as they may be."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest

from prompt_tuning.machine import kernels

INTEL = "vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f avx512dq"
AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f"
KERNEL = np.random.default_rng(0).normal(0, 0.1, (32, 128)).astype(np.float32)
LARGE = 8 * 612, 100 * 512  # positions, elements

# A product, a softmax and long sums, beside their values in float64.
COMPUTE = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
def work(x, w):
  logits = x @ w
  some = w[:, :2048]
  return jax.nn.logsumexp(logits, axis=-1), jnp.sum(x * x), jnp.sum(some * some)
rng = np.random.default_rng(0)
x = rng.normal(size=(64, 512)).astype(np.float32)
w = (0.05 * rng.normal(size=(512, 32128))).astype(np.float32)
options = json.loads(sys.argv[1])
compiled = jax.jit(work, compiler_options=options).lower(x, w).compile()
wide_x, wide_w = x.astype(np.float64), w.astype(np.float64)
rows = np.log(np.exp(wide_x @ wide_w).sum(-1))
exact = rows, (wide_x**2).sum(), (wide_w[:, :2048]**2).sum()
pairs = zip(compiled(x, w), exact)
errors = [float(np.max(np.abs(found / right - 1))) for found, right in pairs]
text = compiled.as_text()
print(json.dumps([errors, "ynn" in text, "reduce-window" in text]))
"""


def _compute(options):
  # A process of its own: the tests' compiler may be set to optimise little.
  kept = {k: v for k, v in os.environ.items() if not k.startswith("XLA_")}
  done = subprocess.run(
    [sys.executable, "-c", COMPUTE, json.dumps(options)],
    env={**kept, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=True,
  )
  return json.loads(done.stdout)


@pytest.fixture
def measured(monkeypatch):
  monkeypatch.setattr(kernels, "_measured_here", lambda: True)


@pytest.mark.parametrize(
  ("cpuinfo", "own"),
  [
    (INTEL, True),
    ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2", False),
    (AMD, False),
    ("CPU implementer\t: 0x41\nFeatures\t: fp asimd", False),
  ],
)
def test_intel_with_avx512_has_them(cpuinfo, own):
  assert kernels.prefers_own(cpuinfo) is own


@pytest.mark.parametrize(
  ("positions", "largest", "special"),
  [
    (*LARGE, True),
    (8 * 184, 1 << 20, True),
    (8 * 176, 1 << 20, False),
    (8 * 184, (1 << 20) + 1, False),
  ],
)
def test_large_steps_that_train_little(measured, positions, largest, special):
  options = kernels.step_options(positions, largest)
  assert set(options) >= set(kernels.LEAST_MEMORY)
  assert (set(options) >= set(kernels.OWN_KERNELS)) is special


@pytest.fixture
def ask_anew():
  kernels._measured_here.cache_clear()
  yield
  kernels._measured_here.cache_clear()


@pytest.mark.parametrize(
  ("version", "cpuinfo", "expected"),
  [
    ("0.10.2", INTEL, {**kernels.LEAST_MEMORY, **kernels.OWN_KERNELS}),
    ("0.10.3", INTEL, {}),
    ("0.10.2", AMD, kernels.LEAST_MEMORY),
  ],
)
def test_what_was_not_measured_is_left_alone(
  ask_anew, monkeypatch, tmp_path, version, cpuinfo, expected
):
  described = tmp_path / "cpuinfo"
  described.write_text(cpuinfo)
  monkeypatch.setattr(kernels, "_CPUINFO", described)
  monkeypatch.setattr(jaxlib, "__version__", version)
  assert kernels.step_options(*LARGE) == expected


def _layers(x, scales):
  def layer(x, scale):
    inner = jnp.tanh(x @ KERNEL * scale[None])
    return x + jnp.exp(inner) * inner @ KERNEL.T

  keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
  for scale in scales:
    x = jax.checkpoint(layer, policy=keep)(x, scale)
  return jnp.sum(x * x)


def test_what_a_layer_computes_again_is_not_there_before_it_is_needed():
  x, scales = jnp.ones((256, 32)), jnp.full((8, 128), 0.1)
  sizes, values = [], []
  for options in ({}, kernels.LEAST_MEMORY):
    step = jax.jit(jax.grad(_layers, 1), compiler_options=dict(options))
    compiled = step.lower(x, scales).compile()
    sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    values.append(compiled(x, scales))
  assert sizes[1] < 0.8 * sizes[0], sizes
  assert np.array_equal(*values)


def test_the_compiler_knows_what_it_is_told():
  _, has_ynn, _ = _compute({})
  assert has_ynn
  ynn, windows = kernels.OWN_KERNELS.items()
  _, has_ynn, has_windows = _compute(dict([ynn]))
  assert not has_ynn
  assert has_windows
  errors, has_ynn, has_windows = _compute(dict([ynn, windows]))
  assert not has_ynn
  assert not has_windows
  rows, thousands, million = errors
  assert rows < 1e-6  # sums over a vocabulary
  assert thousands < 4e-6  # 32,768 of one sign, added one by one
  # The most that `step_options` lets train; over all of a table the error is
  # of another order, 3e-3, and the reason why such leaves are left out.
  assert million < 1e-4
