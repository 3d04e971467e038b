"""T5X absent or of another version: one line that says what to do."""

import importlib
import sys

import pytest


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
  """Neither T5X nor what is built on it is imported yet, or stays so."""
  for name in list(sys.modules):
    if name.split(".")[0] == "t5x" or name.startswith("prompt_tuning.t5x"):
      monkeypatch.delitem(sys.modules, name)
  yield
  for name in list(sys.modules):
    if name.split(".")[0] == "t5x" or name.startswith("prompt_tuning.t5x"):
      del sys.modules[name]


def message():
  with pytest.raises(ImportError) as info:
    importlib.import_module("prompt_tuning.t5x")
  return str(info.value)


def write(folder, name, text=""):
  """Write a module, and the packages that it is in."""
  *packages, module = name.split(".")
  for package in packages:
    folder = folder / package
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
  (folder / f"{module}.py").write_text(text)


class Nowhere:
  """Finds no T5X, also where it is installed."""

  @staticmethod
  def find_spec(name, path=None, target=None):
    if name == "t5x":
      raise ModuleNotFoundError("No module named 't5x'", name=name)


def test_absent(monkeypatch):
  monkeypatch.setattr(sys, "meta_path", [Nowhere, *sys.meta_path])
  assert message() == (
    "T5X is not installed. Install T5X at commit cc342d4, as docs/t5x.md shows."
  )


def test_a_module_is_missing(monkeypatch, tmp_path):
  write(tmp_path, "t5x.models")
  monkeypatch.syspath_prepend(tmp_path)
  assert message().startswith("T5X needs the module t5x.examples, but it is")


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("", "t5x.examples.t5.network.T5Config has no emb_dim, dtype. "),
    (
      "def T5Config(emb_dim, dtype): ...\n"
      "class Transformer:\n"
      "  def __init__(self, config): ...\n"
      "  def encode(self, encoder_input_tokens, enable_dropout): ...\n",
      "t5x.examples.t5.network.Transformer.encode has no encoder_segment_ids. ",
    ),
  ],
)
def test_another_version(monkeypatch, tmp_path, text, expected):
  write(tmp_path, "t5x.examples.t5.network", text)
  monkeypatch.syspath_prepend(tmp_path)
  found = message()
  file = tmp_path / "t5x" / "examples" / "t5" / "network.py"
  assert found.startswith(f"T5X in {file} is a version that this project")
  assert expected in found
  assert found.endswith("as docs/t5x.md shows.")
  assert "\n" not in found
