"""Notebooks and their texts are the same; `make docs` runs them."""

import ast
import json

import pytest

jupytext = pytest.importorskip("jupytext")

from docs.generate import notebooks  # noqa: E402

TEXTS = notebooks.texts()


def test_there_are_some():
  assert [path.stem for path in TEXTS] == ["first_prompt", "own_data"]


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
