"""Notebooks and their texts are the same; `make docs` runs them."""

import ast
import json
import pathlib
import re
import sys
import types
import zipfile

import pytest

jupytext = pytest.importorskip("jupytext")

import nbformat  # noqa: E402

from docs.generate import notebooks  # noqa: E402
from prompt_tuning.launch import main  # noqa: E402

ANSWERS = ("entailment", "not_entailment")

TEXTS = notebooks.texts()


def test_there_are_some():
  assert [path.stem for path in TEXTS] == [
    *("first_prompt", "own_data", "scaling", "superglue", "ten_methods"),
    "what_a_prompt_knows",
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
  # The second form has extras; either installs from the one address.
  form = r'%pip install -q "(prompt-tuning\[[\w,]+\] @ )?' + re.escape(address)
  assert re.search(form + '"', sources[0])
  assert any(source.count("assert ") for source in sources)
  for source in sources[1:]:
    ast.parse(source)
    assert '"/' not in source
  assert all(not cell.get("outputs") for cell in cells)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_links_lead_somewhere_from_colab_too(path):
  """Colab has the notebooks of the folder, and no other file beside them."""
  root = notebooks.FOLDER.parent
  cells = json.loads(path.with_suffix(".ipynb").read_text("utf-8"))["cells"]
  text = "".join("".join(cell["source"]) for cell in cells)
  links = re.findall(r"\]\(([^)]+)\)", text)
  pages = f"https://github.com/{notebooks.REPOSITORY}/blob/main/"
  assert links
  for link in links:
    if link.startswith(pages):
      name = link.removeprefix(pages).partition("#")[0]
      assert (root / name).exists(), link
    elif not link.startswith("https://colab.research.google.com/"):
      assert link.endswith(".ipynb")
      assert (notebooks.FOLDER / link).exists(), link


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_without_a_network_it_says_what_to_do(path, monkeypatch):
  """`%pip` prints what it likes and raises nothing."""
  transform = pytest.importorskip("IPython.core.inputtransformer2")
  cells = json.loads(path.with_suffix(".ipynb").read_text("utf-8"))["cells"]
  first = next(c for c in cells if c["cell_type"] == "code")
  python = transform.TransformerManager().transform_cell(
    "".join(first["source"])
  )
  asked = []
  shell = types.SimpleNamespace(run_line_magic=lambda *args: asked.append(args))
  monkeypatch.setitem(sys.modules, "prompt_tuning", None)
  with pytest.raises(SystemExit, match=r"`pip install \.` in a checkout"):
    exec(python, {"get_ipython": lambda: shell})
  assert [name for name, *_ in asked] == ["pip"]


def test_data_that_cannot_be_downloaded_is_one_sentence(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  nowhere = (tmp_path / "RTE.zip").as_uri()
  text = (notebooks.FOLDER / "superglue.ipynb").read_text("utf-8")
  (cell,) = [
    source
    for source in ("".join(c["source"]) for c in json.loads(text)["cells"])
    if "urlretrieve" in source
  ]
  with pytest.raises(SystemExit, match=r"Is there a network\?"):
    exec(cell, {"DATA": nowhere})


@pytest.fixture
def public_files(tmp_path):
  """What `superglue` downloads: a T5X checkpoint, and RTE's official file."""
  folder = tmp_path / "public"
  folder.mkdir()
  words = ["convert", "embedded:ladder_1", str(folder / "checkpoint_9000")]
  assert main.main([*words, "--to", "t5x"]) == 0
  with zipfile.ZipFile(folder / "RTE.zip", "w") as archive:
    for split, count in (("train", 24), ("val", 6), ("test", 2)):
      rows = [
        {"premise": f"Dog {k} sleeps.", "hypothesis": "A dog.", "idx": k}
        | ({} if split == "test" else {"label": ANSWERS[k % 2]})
        for k in range(count)
      ]
      lines = "".join(json.dumps(row) + "\n" for row in rows)
      archive.writestr(f"RTE/{split}.jsonl", lines)
  return {
    "CHECKPOINT": repr(str(folder / "checkpoint_9000")),
    "VOCABULARY": repr("embedded:ladder_1"),
    "DATA": repr((folder / "RTE.zip").as_uri()),
    "STEPS": "2",
    "PROMPT_LENGTH": "4",
    "BATCH_SIZE": "4",
  }


def test_superglue_runs_on_files_of_the_same_form(
  public_files, tmp_path, monkeypatch
):
  """A small model and invented rows in place of what it downloads."""
  nbclient = pytest.importorskip("nbclient")
  root = pathlib.Path(__file__).parents[1]
  monkeypatch.setenv("PYTHONPATH", str(root))
  text = (root / "notebooks/superglue.md").read_text("utf-8")
  short = notebooks.notebook(notebooks.with_settings(text, public_files))
  ran = nbclient.NotebookClient(
    nbformat.reads(short, as_version=4),
    timeout=600,
    resources={"metadata": {"path": str(tmp_path)}},
  ).execute()
  shown = [o for c in ran.cells for o in c.get("outputs", ()) if "data" in o]
  assert any("image/png" in output["data"] for output in shown)
  assert (tmp_path / "rte-prompt/delta/delta.safetensors").is_file()


def test_what_a_size_needs_is_what_the_plans_say():
  """The table of slices, and the numbers that are drawn, of v5p."""
  root = pathlib.Path(__file__).parents[1]
  text = (root / "notebooks/scaling.md").read_text("utf-8")
  found = json.loads((root / "experiments/plans/results.json").read_text())
  rows = re.findall(r"^\| (\w+) \|((?: \d+ \|){6})$", text, re.M)
  assert [size for size, _ in rows] == ["small", "base", "large", "xl", "xxl"]
  for size, cells in rows:
    assert [int(cell) for cell in cells.split("|")[:-1]] == [
      found[f"{size}/{method}/{chip}"]["chips"]
      for method in ("prompt", "model")
      for chip in ("v5e", "v5p", "v6e")
    ]
  for name, method in (("prompt", "prompt"), ("whole_model", "model")):
    (drawn,) = re.findall(rf"^{name} = \[(.*)\]$", text, re.M)
    totals = [
      next(p for p in found[f"{size}/{method}/v5p"]["plans"] if p["fits"])
      for size, _ in rows
    ]
    assert drawn == ", ".join(f"{p['total'] / 2**30:.2f}" for p in totals)


def test_numbers_of_other_experiments_are_theirs():
  """The READMEs say the same in the same words, and are tested elsewhere."""
  folder = pathlib.Path(__file__).parents[1]
  for notebook, experiment, numbers in (
    ("scaling", "figure3a_length", ("0.7", "36.1", "83.5", "86.8")),
    ("what_a_prompt_knows", "spot", ("0.49", "0.36", "7 of 14", "1.75")),
    ("what_a_prompt_knows", "table3_ensembling", ("79.3", "94.7", "94.9")),
  ):
    text = (folder / f"notebooks/{notebook}.md").read_text("utf-8")
    said = (folder / f"experiments/{experiment}/README.md").read_text("utf-8")
    said += (folder / f"experiments/{experiment}/table.md").read_text("utf-8")
    for number in numbers:
      assert number in text
      assert number in said


def test_shorter_settings_are_those_of_one_cell():
  """What the site sets otherwise, stands in the cell of parameters alone."""
  assert set(notebooks.SHORT) <= {path.stem for path in TEXTS}
  for path in TEXTS:
    settings = notebooks.SHORT.get(path.stem, {})
    short = notebooks.with_settings(path.read_text("utf-8"), settings)
    cells = json.loads(notebooks.notebook(short))["cells"]
    marked = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    assert len(marked) == 1 or not settings
    for name, value in settings.items():
      source = "".join(marked[0]["source"])
      assert f"{name} = {value}  # the notebook: " in source
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
