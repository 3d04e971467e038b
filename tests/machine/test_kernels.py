"""XLA's own kernels for large steps on Intel; sums as exact as they may be."""

import json
import os
import subprocess
import sys

import jaxlib
import pytest

from prompt_tuning.machine import kernels

INTEL = "vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f avx512dq"
AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f"
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
  assert bool(kernels.step_options(positions, largest)) is special


@pytest.fixture
def ask_anew():
  kernels._measured_here.cache_clear()
  yield
  kernels._measured_here.cache_clear()


@pytest.mark.parametrize(
  ("version", "cpuinfo", "own"),
  [("0.10.2", INTEL, True), ("0.10.3", INTEL, False), ("0.10.2", AMD, False)],
)
def test_what_was_not_measured_is_left_alone(
  ask_anew, monkeypatch, tmp_path, version, cpuinfo, own
):
  described = tmp_path / "cpuinfo"
  described.write_text(cpuinfo)
  monkeypatch.setattr(kernels, "_CPUINFO", described)
  monkeypatch.setattr(jaxlib, "__version__", version)
  assert bool(kernels.step_options(*LARGE)) is own


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
