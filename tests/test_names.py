"""Generic code names no tuning method, and `launch` holds only what parses."""

import ast
import pathlib
import re

import pytest

import prompt_tuning
from prompt_tuning.launch import main
from prompt_tuning.tuners import discovery
from prompt_tuning.tuners.method import name_of

PACKAGE = pathlib.Path(prompt_tuning.__file__).parent
# All but the methods themselves, and `api`, whose users have one by default.
GENERIC = (
  *("core", "machine", "prompting", "models", "data", "checkpoints", "train"),
  *("infer", "jobs", "plans", "cluster", "launch"),
)
A_FILE = "vectors in a file, a class of the same name"
A_PAPER = "the paper that a formula is from"
# (Module, what it may say) -> why.
ALLOWED = {
  ("checkpoints/peft.py", "Prompt"): A_FILE,
  ("checkpoints/prompts.py", "Prompt"): A_FILE,
  ("checkpoints/restore.py", "Prompt"): A_FILE,
  ("models/t5/sites.py", "LoRA"): A_PAPER,
  ("models/t5/sites.py", "IA3"): A_PAPER,
  ("models/t5/sites.py", "HyperFormer"): A_PAPER,
  ("launch/t5x_names.py", "Prompt"): "a class of the original's",
  ("jobs/train_job.py", "Prompt"): "an error's example of what TUNER may be",
}
# What parses for all commands, beside a module for each.
SHARED = (
  *("main", "command", "console", "flags", "configurables", "t5x_names"),
  *("gin_config", "gin_files", "gin_statements", "original_files"),
)
# Libraries of those who compute, and of data.
WORK = ("flax", "grain", "optax", "safetensors", "seqio", "tensorflow")


def modules(folder):
  return sorted((PACKAGE / folder).rglob("*.py"))


def imports(source):
  """List every name that a module imports, with its module."""
  found = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      found.append(node.module)
      found += [f"{node.module}.{alias.name}" for alias in node.names]
  return found


@pytest.fixture(scope="module")
def methods():
  """Those of the package; tests define more of them."""
  known = discovery.methods().values()
  return [m for m in known if m.__module__.startswith("prompt_tuning.")]


def named(source, methods):
  """List the methods' names that a text has; a library has one of them."""
  words = {m.__name__ for m in methods} | {name_of(m) for m in methods}
  return {
    word
    for word in words
    if re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", source)
  }


def test_generic_code_names_no_method(methods):
  found = {
    (path.relative_to(PACKAGE).as_posix(), word)
    for folder in GENERIC
    for path in modules(folder)
    for word in named(path.read_text(), methods)
  }
  assert found == set(ALLOWED)


def test_generic_code_imports_no_method(methods):
  own = {method.__module__ for method in methods}
  for folder in GENERIC:
    for path in modules(folder):
      assert not own & set(imports(path.read_text())), path


def test_such_names_would_be_found(methods):
  """The checks above can fail."""
  assert {m.__name__ for m in methods} >= {"Prompt", "LoRA", "IA3"}
  text = "from prompt_tuning.tuners import lora\nlora.LoRA()  # prompt tuning"
  assert named(text, methods) == {"LoRA", "prompt tuning"}
  assert named("Prompts, T5X's prompt-tuning, LoRAs", methods) == set()
  assert "prompt_tuning.tuners.lora" in imports(text)


def test_every_package_is_generic_or_has_a_reason_not_to_be():
  folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
  assert folders == {*GENERIC, "tuners", "t5x"}


def test_launch_holds_commands_flags_and_gin():
  commands = {module for module, _ in main.COMMANDS.values()}
  found = {path.stem for path in modules("launch")} - {"__init__"}
  assert found == commands | set(SHARED)


def test_commands_hand_their_work_over():
  """To `jobs`, `plans` and `cluster`, in plain values."""
  allowed = {"launch", "jobs", "plans", "cluster", "core"}
  for module, _ in main.COMMANDS.values():
    names = imports((PACKAGE / "launch" / f"{module}.py").read_text())
    ours = {n.split(".")[1] for n in names if n.startswith("prompt_tuning.")}
    assert ours <= allowed, module


def test_launch_does_no_work_itself():
  for path in modules("launch"):
    tops = {name.partition(".")[0] for name in imports(path.read_text())}
    assert not tops & set(WORK), path
