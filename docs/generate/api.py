"""The reference of the Python API and of the methods' settings."""

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator, Sequence
from typing import Any

import prompt_tuning
from docs.generate import macros, markdown
from prompt_tuning.tuners import discovery
from prompt_tuning.tuners.method import INITIALISER, Method, name_of

_OF_FLAX = ("parent", "name")


def page() -> str:
  """Write the page of what `import prompt_tuning as pt` offers."""
  lines = ["# Python", "", "`import prompt_tuning as pt` offers this.", ""]
  objects = {name: getattr(prompt_tuning, name) for name in names()}
  modules = {n: o for n, o in objects.items() if inspect.ismodule(o)}
  for name, value in objects.items():
    if name not in modules:
      lines += _documented(f"pt.{name}", value, 2)
  for name, module in modules.items():
    lines += [f"## pt.{name}", "", markdown.from_docstring(module.__doc__), ""]
    for member, value in _public(module):
      lines += _documented(f"pt.{name}.{member}", value, 3)
  lines += [
    "## Tuning methods",
    "",
    "Every method is there by the name of its class, such as `pt.LoRA`: "
    "[their settings](methods.md).",
    "",
  ]
  return "\n".join(lines)


def names() -> Sequence[str]:
  """Name what the package exports."""
  return tuple(prompt_tuning.__all__)


def methods() -> dict[str, type[Method]]:
  """Find every tuning method of the package, in the order of their names."""
  return dict(sorted(discovery.methods().items()))


def methods_page() -> str:
  """Write the page of the methods' settings."""
  lines = [
    "# Settings of the methods",
    "",
    "Made from the classes. What each method is, with its formula and a "
    "picture: [the catalogue](../catalogue.md).",
    "",
  ]
  for name, kind in methods().items():
    lines += [f"## {name}", ""]
    if name_of(kind) != name:
      lines += [f"*{markdown.escaped(name_of(kind))}*", ""]
    lines += [markdown.from_docstring(kind.__doc__), "", settings(kind), ""]
  return "\n".join(lines)


def settings(kind: type[Method]) -> str:
  """Write a table of what can be set of a method."""
  by_parameter = {
    parameter: macro.name
    for macro in macros.macros().values()
    for _, selector, parameter in macro.parameters
    if selector.rpartition(".")[2] == kind.__name__
  }
  documented = {}
  for base in reversed(kind.__mro__):
    documented |= markdown.entries(vars(base).get("__doc__"))
  given = (*kind.from_model, *_OF_FLAX)
  rows = [
    (
      markdown.code(field.name),
      markdown.code(by_parameter[field.name])
      if field.name in by_parameter
      else "",
      markdown.escaped(" ".join(documented.get(field.name, "").split())),
      _default(field),
    )
    for field in dataclasses.fields(kind)
    if field.init and field.name not in given
  ]
  if not rows:
    return "Nothing is to be set."
  return markdown.table(("in Python", "gin macro", "meaning", "default"), rows)


def _default(field: dataclasses.Field) -> str:
  if field.name.endswith(INITIALISER):
    return ""
  if field.default is dataclasses.MISSING:
    return "*required*" if field.default_factory is dataclasses.MISSING else ""
  return markdown.code(repr(field.default))


def _public(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
  for name, value in vars(module).items():
    is_own = getattr(value, "__module__", None) == module.__name__
    kind = inspect.isclass(value) or inspect.isfunction(value)
    if kind and is_own and not name.startswith("_"):
      yield name, value


def _documented(name: str, value: Any, level: int) -> list[str]:
  title = f"{'#' * level} {name}"
  lines = [title, "", _signature(name, value), ""]
  lines += [markdown.from_docstring(inspect.getdoc(value)), ""]
  if inspect.isclass(value):
    for member, method in vars(value).items():
      if inspect.isfunction(method) and not member.startswith("_"):
        short = f"{name.rpartition('.')[2]}.{member}"
        lines += _documented(short, method, level + 1)
  return lines


def _signature(name: str, value: Any) -> str:
  signature = inspect.signature(value)
  parameters = [
    _parameter(parameter)
    for parameter in signature.parameters.values()
    if parameter.name not in ("self", *_OF_FLAX)
  ]
  kinds = [p.kind for p in signature.parameters.values()]
  keyword_only = inspect.Parameter.KEYWORD_ONLY
  star = inspect.Parameter.VAR_POSITIONAL
  if keyword_only in kinds and star not in kinds and "self" not in name:
    number = [
      p.kind
      for p in signature.parameters.values()
      if p.name not in ("self", *_OF_FLAX)
    ].index(keyword_only)
    parameters.insert(number, "*")
  inside = "".join(f"  {text},\n" for text in parameters)
  returns = signature.return_annotation
  arrow = ""
  if returns is not inspect.Signature.empty and not inspect.isclass(value):
    arrow = f" -> {_annotation(returns)}"
  call = f"{name}(\n{inside})" if inside else f"{name}()"
  return f"```python\n{call}{arrow}\n```"


def _parameter(parameter: inspect.Parameter) -> str:
  text = str(parameter.replace(annotation=inspect.Parameter.empty))
  name, equals, default = text.partition("=")
  if len(default) > 60:
    default = "..."
  annotation = parameter.annotation
  if annotation is not inspect.Parameter.empty:
    name += f": {_annotation(annotation)}"
    equals = " = " if equals else ""
  if not isinstance(parameter.default, str):
    default = _shortened(default)
  return f"{name}{equals}{default}"


def _annotation(annotation: Any) -> str:
  if isinstance(annotation, str):
    return annotation
  return _shortened(inspect.formatannotation(annotation))


def _shortened(text: str) -> str:
  text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
  text = re.sub(r"<function (?:[\w.<>]+\.)?(\w+)[^>]*>", r"\1", text)
  return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(\w+)", r"\1", text)
