"""Compiled programs are kept from one command to the next."""

import hashlib
import pathlib
import platform

import jax

_CPUS = pathlib.Path("/proc/cpuinfo")
_INSTRUCTIONS = ("flags", "Features")  # where x86 and ARM list theirs
# Programs that took as long to compile are kept; reading one takes a tenth of a
# second at most. JAX keeps what took a second, which of a small model is one.
_SECONDS = "jax_persistent_cache_min_compile_time_secs"
_LEAST_SECONDS, _JAXS_OWN = 0.1, 1.0


def keep() -> None:
  """Keep programs in a folder of this kind of machine, unless JAX has its own.

  `JAX_COMPILATION_CACHE_DIR` names another folder and
  `JAX_ENABLE_COMPILATION_CACHE=0` keeps nothing, as JAX documents.
  """
  if jax.config.values[_SECONDS] == _JAXS_OWN:
    jax.config.update(_SECONDS, _LEAST_SECONDS)
  if jax.config.values["jax_compilation_cache_dir"] is None:
    home = pathlib.Path("~/.cache/prompt_tuning/compiled").expanduser()
    folder = home / f"jax-{jax.__version__}-{_machine()}"
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _machine() -> str:
  """Name what a program for this CPU may be run on: homes are shared.

  Where Linux does not list the CPU's instructions, and elsewhere, a program is
  for the machine of this name only.
  """
  lines = _CPUS.read_text().splitlines() if _CPUS.exists() else []
  known = platform.machine() + next(
    (line for line in lines if line.startswith(_INSTRUCTIONS)), platform.node()
  )
  return hashlib.sha256(known.encode()).hexdigest()[:8]
