"""The generated reference: nothing of the code is missing in it."""

import ast
import functools
import inspect
import json
import pathlib
import re

import pytest

import prompt_tuning
from docs.generate import (
  api,
  deviations,
  flags,
  macros,
  markdown,
  pictures,
  tasks,
)
from prompt_tuning.data import spec
from prompt_tuning.launch import main, t5x_names

ROOT = pathlib.Path(__file__).parents[1]
CATALOGUE = (ROOT / "docs/catalogue.md").read_text("utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


# An example, or half of a sentence, is no meaning.
TOO_LITTLE = re.compile(
  r"such as |of |or |that |in the |by default |None: |\d|[^ ]*$"
)


def a_word(text):
  """Whether a meaning says more than a letter of a formula."""
  return re.search(r"[a-z]{3}", text)


@pytest.fixture(scope="module")
def commands_page():
  return flags.page()


@pytest.mark.parametrize("command", list(flags.commands()), ids=" ".join)
def test_every_flag_is_explained(command, commands_page):
  found = [f for parser in flags.parsers(command) for f in flags.flags(parser)]
  assert found
  title = f"## prompt-tuning {' '.join(command)}\n"
  section = commands_page.split(title)[1].split("\n## ")[0]
  for flag in found:
    assert a_word(flag.meaning), flag
    assert not TOO_LITTLE.match(flag.meaning), flag
    for name in flag.names:
      assert f"`{name}`" in section


def test_flags_are_those_that_the_sources_add():
  """Counted by another way: text of the modules that add them."""
  shown = {
    name.split()[0]
    for command in flags.commands()
    for parser in flags.parsers(command)
    for flag in flags.flags(parser)
    for name in flag.names
    if name.startswith("--")
  }
  added = set()
  for folder in ("launch", "cluster"):
    for path in (ROOT / "prompt_tuning" / folder).glob("*.py"):
      for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and node.args:
          called = getattr(node.func, "attr", getattr(node.func, "id", ""))
          value = getattr(node.args[0], "value", None)
          if called in ("add", "add_argument") and str(value).startswith("--"):
            added.add(value)
  assert shown == added
  assert len(shown) > 60


def test_every_command_has_a_section(commands_page):
  sections = re.findall(r"^## prompt-tuning (\w+)", commands_page, re.M)
  assert list(dict.fromkeys(sections)) == list(main.COMMANDS)


def test_every_macro_is_explained():
  page, known = macros.page(), macros.known()
  text = "\n".join(p.read_text("utf-8") for p in (ROOT / "gin").rglob("*.gin"))
  names = set(re.findall(r"^([A-Z][A-Z0-9_]+) *=", text, re.M))
  found = macros.macros()
  assert found.keys() == names
  assert len(names) > 100
  meanings = {name: macro.meaning(known) for name, macro in found.items()}
  assert [name for name, text in meanings.items() if not a_word(text)] == []
  little = {n: m for n, m in meanings.items() if TOO_LITTLE.match(m)}
  assert little == {}
  for name in names:
    assert page.count(f"| `{name}` |") == 1 + (name in t5x_names.needless())


def test_settings_that_messages_tell_to_change_are_there():
  """What to set, raise or lower is a macro, or of the environment."""
  known = {*macros.macros(), *environment(), "AWS_PROFILE"}
  advice = re.compile(r"\b(?i:set|raise|lower) ([A-Z]{2}[A-Z_]+)\b")
  asked = {
    name: path.name
    for path in (ROOT / "prompt_tuning").rglob("*.py")
    for text in texts(path)
    for name in advice.findall(text)
  }
  assert len(asked) > 20
  assert {name: file for name, file in asked.items() if name not in known} == {}


def texts(path):
  """Strings of a module, as they are when adjacent ones are joined."""
  for node in ast.walk(ast.parse(path.read_text("utf-8"))):
    if isinstance(node, ast.JoinedStr):
      parts = [getattr(part, "value", "") for part in node.values]
      yield "".join(part for part in parts if isinstance(part, str))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      yield node.value


def environment():
  """Variables of the environment that documents explain."""
  pages = "".join(page.read_text("utf-8") for page in DOCUMENTS)
  return re.findall(r"\b([A-Z]{2}[A-Z_]+)=", pages)


def test_a_macro_has_t5xs_name():
  page = macros.page()
  for macro, olds in t5x_names.old_names().items():
    (row,) = re.findall(rf"^\| `{macro}` \| .*", page, re.M)
    for old in olds:
      assert f"`{old}`" in row
  (row,) = re.findall(r"^\| `MODEL_DIR` \| .*", page, re.M)
  assert row.endswith("| same |")


def test_python_names_and_tasks_are_there():
  page = api.page()
  for name in prompt_tuning.__all__:
    assert f"\n## pt.{name}\n" in page
  assert "### Model.with_tuned" in page
  listed = tasks.page()
  for name in spec.names():
    assert f"`{name}`" in listed or spec.get(name).log_examples, name


def test_defaults_are_those_of_the_code():
  """Numbers and texts, as Python writes them."""
  signatures = re.findall(
    r"^##+ (?:pt\.)?([\w.]+)\n\n```python\n(.*?)^```", api.page(), re.M | re.S
  )
  checked = set()
  for name, text in signatures:
    try:
      value = functools.reduce(getattr, name.split("."), prompt_tuning)
    except AttributeError:  # a method of a class in a module
      continue
    for parameter in inspect.signature(value).parameters.values():
      if type(parameter.default) in (int, float, str):
        shown = (
          rf"^  {parameter.name}: .* = {re.escape(repr(parameter.default))},$"
        )
        assert re.search(shown, text, re.M), (name, parameter)
        checked.add(parameter.default)
  assert {0.1, 128, "generation"} <= checked


def test_every_method_is_in_the_catalogue():
  shown = re.findall(r"<!-- settings: (\w+) -->", CATALOGUE)
  assert sorted(shown) == list(api.methods())
  for kind in api.methods().values():
    for row in api.settings(kind).splitlines()[2:]:
      assert not TOO_LITTLE.match(row.split(" | ")[2]), row
  files = {f"methods/{p.name}" for p in (ROOT / "gin/methods").glob("*.gin")}
  assert files <= set(re.findall(r"--gin_file=([\w/.]+)", CATALOGUE))
  for section in CATALOGUE.split("\n## ")[1:]:
    for part in ("$$", "(pictures/", "- trains: ", "- gin: `", "- oracle: "):
      assert part in section, section.splitlines()[0]
  drawn = re.findall(r"\(pictures/(\w+)\.svg\)", CATALOGUE)
  assert sorted(drawn) == sorted(pictures.PICTURES)


def test_the_catalogue_counts_parameters_as_methods_do():
  """The guide's table has the same formula for each gin file."""
  guide = (ROOT / "docs/methods.md").read_text("utf-8")
  rows = re.findall(r"^\| .* \| `(methods/.*)` \| .* \| (.*) \|$", guide, re.M)
  counted = dict(rows)
  assert len(counted) > 20
  shown = re.findall(
    r"^- trains: (.*?)(?:;.*)?\n- gin: `--gin_file=(methods/\S+)`",
    CATALOGUE,
    re.M,
  )
  assert {file: trains for trains, file in shown} == {
    file: trains
    for file, trains in counted.items()
    if file != "methods/know_prompt_tuned.gin"
  }


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_are_what_the_script_draws(name):
  drawn = pictures.draw(pictures.PICTURES[name])
  assert (pictures.FOLDER / f"{name}.svg").read_text("utf-8") == drawn
  assert f"(pictures/{name}.svg)" in CATALOGUE


def test_deviations_have_a_place():
  found = {d.name or d.module for d in deviations.deviations()}
  assert {"CrossEntropy", "BeamSearch", "data/catalog/c4.py"} <= found


def test_a_docstring_becomes_markdown():
  text = """Do it.

  Args:
    a: first; `x_y` and a_b,
      and more.
    **b: others.

  Returns:
    A [P, H] array.

  Source: somewhere.
  """
  assert markdown.entries(text) == {
    "a": "first; `x_y` and a_b, and more.",
    "**b": "others.",
  }
  made = markdown.from_docstring(text)
  assert "- `a`: first; `x_y` and a\\_b, and more." in made
  assert "A \\[P, H\\] array." in made
  assert "Source: somewhere." in made


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_python_blocks_call_what_is_there(path):
  """Blocks compile; what they call of `pt` takes these arguments."""
  text = path.read_text("utf-8")
  for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
    for node in ast.walk(ast.parse(block)):
      if not isinstance(node, ast.Call):
        continue
      called = _called(node.func)
      names = {keyword.arg for keyword in node.keywords}
      assert called is None or names <= _arguments(called), ast.unparse(node)


def _called(node):
  """Find `pt.x.y` or a method of `model`; None for others."""
  if not isinstance(node, ast.Attribute):
    return None
  if isinstance(node.value, ast.Name):
    if node.value.id == "pt":
      return getattr(prompt_tuning, node.attr)
    if node.value.id == "model":
      return getattr(prompt_tuning.Model, node.attr)
    return None
  owner = _called(node.value)
  return None if owner is None else getattr(owner, node.attr)


def _arguments(called):
  return set(inspect.signature(called).parameters)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_gin_and_json_blocks_can_be_read(path):
  text = path.read_text("utf-8")
  for block in re.findall(r"^```gin\n(.*?)^```", text, re.M | re.S):
    assert macros.statements(block), block
  for block in re.findall(r"^```json\n(.*?)^```", text, re.M | re.S):
    json.loads(block)
