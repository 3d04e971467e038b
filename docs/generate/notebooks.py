"""Notebooks from their texts: `python -m docs.generate.notebooks`.

`notebooks/*.md` is what people write and review; Colab opens the `.ipynb`
beside it. The site runs the texts (`make docs`).
"""

import pathlib
import re

import jupytext
import nbformat

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
# Where the project lives: badges open notebooks from there, and their first
# cells install it from there.
REPOSITORY = "OWNER/prompt-tuning"
_ADDRESS = re.compile(r"(github(?:\.com)?/)[\w.-]+/[\w.-]+(?=/blob/|\")")


def texts() -> list[pathlib.Path]:
  """List the texts of all notebooks."""
  return sorted(FOLDER.glob("*.md"))


def with_address(text: str) -> str:
  """Put the repository's address into a notebook's text."""
  return _ADDRESS.sub(rf"\g<1>{REPOSITORY}", text)


def notebook(text: str) -> str:
  """Make a notebook of its text, without outputs."""
  made = jupytext.reads(text, fmt="md:myst")
  made.nbformat_minor = 4  # cells of later versions have random names
  for cell in made.cells:
    cell.pop("id", None)
  return nbformat.writes(made, version=nbformat.NO_CONVERT) + "\n"


def write() -> None:
  """Write every notebook, and the address into its text."""
  for path in texts():
    text = with_address(path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    path.with_suffix(".ipynb").write_text(notebook(text), encoding="utf-8")


if __name__ == "__main__":
  write()
