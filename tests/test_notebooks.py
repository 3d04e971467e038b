"""Notebooks and their texts are the same; `make docs` runs them."""

import ast
import json
import pathlib
import re

import pytest

jupytext = pytest.importorskip("jupytext")

from docs.generate import notebooks  # noqa: E402

TEXTS = notebooks.texts()


def test_there_are_some():
  assert [path.stem for path in TEXTS] == [
    *("first_prompt", "own_data", "ten_methods"),
  ]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_notebook_is_its_text(path):
  """`python -m docs.generate.notebooks` writes it anew."""
  text = path.read_text("utf-8")
  assert notebooks.with_address(text) == text
  written = path.with_suffix(".ipynb").read_text("utf-8")
  assert written == notebooks.notebook(text)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_it_starts_anywhere(path):
  """The first cell installs; no cell knows this machine; bounds are held."""
  cells = json.loads(path.with_suffix(".ipynb").read_text("utf-8"))["cells"]
  sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
  address = f"git+https://github.com/{notebooks.REPOSITORY}"
  assert f'%pip install -q "{address}"' in sources[0]
  assert any(source.count("assert ") for source in sources)
  for source in sources[1:]:
    ast.parse(source)
    assert '"/' not in source
  assert all(not cell.get("outputs") for cell in cells)


def test_shorter_settings_are_those_of_one_cell():
  """What the site sets otherwise, stands in the cell of parameters alone."""
  assert set(notebooks.SHORT) <= {path.stem for path in TEXTS}
  for path in TEXTS:
    settings = notebooks.SHORT.get(path.stem, {})
    short = notebooks.with_settings(path.read_text("utf-8"), settings)
    cells = json.loads(notebooks.notebook(short))["cells"]
    marked = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    assert len(marked) == bool(settings)
    for name, value in settings.items():
      assert f"{name} = {value}  # the notebook: " in "".join(
        marked[0]["source"]
      )
  with pytest.raises(ValueError, match="STEPS is set 0 times"):
    notebooks.with_settings("steps = 1", {"STEPS": "2"})


def test_numbers_of_methods_are_those_of_the_experiment():
  root = pathlib.Path(__file__).parents[1]
  found = json.loads((root / "experiments/methods/results.json").read_text())
  called = {"P-tuning": "p_tuning_mlp", "wayward prompt": "wayward"}
  text = (root / "notebooks/ten_methods.md").read_text("utf-8")
  rows = re.findall(r"^\| ([\w -]+) \| ([\d,]+) \| ([\d.]+) \|$", text, re.M)
  assert len(rows) == 10
  for name, trained, score in rows:
    row = found[called.get(name, name.lower().replace(" ", "_"))]
    assert (f"{row['trained']:,}", f"{row['mean']:.1f}") == (trained, score)
