"""No block of the site escapes: a test runs it, parses it, or knows its words.

`tests/launch/test_documents.py` parses lines of `prompt-tuning`, `make wheel`
runs README's Python, `make docs` runs the cells of notebooks.
"""

import ast
import importlib.util
import json
import pathlib
import re
import shlex
from typing import NamedTuple

import pytest

from docs.generate import macros, notebooks
from tests.launch import test_documents

ROOT = pathlib.Path(__file__).parents[1]
PARSED = {
  "python": ast.parse,
  "json": json.loads,
  "gin": macros.statements,
}
PLAIN = ""  # what a program prints, and drawings
CELL = "{code-cell} ipython3"
# Of a shell: what needs no test, since it is not this project's.
OTHERS = {
  *("git", "cd", "hf", "mkdir", "cp", "export", "docker", "gcloud"),
}
A_COMMAND = re.compile(
  r"^\s*(?:\$|>>>|prompt-tuning|pip|python|make|import|FROM) "
  r"|^[\w./]+ = [@%\"'\d({\[]"  # gin
)


class Block(NamedTuple):
  """A fenced block of a page."""

  page: pathlib.Path
  language: str
  text: str


def site():
  """List the pages that docs/conf.py takes, without what it generates."""
  tree = ast.parse((ROOT / "docs/conf.py").read_text("utf-8"))
  (patterns,) = (
    ast.literal_eval(node.value)
    for node in tree.body
    if isinstance(node, ast.Assign)
    and ast.unparse(node.targets[0]) == "include_patterns"
  )
  found = {path for pattern in patterns for path in ROOT.glob(pattern)}
  return sorted(path for path in found if path.parent.name != "reference")


def blocks(page):
  """List the blocks of a page; fences of any kind and indentation."""
  found, fence = [], None
  for line in page.read_text("utf-8").splitlines():
    match = re.match(r"\s*(`{3,}|~{3,})(.*)", line)
    if fence is None and match:
      fence, language, lines = match[1], match[2].strip(), []
    elif fence is not None and match and match[1].startswith(fence):
      found.append(Block(page, language, "\n".join(lines)))
      fence = None
    elif fence is not None:
      lines.append(line)
  assert fence is None, f"{page}: a block has no end"
  return found


PAGES = site()
pages = pytest.mark.parametrize(
  "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


def test_every_page_is_one_that_tests_read():
  read = {*test_documents.DOCUMENTS, *notebooks.texts(), ROOT / "CHANGELOG.md"}
  assert set(PAGES) <= read
  assert len(PAGES) > 40


@pages
def test_no_block_is_made_by_indentation_alone(page):
  """Such a block has no language, and `blocks` does not see it."""
  assert indented(page.read_text("utf-8")) == []


def indented(text):
  """List the lines of blocks without a fence; lists may be indented."""
  found, fence, before, in_list = [], None, "", False
  for line in text.splitlines():
    match = re.match(r"\s*(`{3,}|~{3,}|---$)", line)
    if match and fence in (None, match[1]):
      fence = None if fence else match[1]
    elif fence is None:
      if re.match(r"\s*(?:[-*]|\d+\.) ", line):
        in_list = True
      elif re.match(r"\S", line):
        in_list = False
      if re.match(r" {4}\S", line) and not before.strip() and not in_list:
        found.append(line)
    before = line
  return found


@pages
def test_every_block_has_a_language_that_is_tested(page):
  for block in blocks(page):
    if block.language in PARSED:
      assert PARSED[block.language](block.text), block.text
    elif block.language == "sh":
      check_shell(block.text)
    elif block.language == PLAIN:
      assert not [x for x in block.text.splitlines() if A_COMMAND.match(x)]
    elif block.language == CELL:
      assert page in notebooks.texts()
    else:
      assert block.language == "{toctree}", block.language


def check_shell(text):
  """Whoever a line calls is known, and there."""
  for words in calls(text):
    while words and re.fullmatch(r"\w+=.*", words[0]):
      words.pop(0)
    if not words or words[0] in OTHERS:
      continue
    name = pathlib.PurePosixPath(words[0]).name
    if name == "pip":
      check_extras(words)
    elif re.fullmatch(r"python[\d.]*", name):
      check_module(words)
    else:
      # Both are held against what there is in test_documents.
      assert name in ("prompt-tuning", "make"), words


def calls(text):
  """Split a block into what is called, each a list of words."""
  for line in text.replace("\\\n", " ").splitlines():
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    words = []
    for word in lexer:
      if set(word) <= set(";&|"):
        yield words
        words = []
      else:
        words.append(word)
    yield words


def check_extras(words):
  setup = (ROOT / "setup.py").read_text("utf-8")
  for word in words:
    asked = re.search(r"(?:^\.|prompt-tuning)\[([\w,]+)\]", word)
    for extra in asked[1].split(",") if asked else ():
      assert f'\n  "{extra}": [' in setup, word


def check_module(words):
  """`-c` and modules of others are what they are; ours exist."""
  if words[1] != "-m":
    return
  package = words[2].split(".")[0]
  if package in ("experiments", "benchmarks", "docs", "prompt_tuning"):
    assert importlib.util.find_spec(words[2]), words[2]
  else:
    assert package in ("venv", "t5x", "pytest", "http"), words


def test_what_is_unknown_is_found(tmp_path):
  """The test can fail: each of these pages is refused."""
  page = tmp_path / "page.md"
  for text in (
    "```bash\nprompt-tuning train\n```",
    "```sh\nwget x\n```",
    "```sh\npip install '.[cuda]'\n```",
    "```sh\npython -m experiments.nothing\n```",
    "```\n$ prompt-tuning train\n```",
    "   ~~~\nimport prompt_tuning as pt\n~~~",
    "```json\n{\n```",
    "```python\nmodel.\n```",
    "```sh\nmake test",
    "```\nBATCH_SIZE = 8\n```",
  ):
    page.write_text(text)
    with pytest.raises((AssertionError, ValueError, SyntaxError)):
      test_every_block_has_a_language_that_is_tested(page)
  assert indented("Words:\n\n    prompt-tuning train\n") != []
  assert indented("- Words:\n\n      more\n\n```\n\n    a\n```\n") == []
