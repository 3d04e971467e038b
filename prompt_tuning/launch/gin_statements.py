"""Gin files and bindings as a flat list of settings, with their origins.

gin applies a file while it reads it, and stops at the first fault. This module
reads first, and settings are applied later. So one error can name every fault,
and a misspelt macro can be told from a new one.
"""

import dataclasses
import pathlib
import tokenize
from collections.abc import Iterator, Sequence
from typing import Any

import gin
from gin import config_parser

from prompt_tuning.launch.gin_files import SearchPath

REQUIRED = "gin.REQUIRED"
RECIPE = "method.RECIPE"
MACRO = "gin.macro"
_DYNAMIC = "__gin__.dynamic_registration"


class Unknown:
  """A reference `@selector` to a name that is not registered."""

  def __init__(self, selector: str, reason: str):
    self.selector = selector
    self.reason = reason


@dataclasses.dataclass(frozen=True)
class Setting:
  """One `key = value` of a gin file or of the command line.

  Attributes:
    scope: scope of the key, usually empty; for a macro, its name.
    selector: name of the thing to configure; `gin.macro` for a macro.
    parameter: its parameter.
    value: plain values and containers, with gin's references and `Unknown`s.
    origin: file and line, or the flag.
    comment: text after a `#` in the same line.
    is_packaged: whether it stands in one of the package's own files.
    given: the part of the command line that it comes from: the flag, or the
      name of a file that has or includes it.
  """

  scope: str
  selector: str
  parameter: str
  value: Any
  origin: str
  comment: str = ""
  is_packaged: bool = False
  given: str = ""

  @property
  def macro(self) -> str | None:
    """The name of the macro that this sets, or None."""
    return self.scope if self.selector == MACRO else None

  @property
  def is_required(self) -> bool:
    """Whether this declares a value that must be given elsewhere."""
    return _name_of(self.value) == REQUIRED

  @property
  def is_declaration(self) -> bool:
    """Whether it leaves the value to a user or to a method's recipe."""
    return _name_of(self.value) in (REQUIRED, RECIPE)

  @property
  def count(self) -> int:
    """The number of plain values and references in the value."""
    return _count(self.value)

  def references(self) -> Iterator[Any]:
    """Yield every reference inside the value."""
    yield from _references(self.value)

  def macros(self) -> Iterator[str]:
    """Yield the name of every macro that the value refers to."""
    for reference in self.references():
      if getattr(reference, "selector", None) == MACRO:
        yield "/".join(reference.scopes)


@dataclasses.dataclass
class Statements:
  """Everything that was read, in the order in which it takes effect.

  Attributes:
    settings: later ones win.
    faults: a sentence about each statement that could not be read.
  """

  settings: list[Setting]
  faults: list[str]


def read(
  files: Sequence[str],
  bindings: Sequence[str],
  search: SearchPath,
  defaults: Sequence[str] = (),
) -> Statements:
  """Read gin files and the files that they include, then single bindings.

  Args:
    files: names of gin files.
    bindings: statements such as `NAME = value`.
    search: finds the files.
    defaults: statements before the files.

  Returns:
    The statements. Modules that files import have been imported.
  """
  reader = _Reader(search)
  for default in defaults:
    reader.read_lines(default, "the command", is_packaged=True)
  for name in files:
    reader.given = name
    reader.read_file(name, "--gin_file")
  for binding in bindings:
    key, _, value = binding.partition("=")
    flag = f"--gin.{key.strip()}={value.strip()}"
    reader.given = flag
    reader.read_lines(binding, flag, is_packaged=False)
  return reader.statements


class _Reader:
  """Reads one source after another into a list."""

  def __init__(self, search: SearchPath):
    self.statements = Statements([], [])
    self.given = ""
    self._search = search
    self._open: list[pathlib.Path] = []

  def read_file(self, name: str, origin: str) -> None:
    """Read a file; `origin` says who asked for it."""
    try:
      path = self._search.find(name)
    except FileNotFoundError as error:
      self._fault(origin, str(error))
      return
    if path in self._open:
      self._fault(origin, f"{name} includes itself.")
      return
    self._open.append(path)
    text = path.read_text(encoding="utf-8")
    self.read_lines(text, name, self._search.is_packaged(path))
    self._open.pop()

  def read_lines(self, text: str, name: str, is_packaged: bool) -> None:
    """Read statements; `name` is the flag or the file they stand in."""
    is_flag = name.startswith("--")
    try:
      for statement in config_parser.ConfigParser(text, _Delegate()):
        line = statement.location.line_num
        origin = name if is_flag else f"{name}:{line}"
        if isinstance(statement, config_parser.IncludeStatement):
          self.read_file(statement.filename, origin)
        elif isinstance(statement, config_parser.ImportStatement):
          self._import(statement, origin)
        elif isinstance(statement, config_parser.BindingStatement):
          self.statements.settings.append(
            _setting(statement, origin, is_packaged, self.given)
          )
    except (SyntaxError, tokenize.TokenError, ValueError) as error:
      self._fault(name, _syntax(error, name if is_flag else ""))
    except (RecursionError, MemoryError):
      self._fault(name, "brackets inside each other; that is too many to read.")
    except _DynamicRegistrationError as error:
      self._fault(name, str(error))

  def _import(
    self, statement: config_parser.ImportStatement, origin: str
  ) -> None:
    if statement.module == _DYNAMIC:
      raise _DynamicRegistrationError(
        "dynamic registration is not supported: settings have fixed names, "
        "which --dry_run prints. Files for T5X's own classes do not work "
        "here, but T5X's macros and file names do."
      )
    try:
      gin.parse_config(statement.format())
    except ImportError as error:
      self._fault(origin, f"cannot import {statement.module}: {error}")

  def _fault(self, origin: str, message: str) -> None:
    self.statements.faults.append(f"{origin}: {message}")


class _DynamicRegistrationError(Exception):
  """A file uses gin's dynamic registration."""


class _Delegate(config_parser.ParserDelegate):
  """Resolves references, and remembers unknown ones."""

  def configurable_reference(self, selector: str, evaluate: bool) -> Any:
    try:
      return gin.config.ConfigurableReference(selector, evaluate)
    except (ValueError, KeyError) as error:  # unknown, ambiguous
      return Unknown(selector, str(error))

  def macro(self, name: str) -> Any:
    return gin.config.ParserDelegate().macro(name)


def _setting(
  statement: config_parser.BindingStatement,
  origin: str,
  is_packaged: bool,
  given: str,
) -> Setting:
  scope, selector = statement.scope, statement.selector
  parameter = statement.arg_name
  if not parameter:
    scope = f"{scope}/{selector}" if scope else selector
    selector, parameter = MACRO, "value"
  elif selector == "macro" and parameter == "value":
    selector = MACRO
  comment = statement.location.line_content.partition("#")[2].strip()
  return Setting(
    *(scope, selector, parameter, statement.value, origin, comment),
    is_packaged,
    given,
  )


def _name_of(value: Any) -> str | None:
  """Return the name of a constant or macro, if the value is just that."""
  scopes = getattr(value, "scopes", None)
  return "/".join(scopes) if scopes else None


def _references(value: Any) -> Iterator[Any]:
  if isinstance(value, (gin.config.ConfigurableReference, Unknown)):
    yield value
  elif isinstance(value, dict):
    for part in value.values():
      yield from _references(part)
  elif isinstance(value, (list, tuple)):
    for part in value:
      yield from _references(part)


def _count(value: Any) -> int:
  if isinstance(value, dict):
    return sum(map(_count, value.values()))
  if isinstance(value, (list, tuple)):
    return sum(map(_count, value))
  return 1


def _syntax(error: Exception, flag: str) -> str:
  """Describe a syntax error; for flags, name the usual cause."""
  message = str(error.args[0]).splitlines()[0].rstrip(".")
  if not flag:
    location = error.args[1] if len(error.args) > 1 else None
    line = getattr(location, "line_num", None)
    prefix = f"line {line}: " if line else ""
    return f"{prefix}{message}."
  name, _, value = flag.partition("=")
  bare = value.strip("'\"")
  return (
    f"not a value in gin's syntax ({message}). Text needs quotes inside: "
    f"{name}=\"'{bare}'\"."
  )
