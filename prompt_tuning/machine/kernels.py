"""Training steps on CPUs: their order, and which of XLA's kernels compute them.

XLA for CPU starts operations as soon as it can, so that several may run at
once. In a step it then computes again what all layers did not keep, before it
needs any of it: a step of tuning T5 small, 8 rows of 256, takes 998 MB where
388 do. In the order of least memory it is as fast, and as exact to the bit
(docs/performance.md).

XLA for CPU hands products, sums and chains of elementwise operations to
YNNPACK. On Intel's processors with AVX-512 that is slower than what XLA has of
its own where a step is large, and every process prepares each of YNNPACK's
kernels anew when it first runs (docs/performance_diary.md).
"""

import functools
import pathlib
from collections.abc import Mapping

import jax
import jaxlib

# Options are not promised to stay: they are set for what was measured.
_JAXLIB = "0.10.2"
_CPUINFO = pathlib.Path("/proc/cpuinfo")

LEAST_MEMORY: Mapping[str, str] = {
  "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}
OWN_KERNELS: Mapping[str, str] = {
  # Hand nothing to YNNPACK.
  "xla_cpu_experimental_ynn_fusion_type": "",
  # XLA splits sums into windows of 32 before it adds them, by loops that take a
  # seventh of a step of 512 tokens. Without, numbers are added one by one.
  "xla_disable_hlo_passes": "tree_reduction_rewriter",
}

# Positions of a batch, prompts included, from which on no difference in steps
# shows above the noise, or they are faster; the first one is nearly two seconds
# earlier.
_POSITIONS = 1472
# Elements of a leaf that trains, up to which sums one by one are exact: to 2e-6
# over a million; over the 16 million of a table, off by a third of a percent.
_ELEMENTS = 1 << 20


def step_options(positions: int, largest: int) -> Mapping[str, str]:
  """Say how to compile a training step for this machine.

  Args:
    positions: computed at once: rows times input tokens, prompts included.
    largest: elements of the largest leaf that trains, of all runs of a bank.

  Returns:
    `compiler_options` of `jax.jit`; none but on a CPU that wants them.
  """
  if not _measured_compiler():
    return {}
  if positions < _POSITIONS or largest > _ELEMENTS or not _measured_here():
    return LEAST_MEMORY
  return {**LEAST_MEMORY, **OWN_KERNELS}


def _measured_compiler() -> bool:
  """Whether this is the compiler that all of this was measured with."""
  return jax.default_backend() == "cpu" and jaxlib.__version__ == _JAXLIB


@functools.cache
def _measured_here() -> bool:
  """Whether this is a processor that its own kernels were measured on."""
  return _CPUINFO.exists() and prefers_own(_CPUINFO.read_text())


def prefers_own(cpuinfo: str) -> bool:
  """Whether XLA's own kernels are the faster ones in large steps.

  Args:
    cpuinfo: text of /proc/cpuinfo.

  Returns:
    True for Intel's processors with AVX-512; others were not measured, or, as
    AMD's, do well with YNNPACK.
  """
  return "GenuineIntel" in cpuinfo and " avx512f" in cpuinfo
