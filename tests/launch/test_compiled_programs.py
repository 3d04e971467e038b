"""Commands keep compiled programs, where JAX is not told otherwise."""

import pathlib

import jax
import pytest

from prompt_tuning.launch import compiled_programs

NAME = "jax_compilation_cache_dir"


@pytest.fixture(autouse=True)
def as_before():
  before = jax.config.values[NAME]
  yield
  jax.config.update(NAME, before)


def test_a_folder_of_this_machine(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  jax.config.update(NAME, None)
  compiled_programs.keep()
  folder = pathlib.Path(jax.config.values[NAME])
  assert folder.parent == tmp_path / ".cache" / "prompt_tuning" / "compiled"
  assert jax.__version__ in folder.name


def test_what_jax_was_told_stays(tmp_path):
  jax.config.update(NAME, str(tmp_path))
  compiled_programs.keep()
  assert jax.config.values[NAME] == str(tmp_path)
