"""What differs from a paper or from its code, as the docstrings say it."""

import ast
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import prompt_tuning
from docs.generate import markdown

_ROOT = pathlib.Path(prompt_tuning.__file__).parent
_DEVIATION = re.compile(r"Deviations?[^:.]*:\s*(.+)", re.S)


class Deviation(NamedTuple):
  """One paragraph.

  Attributes:
    module: path of the file, below the package.
    name: of the class or function; empty for the module.
    text: what differs.
  """

  module: str
  name: str
  text: str


def deviations() -> list[Deviation]:
  """Read every docstring of the package."""
  found = []
  for path in sorted(_ROOT.rglob("*.py")):
    module = path.relative_to(_ROOT).as_posix()
    for name, docstring in _docstrings(path):
      for paragraph in re.split(r"\n\s*\n", docstring):
        match = _DEVIATION.search(paragraph)
        if match:
          text = " ".join(match[1].split())
          found.append(Deviation(module, name, text))
  return found


def page() -> str:
  """Write the page of all deviations."""
  rows = [
    (
      markdown.code(d.module),
      markdown.code(d.name) if d.name else "",
      markdown.escaped(f"{d.text[:1].upper()}{d.text[1:]}"),
    )
    for d in deviations()
  ]
  head = ("module", "what", "where it differs from its source")
  return "\n".join(
    ["# Deviations", "", _INTRODUCTION, "", markdown.table(head, rows), ""]
  )


_INTRODUCTION = """\
Made from the docstrings, which name their source: a paper, or its public code.
[Numerics](../numerics.md) has what concerns all of it."""


def _docstrings(path: pathlib.Path) -> Iterator[tuple[str, str]]:
  tree = ast.parse(path.read_text(encoding="utf-8"))
  kinds = (ast.ClassDef, ast.FunctionDef)
  yield "", ast.get_docstring(tree) or ""
  for node in ast.walk(tree):
    if isinstance(node, kinds):
      yield node.name, ast.get_docstring(node) or ""
