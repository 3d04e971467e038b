"""What `import prompt_tuning` gives, and what it costs."""

import ast
import pathlib
import runpy
import subprocess
import sys
import textwrap

import pytest

import prompt_tuning
from prompt_tuning import api
from prompt_tuning.data import custom
from prompt_tuning.tuners import initializers


def run(program):
  """Run a program in a process of its own; returns what it prints."""
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(program)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.split()


def test_importing_costs_nothing_until_a_name_is_used():
  before, after, again, slow = run("""
    import sys
    import prompt_tuning as pt
    assert {"Model", "load_model", "custom"} <= set(dir(pt))
    heavy = ("jax", "numpy", "flax", "optax", "tensorflow", "gin")
    print([name for name in heavy if name in sys.modules] or "nothing")
    pt.load_model
    print("jax" in sys.modules, "gin" in sys.modules)
    slow = ("grain", "orbax", "torch", "matplotlib", "tensorboardX")
    print([name for name in slow if name in sys.modules] or "nothing")
  """)
  assert (before, after, again) == ("nothing", "True", "False")
  assert slow == "nothing", "what only training needs"


@pytest.mark.parametrize(
  ("file", "error"),
  [("prompt_tuning/__init__.py", ImportError), ("setup.py", SystemExit)],
)
def test_an_old_python_is_told_in_one_sentence(file, error, monkeypatch):
  monkeypatch.setattr(sys, "version_info", (3, 10, 13))
  monkeypatch.setattr("platform.python_version", lambda: "3.10.13")
  with pytest.raises(error, match=r"needs Python 3\.11 or newer.*3\.10\.13"):
    runpy.run_path(str(pathlib.Path(__file__).parents[1] / file))


def test_every_name_is_what_it_says():
  assert prompt_tuning.load_model is api.load_model
  assert prompt_tuning.load_prompt is api.load_prompt
  assert prompt_tuning.from_vectors is api.from_vectors
  assert prompt_tuning.Model is api.Model
  assert prompt_tuning.custom is custom
  assert prompt_tuning.initializers is initializers
  for name in prompt_tuning.__all__:
    assert getattr(prompt_tuning, name) is not None


def test_type_checkers_see_the_same_names():
  source = pathlib.Path(prompt_tuning.__file__).read_text("utf-8")
  (block,) = (
    node
    for node in ast.parse(source).body
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
  )
  seen = {}
  for node in block.body:
    (alias,) = node.names
    assert alias.name == alias.asname, "or type checkers take it for private"
    seen[alias.name] = f"{node.module}.{alias.name}"
  named = prompt_tuning._NAMES.items()
  assert seen == {name: where.replace(":", ".") for name, where in named}


def test_a_misspelt_name_names_the_nearest():
  with pytest.raises(AttributeError, match="Did you mean 'load_model'"):
    prompt_tuning.load_modle  # noqa: B018
  with pytest.raises(ImportError, match="cannot import name 'NoSuchName'"):
    exec("from prompt_tuning import NoSuchName")
