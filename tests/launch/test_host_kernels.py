"""XLA's own kernels for large steps on Intel; sums as exact as they may be."""

import json
import os
import subprocess
import sys

import pytest

from prompt_tuning.launch import host_kernels

# A product, a softmax and long sums, beside their values in float64.
COMPUTE = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
def work(x, w):
  logits = x @ w
  return jax.nn.logsumexp(logits, axis=-1), jnp.sum(x * x), jnp.sum(w * w)
rng = np.random.default_rng(0)
x = rng.normal(size=(64, 512)).astype(np.float32)
w = (0.05 * rng.normal(size=(512, 32128))).astype(np.float32)
options = json.loads(sys.argv[1])
compiled = jax.jit(work, compiler_options=options).lower(x, w).compile()
wide_x, wide_w = x.astype(np.float64), w.astype(np.float64)
rows = np.log(np.exp(wide_x @ wide_w).sum(-1))
exact = rows, (wide_x**2).sum(), (wide_w**2).sum()
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
  monkeypatch.setattr(host_kernels, "_measured_here", lambda: True)


@pytest.mark.parametrize(
  ("cpuinfo", "own"),
  [
    ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f avx512dq", True),
    ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2", False),
    ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f", False),
    ("CPU implementer\t: 0x41\nFeatures\t: fp asimd", False),
  ],
)
def test_intel_with_avx512_has_them(cpuinfo, own):
  assert host_kernels.prefers_own(cpuinfo) is own


@pytest.mark.parametrize(
  ("positions", "largest", "special"),
  [
    (8 * 612, 100 * 512, True),
    (2 * 64, 100 * 512, False),
    (8 * 612, 32128 * 512, False),
  ],
)
def test_large_steps_that_train_little(measured, positions, largest, special):
  assert bool(host_kernels.step_options(positions, largest)) is special


def test_other_machines_are_left_alone(monkeypatch):
  monkeypatch.setattr(host_kernels, "_measured_here", lambda: False)
  assert not host_kernels.step_options(8 * 612, 100 * 512)


def test_the_compiler_knows_what_it_is_told(measured):
  errors, has_ynn, has_windows = _compute(
    host_kernels.step_options(8 * 612, 100 * 512)
  )
  assert not has_ynn
  assert not has_windows
  rows, small, _ = errors
  assert rows < 1e-6  # sums over a vocabulary
  assert small < 4e-6  # 32,768 of one sign, added one by one
  # Over all of a table they may be less exact: why such leaves are left out.
