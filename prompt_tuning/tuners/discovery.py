"""Find tuning methods: in this package, given modules and other packages."""

import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Iterable, Mapping

from prompt_tuning import tuners
from prompt_tuning.core import tree
from prompt_tuning.tuners.method import Method

ENTRY_POINTS = "prompt_tuning.methods"


def methods(modules: Iterable[str] = ()) -> dict[str, type[Method]]:
  """Find every tuning method.

  Args:
    modules: dotted names of modules that define more of them.

  Returns:
    Name of the class -> class: those of this package's `tuners`, those of
    `modules`, and those at the entry points `prompt_tuning.methods`.

  Raises:
    ValueError: a module does not exist, fails, or defines no method; or two
      classes have the same name.
  """
  classes = list(_of_this_package())
  for name in modules:
    classes += _of_module(name, f"METHOD_MODULE {name!r}")
  for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
    source = f"The entry point {point.name!r} of {ENTRY_POINTS}"
    if point.attr:
      classes.append(_class(point.module, point.attr, source))
    else:
      classes += _of_module(point.module, source)
  by_name: dict[str, type[Method]] = {}
  for kind in classes:
    other = by_name.setdefault(kind.__name__, kind)
    if other is not kind:
      raise ValueError(
        f"Two tuning methods are called {kind.__name__}: those of "
        f"{other.__module__} and {kind.__module__}. Rename one."
      )
  return by_name


def bundle_name(kind: type[Method]) -> str:
  """Return the name of a method in a bundle.

  Raises:
    ValueError: another process could not find the class.
  """
  known_name = vars(kind).get("bundle_name")
  if known_name is None and "<locals>" in kind.__qualname__:
    raise ValueError(
      f"The tuning method {kind.__name__} is defined inside a function, so a "
      "bundle cannot store its name. Define it at the top level of a module."
    )
  return known_name or f"{kind.__module__}:{kind.__qualname__}"


def from_bundle_name(name: str) -> type[Method]:
  """Find the method that a bundle names.

  Args:
    name: `module:Class`, or the fixed name of a method of this package.

  Returns:
    The class.

  Raises:
    ValueError: there is no such method; the message says what to import.
  """
  module, colon, attribute = name.partition(":")
  if colon:
    source = f"The bundle was tuned with {attribute} of {module}. It"
    return _class(module, attribute, source)
  known = {bundle_name(kind): kind for kind in _of_this_package()}
  if name not in known:
    names = [n for n in known if ":" not in n]
    raise ValueError(
      f"The bundle was tuned with {name!r}, which is not a known "
      f"method.{tree.nearest(name, names)} Known: {', '.join(names)}, and "
      "`module:Class` of any module that can be imported."
    )
  return known[name]


def of_vectors(length: int, width: int) -> Method | None:
  """Find the method whose runs are [P, H] vectors before the text.

  Args:
    length: P.
    width: H.

  Returns:
    The method; None if this package has none.
  """
  made = (kind.of_vectors(length, width) for kind in _of_this_package())
  return next((method for method in made if method is not None), None)


def for_peft() -> Mapping[str, type[Method]]:
  """List the methods that read PEFT's adapters: PEFT's name -> class."""
  return {
    name: kind
    for kind in _of_this_package()
    for name in vars(kind).get("peft_types", ())
  }


@functools.cache
def _of_this_package() -> tuple[type[Method], ...]:
  """List the methods of this package; modules of others may fail to import."""
  names = pkgutil.iter_modules(tuners.__path__, f"{tuners.__name__}.")
  return tuple(
    kind
    for module in names
    for kind in _defined_in(importlib.import_module(module.name))
  )


def _defined_in(module: object) -> list[type[Method]]:
  """List the methods that a module defines, not those that it imports."""
  name = getattr(module, "__name__", None)
  return [
    kind
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, Method)
    and kind is not Method
    and kind.__module__ == name
  ]


def _of_module(name: str, source: str) -> list[type[Method]]:
  classes = _defined_in(_import(name, source))
  if not classes:
    raise ValueError(
      f"{source} defines no tuning method: no subclass of "
      "prompt_tuning.tuners.method.Method."
    )
  return classes


def _class(module: str, attribute: str, source: str) -> type[Method]:
  kind: object = _import(module, source)
  for part in attribute.split("."):
    kind = getattr(kind, part, None)
  if not (isinstance(kind, type) and issubclass(kind, Method)):
    raise ValueError(
      f"{source} has no tuning method {attribute!r} in {module}; another "
      "version of that module may have it."
    )
  return kind


def _import(name: str, source: str) -> object:
  """Import a module; report any failure in one sentence."""
  try:
    return importlib.import_module(name)
  except (Exception, SystemExit) as error:
    # A user's module may raise any exception.
    why = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
    raise ValueError(
      f"{source} cannot be imported: {why}. Is the "
      f"folder of {name.partition('.')[0]!r} on PYTHONPATH, or its package "
      "installed?"
    ) from error
