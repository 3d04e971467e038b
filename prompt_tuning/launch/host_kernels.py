"""On Intel's CPUs, the kernels of XLA itself instead of YNNPACK's.

XLA for CPU hands products, sums and chains of elementwise operations to
YNNPACK. On Intel's processors with AVX-512 that is no faster than what XLA has
of its own, and every process prepares each kernel anew when it first runs: a
fifth of a warm start (docs/performance.md).
"""

import importlib.metadata
import os
import pathlib

from prompt_tuning.launch import host_memory

# Hand nothing to YNNPACK.
FLAG = "--xla_cpu_experimental_ynn_fusion_type="
# XLA ends the process at a flag that it does not know, and this one is not
# promised to stay: it is set for the versions that were measured.
_JAXLIB = "0.10."
_MOST_ONE_BY_ONE = 1 << 20
_CPUINFO = pathlib.Path("/proc/cpuinfo")


def choose() -> bool:
  """Set XLA's flag for this processor, where there is nothing but one CPU.

  Does nothing once JAX is imported. Flags of the user's own are kept, and
  where they name this one, it is left as it is:
  `XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT`
  hands products to YNNPACK again.

  Returns:
    Whether it was done.
  """
  given = os.environ.get("XLA_FLAGS", "")
  if not _wanted(given):
    return False
  os.environ["XLA_FLAGS"] = f"{given} {FLAG}".strip()
  return True


def step_options(largest: int) -> dict[str, str]:
  """Say how to compile a training step, beyond what `choose` did.

  XLA splits sums into windows of 32 before it adds them, by loops that take
  an eighth of a step of 512 tokens. Without, numbers are added one by one:
  exact to 2e-7 over a vocabulary and 2e-6 over a million, off by a third of a
  percent over 16 million, such as the squares of a table's gradient.

  Args:
    largest: elements of the largest leaf that trains.

  Returns:
    `compiler_options` of `jax.jit`.
  """
  chosen = FLAG in os.environ.get("XLA_FLAGS", "").split()
  if not chosen or largest > _MOST_ONE_BY_ONE:
    return {}
  return {"xla_disable_hlo_passes": "tree_reduction_rewriter"}


def _wanted(given: str) -> bool:
  """Whether this process computes on one CPU that this was measured on."""
  return (
    FLAG not in given
    and host_memory.alone_on_cpu()
    and importlib.metadata.version("jaxlib").startswith(_JAXLIB)
    and _CPUINFO.exists()
    and prefers_own(_CPUINFO.read_text())
  )


def prefers_own(cpuinfo: str) -> bool:
  """Whether XLA's own kernels are the faster ones.

  Args:
    cpuinfo: text of /proc/cpuinfo.

  Returns:
    True for Intel's processors with AVX-512; on AMD's, YNNPACK is faster.
  """
  return "GenuineIntel" in cpuinfo and " avx512f" in cpuinfo
