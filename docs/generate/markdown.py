"""Docstrings and tables as Markdown."""

import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
_ENTRY = re.compile(r"(\*{0,2}[\w.]+(?:, \w+)*): (.*)")
# What Markdown, MyST and its formulas would take for their own.
_SPECIAL = re.compile(r"([\\<>*_$|\[\]{}#~^])")


class Section(NamedTuple):
  """A part of a docstring in Google's style.

  Attributes:
    name: `Args`, `Returns`, ...; empty for what stands before them.
    text: its lines, dedented.
  """

  name: str
  text: str


def escaped(text: str) -> str:
  """Escape what Markdown would read as marks, but for `code`."""
  parts = re.split(r"(`+[^`]*`+)", text)
  return "".join(
    part if part.startswith("`") else _SPECIAL.sub(r"\\\1", part)
    for part in parts
  )


def cell(text: str) -> str:
  """Write a table's cell: one line, without bars that would end it."""
  return " ".join(text.split()).replace("\\|", "|").replace("|", "\\|")


def code(text: str) -> str:
  """Write code inside a line."""
  ticks = "``" if "`" in text else "`"
  return f"{ticks}{text}{ticks}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Write a table."""
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def sections(docstring: str | None) -> list[Section]:
  """Divide a docstring into its sections."""
  found: list[tuple[str, list[str]]] = [("", [])]
  for line in inspect.cleandoc(docstring or "").splitlines():
    name = line.rstrip(":")
    if line.endswith(":") and name in _SECTIONS:
      found.append((name, []))
    elif found[-1][0] and line and not line.startswith(" "):
      found.append(("", [line]))
    else:
      found[-1][1].append(line)
  return [Section(name, _dedented(t)) for name, t in found]


def entries(docstring: str | None) -> dict[str, str]:
  """Read what `Args` or `Attributes` say: name -> meaning."""
  return {
    name: text
    for section in sections(docstring)
    if section.name in ("Args", "Attributes")
    for name, text in _entries(section.text).items()
  }


def summary(docstring: str | None) -> str:
  """Return a docstring's first sentence or line."""
  text = inspect.cleandoc(docstring or "")
  return " ".join(text.partition("\n\n")[0].split())


def from_docstring(docstring: str | None) -> str:
  """Write a docstring as Markdown."""
  lines: list[str] = []
  for section in sections(docstring):
    if not section.name:
      lines += [_prose(section.text), ""]
      continue
    items = _entries(section.text)
    lines += [f"**{section.name}**", ""]
    if not items:
      lines += [_prose(section.text), ""]
      continue
    lines += [
      f"- {code(name)}: {escaped(' '.join(text.split()))}"
      for name, text in items.items()
    ]
    lines.append("")
  return "\n".join(lines)


def _dedented(lines: Sequence[str]) -> str:
  return textwrap.dedent("\n".join(lines)).strip("\n")


def _entries(text: str) -> dict[str, str]:
  """Read `name: meaning` lines; empty where the text has another form."""
  made: dict[str, str] = {}
  name = ""
  for line in text.splitlines():
    match = _ENTRY.fullmatch(line)
    if match:
      name = match[1]
      made[name] = match[2]
    elif name and (line.startswith(" ") or not line):
      made[name] += f" {line.strip()}"
    else:
      return {}
  return made


def _prose(text: str) -> str:
  """Escape paragraphs; those that are indented are code."""
  made = []
  for paragraph in re.split(r"\n\s*\n", text):
    is_code = all(line.startswith("  ") for line in paragraph.splitlines())
    if paragraph and is_code:
      made.append(f"```text\n{textwrap.dedent(paragraph)}\n```")
    else:
      made.append(escaped(paragraph))
  return "\n\n".join(made)
