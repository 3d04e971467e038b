"""Keep compiled programs from one command to the next."""

import contextlib
import hashlib
import os
import pathlib
import platform

import jax
from jax._src import compilation_cache

_CPUS = pathlib.Path("/proc/cpuinfo")
_INSTRUCTIONS = ("flags", "Features")  # names of the lists of x86 and ARM
# Keep programs that took at least this many seconds to compile. JAX's own limit
# is one second; for a small model, only the step takes that long.
_SECONDS = "jax_persistent_cache_min_compile_time_secs"
_LEAST_SECONDS, _JAXS_OWN = 0.1, 1.0


def keep() -> str | None:
  """Keep programs in a folder for this kind of machine.

  `JAX_COMPILATION_CACHE_DIR` names another folder and
  `JAX_ENABLE_COMPILATION_CACHE=0` keeps nothing, as JAX documents.

  Returns:
    The folder; None if JAX already has one.
  """
  if jax.config.values[_SECONDS] == _JAXS_OWN:
    jax.config.update(_SECONDS, _LEAST_SECONDS)
  if jax.config.values["jax_compilation_cache_dir"] is None:
    home = pathlib.Path("~/.cache/prompt_tuning/compiled").expanduser()
    folder = home / f"jax-{jax.__version__}-{_machine()}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return str(folder)
  return None


def damaged(
  folder: str | os.PathLike[str], after: float, until: float
) -> list[pathlib.Path]:
  """Find programs that a process was killed while writing.

  JAX writes a file in place, and never over an old one. So every later process
  warns that it cannot read the partial file, and compiles again.

  Args:
    folder: JAX's folder.
    after: find programs written after this time, in seconds since 1970.
    until: find programs written until this time, in seconds since 1970.

  Returns:
    The files.
  """
  found = []
  for path in sorted(pathlib.Path(folder).glob("*-cache")):
    with contextlib.suppress(OSError):  # it is gone, or another user's
      if after < path.stat().st_mtime <= until and not _is_whole(path):
        found.append(path)
  return found


def _is_whole(path: pathlib.Path) -> bool:
  data = path.read_bytes()
  try:
    compilation_cache.decompress_executable(data)
  except Exception:  # any library may have packed it
    return False
  return True


def _machine() -> str:
  """Name the CPUs that can run a program compiled here.

  Machines may share a home folder. If the CPU's instructions are not listed, a
  program is only for the machine of this name.
  """
  lines = _CPUS.read_text().splitlines() if _CPUS.exists() else []
  known = platform.machine() + next(
    (line for line in lines if line.startswith(_INSTRUCTIONS)), platform.node()
  )
  return hashlib.sha256(known.encode()).hexdigest()[:8]
