"""XLA's own kernels on Intel, YNNPACK's elsewhere; sums as exact as before."""

import json
import os
import subprocess
import sys

import pytest

from prompt_tuning.launch import host_kernels

CHOOSE = """
import os
from prompt_tuning.launch import host_kernels
host_kernels.prefers_own = lambda _: {prefers}
print(host_kernels.choose())
print(os.environ.get("XLA_FLAGS", ""))
"""
# A product, a softmax and long sums, beside their values in float64.
COMPUTE = """
import json
import jax, jax.numpy as jnp, numpy as np
def work(x, w):
  logits = x @ w
  return jax.nn.logsumexp(logits, axis=-1), jnp.sum(x * x), jnp.sum(w * w)
rng = np.random.default_rng(0)
x = rng.normal(size=(64, 512)).astype(np.float32)
w = (0.05 * rng.normal(size=(512, 32128))).astype(np.float32)
compiled = jax.jit(work).lower(x, w).compile()
wide_x, wide_w = x.astype(np.float64), w.astype(np.float64)
rows = np.log(np.exp(wide_x @ wide_w).sum(-1))
exact = rows, (wide_x**2).sum(), (wide_w**2).sum()
pairs = zip(compiled(x, w), exact)
errors = [float(np.max(np.abs(found / right - 1))) for found, right in pairs]
print(json.dumps([errors, "ynn" in compiled.as_text()]))
"""


def _run(program, **environment):
  kept = {k: v for k, v in os.environ.items() if not k.startswith("XLA_")}
  kept.pop("JAX_NUM_CPU_DEVICES", None)
  done = subprocess.run(
    [sys.executable, "-c", program],
    env={**kept, "JAX_PLATFORMS": "cpu", **environment},
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.splitlines()


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


def test_flags_of_the_user_stay_in_front():
  mine = "--xla_cpu_multi_thread_eigen=true"
  done, flags = _run(CHOOSE.format(prefers=True), XLA_FLAGS=mine)
  assert (done, flags) == ("True", f"{mine} {host_kernels.FLAG}")


@pytest.mark.parametrize("name", [host_kernels.FLAG + "X", "elsewhere"])
def test_left_alone(name):
  """By a flag of the user's own, and on processors that want YNNPACK."""
  given = name if name.startswith("--") else ""
  prefers = name.startswith("--")
  found = _run(CHOOSE.format(prefers=prefers), XLA_FLAGS=given)
  assert found == ["False", given]


def test_a_process_that_has_jax_is_left_alone():
  program = "import jax" + CHOOSE.format(prefers=True)
  assert _run(program) == ["False", ""]


def test_long_sums_stay_exact_without_ynnpack():
  """One by one, 16 million squares would be off by a third of a percent."""
  (found,) = _run(COMPUTE, XLA_FLAGS=host_kernels.FLAG)
  errors, has_ynn = json.loads(found)
  assert not has_ynn
  assert max(errors) < 1e-6


def test_a_step_adds_one_by_one_where_nothing_large_trains(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", f"--other=1 {host_kernels.FLAG}")
  assert host_kernels.step_options(100 * 4096)
  assert not host_kernels.step_options(32128 * 512)


@pytest.mark.parametrize("flags", ["", host_kernels.FLAG + "X"])
def test_a_step_is_left_alone_with_ynnpack(monkeypatch, flags):
  monkeypatch.setenv("XLA_FLAGS", flags)
  assert not host_kernels.step_options(100 * 512)


def test_sums_one_by_one_are_exact_over_a_vocabulary(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", host_kernels.FLAG)
  options = host_kernels.step_options(100 * 512)
  changed = COMPUTE.replace(
    "jax.jit(work)", f"jax.jit(work, compiler_options={options})"
  ).replace(
    "print(", 'assert "reduce-window" not in compiled.as_text()\nprint('
  )
  (found,) = _run(changed, XLA_FLAGS=host_kernels.FLAG)
  rows, _, whole_table = json.loads(found)[0]
  assert rows < 1e-6
  assert whole_table > 1e-6  # why tables that train are left out
