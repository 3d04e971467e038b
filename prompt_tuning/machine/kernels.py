"""Training steps on CPUs: the order of operations, and XLA's choice of kernels.

XLA for CPU starts operations as soon as it can, so that several may run at
once. So the backward pass computes again, for all layers at once, the values
that the layers did not keep, before it needs any of them. A step of tuning T5
small, 8 rows of 256, takes 998 MB then. The order of least memory takes 388 MB,
is as fast, and gives the same bits (docs/performance.md).

XLA for CPU hands products, sums and chains of elementwise operations to
YNNPACK. In large steps on Intel's processors with AVX-512, YNNPACK is slower
than XLA's own kernels. Every process also prepares each of YNNPACK's kernels
anew when it first runs (docs/performance_diary.md).
"""

import functools
import pathlib
from collections.abc import Mapping

import jax
import jaxlib

# XLA may change these options: set them only for the version we measured.
_JAXLIB = "0.10.2"
_CPUINFO = pathlib.Path("/proc/cpuinfo")

LEAST_MEMORY: Mapping[str, str] = {
  "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}
OWN_KERNELS: Mapping[str, str] = {
  # Use no kernels of YNNPACK.
  "xla_cpu_experimental_ynn_fusion_type": "",
  # XLA splits sums into windows of 32 before it adds them, by loops that take a
  # seventh of a step of 512 tokens. Without them, it adds numbers one by one.
  "xla_disable_hlo_passes": "tree_reduction_rewriter",
}

# With at least this many positions in a batch (prompts included), steps with
# XLA's own kernels are as fast or faster, and the first step starts nearly two
# seconds earlier.
_POSITIONS = 1472
# Largest trained leaf, in elements, for which sums one by one are exact: to
# 2e-6 over a million. Over a table's 16 million they are a third of a percent
# wrong.
_ELEMENTS = 1 << 20


def step_options(positions: int, largest: int) -> Mapping[str, str]:
  """Say how to compile a training step for this machine.

  Args:
    positions: positions computed at once: rows of a batch, or of a microbatch,
      times input tokens, with prompts.
    largest: elements of the largest leaf that trains, over all runs of a bank.

  Returns:
    `compiler_options` of `jax.jit`; empty if the device needs none.
  """
  if not _measured_compiler():
    return {}
  if positions < _POSITIONS or largest > _ELEMENTS or not _measured_here():
    return LEAST_MEMORY
  return {**LEAST_MEMORY, **OWN_KERNELS}


def _measured_compiler() -> bool:
  """Whether this is the compiler version that we measured."""
  return jax.default_backend() == "cpu" and jaxlib.__version__ == _JAXLIB


@functools.cache
def _measured_here() -> bool:
  """Whether this is a kind of processor that we measured."""
  return _CPUINFO.exists() and prefers_own(_CPUINFO.read_text())


def prefers_own(cpuinfo: str) -> bool:
  """Whether XLA's own kernels are faster in large steps.

  Args:
    cpuinfo: text of /proc/cpuinfo.

  Returns:
    True for Intel's processors with AVX-512. AMD's do well with YNNPACK; we
    have not measured others.
  """
  return "GenuineIntel" in cpuinfo and " avx512f" in cpuinfo
