"""Keep the memory of one step's temporaries for the next, on a CPU.

XLA for CPU allocates a step's temporaries anew in every step. glibc takes such
blocks from the kernel and gives them back, and the kernel zeroes every page
again when it is first written: a seventh of a step (docs/performance_diary.md).
"""

import ctypes
import importlib.util
import os
import sys

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1


def is_exhausted(error: BaseException) -> bool:
  """Say whether a JAX error means that memory ran out."""
  text = str(error)
  return isinstance(error, RuntimeError) and (
    "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
  )


def keep() -> bool:
  """Keep freed memory in the process, if one CPU is the only device.

  Does nothing once JAX is imported: its threads then have pools of their own,
  which cannot hold large blocks. `PROMPT_TUNING_KEEP_MEMORY=0` in the
  environment switches it off.

  Returns:
    Whether the process now keeps freed memory.
  """
  if not _wanted():
    return False
  glibc = ctypes.CDLL(None)
  settings = (
    (_MMAP_MAX, 0),
    (_TRIM_THRESHOLD, _NEVER),
    (_ARENA_MAX, 1),
  )
  for setting in settings:
    glibc.mallopt(*setting)
  import jax

  # Otherwise a step may ask for its block before the last step's block is free,
  # and the process ends with two.
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  return True


def _wanted() -> bool:
  """Whether this process computes on one CPU device, and with glibc."""
  return (
    os.environ.get("PROMPT_TUNING_KEEP_MEMORY", "1") != "0"
    and "jax" not in sys.modules
    and sys.platform == "linux"
    and _one_cpu_device()
    and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
  )


def _one_cpu_device() -> bool:
  """Whether JAX will find one CPU and nothing else."""
  simulated = "xla_force_host_platform_device_count"
  if simulated in os.environ.get("XLA_FLAGS", ""):
    return False
  if "JAX_NUM_CPU_DEVICES" in os.environ:
    return False
  if platforms := os.environ.get("JAX_PLATFORMS"):
    return platforms == "cpu"
  plugins = ("libtpu", "jax_plugins")
  return not any(importlib.util.find_spec(name) for name in plugins)
