"""Commands keep compiled programs, where JAX is not told otherwise."""

import os
import pathlib
import platform
import time

import jax
import pytest
from jax._src import compilation_cache

from prompt_tuning.launch import command
from prompt_tuning.machine import compiled_programs

NAME = "jax_compilation_cache_dir"
SECONDS = "jax_persistent_cache_min_compile_time_secs"


@pytest.fixture(autouse=True)
def as_before():
  before = {name: jax.config.values[name] for name in (NAME, SECONDS)}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.mark.parametrize(("jaxs", "ours"), [(1.0, 0.1), (0.0, 0.0), (5.0, 5.0)])
def test_programs_of_small_models_are_kept_unless_jax_is_told_otherwise(
  jaxs, ours
):
  jax.config.update(SECONDS, jaxs)
  compiled_programs.keep()
  assert jax.config.values[SECONDS] == ours


def test_a_folder_of_this_machine(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  jax.config.update(NAME, None)
  compiled_programs.keep()
  folder = pathlib.Path(jax.config.values[NAME])
  assert folder.parent == tmp_path / ".cache" / "prompt_tuning" / "compiled"
  assert jax.__version__ in folder.name


@pytest.fixture
def folder_on(monkeypatch, tmp_path):
  """Say where programs are kept on a machine that says this of its CPUs."""
  monkeypatch.setenv("HOME", str(tmp_path))

  def on(cpus, name="a"):
    file = tmp_path / "cpuinfo"
    file.unlink(missing_ok=True)
    if cpus is not None:
      file.write_text(cpus)
    monkeypatch.setattr(compiled_programs, "_CPUS", file)
    monkeypatch.setattr(platform, "node", lambda: name)
    jax.config.update(NAME, None)
    compiled_programs.keep()
    return jax.config.values[NAME]

  return on


X86 = "processor\t: 0\ncpu MHz\t\t: {}\nflags\t\t: fpu sse2 {}\n"
ARM = "processor\t: 0\nBogoMIPS\t: {}\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize("cpus", [X86, ARM])
def test_machines_share_programs_if_their_cpus_have_the_same_instructions(
  folder_on, cpus
):
  here = folder_on(cpus.format("1", "more"), "a")
  assert folder_on(cpus.format("2", "more"), "b") == here
  assert folder_on(cpus.format("1", ""), "a") != here


@pytest.mark.parametrize("cpus", [None, "cpu\t\t: POWER9\n"])
def test_unknown_cpus_share_no_programs_with_other_machines(folder_on, cpus):
  here = folder_on(cpus, "a")
  assert folder_on(cpus, "a") == here
  assert folder_on(cpus, "b") != here


def test_what_jax_was_told_stays(tmp_path):
  jax.config.update(NAME, str(tmp_path))
  compiled_programs.keep()
  assert jax.config.values[NAME] == str(tmp_path)


def test_half_a_program_is_deleted_at_the_next_start(tmp_path, monkeypatch):
  """JAX said for ever that it could not be read, and compiled again."""
  whole = compilation_cache.compress_executable(1_000 * b"program")
  contents = {"a-cache": whole, "b-cache": whole[:-9], "c-cache": whole[:-9]}
  for name, content in contents.items():
    (tmp_path / name).write_bytes(content)
    written = 1_000 if name < "c" else time.time()  # c is being written
    os.utime(tmp_path / name, (written, written))
  looked_at = []
  real = compiled_programs._is_whole
  monkeypatch.setattr(
    compiled_programs,
    "_is_whole",
    lambda p: looked_at.append(p.name) or real(p),
  )
  for _ in range(2):
    command._collect(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["a-cache", "c-cache", "checked"]
    assert looked_at == ["a-cache", "b-cache"], "each is looked at once"
  command._collect(str(tmp_path / "nowhere"))
