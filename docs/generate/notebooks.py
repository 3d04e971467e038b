"""Notebooks from their texts: `python -m docs.generate.notebooks`.

`notebooks/*.md` is what people write and review; Colab opens the `.ipynb`
beside it. The site runs the texts (`make docs`), some with shorter settings.
"""

import pathlib
import re
from collections.abc import Mapping

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
# Where the project lives: badges open notebooks from there, and their first
# cells install it from there.
REPOSITORY = "OWNER/prompt-tuning"
# Text -> what the site, and so CI, sets otherwise: name -> Python.
SHORT: Mapping[str, Mapping[str, str]] = {
  "scaling": {"STEPS": "80"},
  "ten_methods": {"STEPS": "100", "MODEL_RATE": "None"},
}
_ADDRESS = re.compile(r"(github(?:\.com)?/)[\w.-]+/[\w.-]+(?=/blob/|\")")


def texts() -> list[pathlib.Path]:
  """List the texts of all notebooks."""
  return sorted(FOLDER.glob("*.md"))


def with_address(text: str) -> str:
  """Put the repository's address into a notebook's text."""
  return _ADDRESS.sub(rf"\g<1>{REPOSITORY}", text)


def with_settings(text: str, settings: Mapping[str, str]) -> str:
  """Set names of a notebook otherwise, and say in the cell what they were.

  Args:
    text: of the notebook.
    settings: name -> Python; each stands once, at the start of a line.

  Raises:
    ValueError: a name does not stand there once.
  """
  for name, value in settings.items():
    text, count = re.subn(
      rf"^{name} = (.*)$",
      lambda found, n=name, v=value: f"{n} = {v}  # the notebook: {found[1]}",
      text,
      flags=re.MULTILINE,
    )
    if count != 1:
      raise ValueError(f"{name} is set {count} times; expected once.")
  return text


def with_links(text: str) -> str:
  """Let links lead to notebooks, and to pages that Colab can open.

  A notebook stands beside those that it names. Colab has nothing else of the
  repository, so links to other pages lead to GitHub.
  """
  text = re.sub(r"\]\((\w+)\.md\)", r"](\1.ipynb)", text)
  pages = f"https://github.com/{REPOSITORY}/blob/main/"
  return re.sub(r"\]\(\.\./([\w./#-]+)\)", rf"]({pages}\1)", text)


def notebook(text: str) -> str:
  """Make a notebook of its text, without outputs."""
  # Not at the top: the site needs neither.
  import jupytext
  import nbformat

  made = jupytext.reads(with_links(text), fmt="md:myst")
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
