"""Methods are found: in the package, in modules, behind entry points."""

import importlib.metadata
import sys
import types

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from prompt_tuning.core.delta import Delta
from prompt_tuning.jobs import identity
from prompt_tuning.tuners import bank, discovery
from prompt_tuning.tuners.initializers import InitializerContext
from prompt_tuning.tuners.method import Method


class Announced(Method):
  """What a package would announce."""

  required: int = 1

  @nn.compact
  def __call__(self, inputs):
    del inputs
    axes = nn.with_logical_partitioning(nn.initializers.zeros, ("layers",))
    return Delta(virtual=self.param("rows", axes, (2, 3), jnp.float32))


@pytest.fixture
def announce(monkeypatch):
  """Make a module importable, and an entry point name it."""

  def add(name, value, **attributes):
    module = types.ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)
    point = importlib.metadata.EntryPoint("x", value, discovery.ENTRY_POINTS)
    monkeypatch.setattr(
      importlib.metadata, "entry_points", lambda group: [point]
    )

  return add


def test_an_entry_point_names_a_class(announce):
  announce("plugin", "plugin:Announced", Announced=Announced)
  assert discovery.methods()["Announced"] is Announced


def test_an_entry_point_names_a_module(announce, monkeypatch):
  monkeypatch.setattr(Announced, "__module__", "plugin")
  announce("plugin", "plugin", Announced=Announced)
  assert discovery.methods()["Announced"] is Announced


def test_a_plugin_that_fails_is_named_and_disturbs_no_loading(announce):
  announce("plugin", "no_such_module:Announced")
  with pytest.raises(ValueError, match=r"entry point 'x'.*no_such_module"):
    discovery.methods()
  assert discovery.from_bundle_name("Prompt").__name__ == "Prompt"
  assert discovery.of_vectors(2, 3) is not None
  assert "LORA" in discovery.for_peft()


def test_a_module_that_ends_the_process_is_an_error(tmp_path, monkeypatch):
  (tmp_path / "ends.py").write_text("raise SystemExit(3)")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ValueError, match="cannot be imported: SystemExit: 3"):
    discovery.methods(["ends"])


def test_a_name_per_dimension():
  with pytest.raises(ValueError, match=r"shape \[2, 3\].*\('layers',\)"):
    bank.init_bank([Announced()], [jax.random.key(0)], [InitializerContext()])


def test_a_bundle_without_a_setting_is_of_another_version(monkeypatch):
  def refuse(self, **settings):
    raise TypeError("missing 1 required argument: 'required'")

  monkeypatch.setattr(discovery, "from_bundle_name", lambda name: Announced)
  monkeypatch.setattr(Announced, "__init__", refuse)
  with pytest.raises(ValueError, match=r"another version.*'required'"):
    identity.rebuild({"class": "x:Announced"})
