"""The gin configuration of a command: read, check, apply, write down.

gin itself accepts a misspelt macro in silence, and stops at the first fault of
another kind. This module finds all faults before it applies anything. One error
names each fault, its place, and the nearest right name.
"""

import inspect
import logging
import math
import os
import re
from collections.abc import (
  Callable,
  Collection,
  Iterable,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Any

import gin

from prompt_tuning.core import files, tree
from prompt_tuning.launch import gin_statements, t5x_names
from prompt_tuning.launch.gin_files import SearchPath
from prompt_tuning.launch.gin_statements import Setting, Unknown
from prompt_tuning.tuners.method import Method

# Names of modules -> the entries that they add to gin's registry.
_Key = tuple[str, str, str]  # scope, selector, parameter
Register = Callable[[Sequence[str]], Mapping[str, Callable[..., Any]]]

logger = logging.getLogger(__name__)

METHOD_MODULE, OPTIMIZER = "METHOD_MODULE", "OPTIMIZER"
OPTIMIZERS = ("Adafactor", "ClipByGlobalNorm", "Optax")
CONFIG, OPERATIVE = "config.gin", "operative_config.gin"
FLAX_FIELDS = ("name", "parent")  # of every module; no settings
_NAMED = 4  # files that one message names
_MOST_VALUES = 100_000  # of one setting


class ConfigError(ValueError):
  """The configuration has faults.

  Attributes:
    faults: one sentence or two about each.
  """

  def __init__(self, faults: Sequence[str]):
    self.faults = tuple(faults)
    count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
    super().__init__(
      "\n  ".join([f"The gin configuration has {count}:", *faults])
    )


def load(
  files: Sequence[str],
  bindings: Sequence[str],
  known: Mapping[str, Callable[..., Any]],
  search_paths: Sequence[str] = (".",),
  constants: Iterable[str] = (),
  register: Register | None = None,
  defaults: Sequence[str] = (),
) -> None:
  """Make gin files and bindings this process's configuration.

  Args:
    files: gin files; later ones win over earlier ones and the files that those
      include.
    bindings: statements such as `NAME = value`; they win over all files.
    known: full name in gin -> what it configures.
    search_paths: folders for relative file names, before the package's own.
    constants: names of gin constants, for suggestions.
    register: registers the tuning methods in the modules of METHOD_MODULE.
    defaults: statements of values that files need not give.

  Raises:
    ConfigError: a file, macro, setting or reference does not exist, a required
      macro has no value, or a value is not in gin's syntax. One error has all
      faults, and the configuration stays empty.
  """
  gin.clear_config()
  search = SearchPath(search_paths)
  statements, known = read(files, bindings, known, search, register, defaults)
  settings = statements.settings
  faults = [
    *statements.faults,
    *_macro_faults(settings, search, constants),
    *_reference_faults(settings, known),
    *_apply(settings, known),
    *_missing(settings),
    *_idle_optimizers(settings),
    *_idle_methods(settings, known),
  ]
  if faults:
    gin.clear_config()
    raise ConfigError(faults)
  for warning in _set_back(settings):
    logger.warning("%s", warning)
  gin.finalize()


def _set_back(settings: Sequence[Setting]) -> Iterator[str]:
  """Find a setting that one --gin_file changes and a later one sets again."""
  history: dict[tuple[str, str, str], dict[str, Setting]] = {}
  for setting in settings:
    key = (setting.scope, setting.selector, setting.parameter)
    # For a file and its includes, the last value counts.
    of_key = history.setdefault(key, {})
    of_key.pop(setting.given, None)
    of_key[setting.given] = setting
  for of_key in history.values():
    *before, last = of_key.values()
    if last.given.startswith("--") or last.is_declaration:
      continue
    same = [repr(s.value) == repr(last.value) for s in before]
    for i, setting in enumerate(before):
      if not same[i] and any(same[:i]) and not setting.is_declaration:
        name = last.macro or f"{last.selector}.{last.parameter}"
        yield (
          f"{last.given} sets {name} again ({last.origin}), so "
          f"{setting.origin} has no effect. Give {setting.given} after "
          f"{last.given}, or set --gin.{name}."
        )


def read(
  files: Sequence[str],
  bindings: Sequence[str],
  known: Mapping[str, Callable[..., Any]],
  search: SearchPath,
  register: Register | None = None,
  defaults: Sequence[str] = (),
) -> tuple[gin_statements.Statements, Mapping[str, Callable[..., Any]]]:
  """Read statements, with the tuning methods of METHOD_MODULE.

  Args:
    files: see `load`.
    bindings: see `load`.
    known: see `load`.
    search: finds the files.
    register: see `load`.
    defaults: see `load`.

  Returns:
    The statements, and `known` with the new methods.

  Raises:
    ConfigError: a module of METHOD_MODULE is wrong.
  """
  statements = gin_statements.read(files, bindings, search, defaults)
  files = (*files, *t5x_names.files_for(statements.settings))
  more = _modules(statements.settings) if register else ()
  if register and more:
    try:
      known = {**known, **register(more)}
    except ValueError as error:
      raise ConfigError([str(error)]) from error
  if more or t5x_names.files_for(statements.settings):
    # The second reading knows the names that the first one added.
    statements = gin_statements.read(files, bindings, search, defaults)
  settings = list(t5x_names.translate(statements.settings))
  statements = gin_statements.Statements(settings, statements.faults)
  return statements, known


def _idle_optimizers(settings: Sequence[Setting]) -> Iterator[str]:
  """Find settings of an optimizer that a method's recipe would replace."""
  values = [s for s in settings if s.macro == OPTIMIZER]
  if not values or not all(setting.is_declaration for setting in values):
    return
  for setting in settings:
    module, _, name = setting.selector.rpartition(".")
    is_ours = module in ("", "optimizers") and name in OPTIMIZERS
    if is_ours and not setting.scope and not setting.is_packaged:
      yield (
        f"{setting.origin}: {name}.{setting.parameter} would have no effect: "
        "the method's recipe chooses the optimizer. To choose it yourself, "
        f"give --gin.{OPTIMIZER}=@optimizers.{name}() too."
      )


def _idle_methods(
  settings: Sequence[Setting], known: Mapping[str, Callable[..., Any]]
) -> Iterator[str]:
  """Find users' settings that belong only to methods that are not used.

  A class does not get the settings of another class, such as its parent.
  """
  effective = list(_effective(settings).values())
  idle = _of_idle_methods(effective, known)
  used = [setting for setting in effective if setting not in idle]
  macros = _unused(used) - _unused(effective)
  named = ", ".join(sorted(_named_methods(used, known)))
  for setting in effective:
    if setting.is_packaged or not (setting in idle or setting.macro in macros):
      continue
    name = setting.macro or f"{setting.selector}.{setting.parameter}"
    leads = {s.selector for s in idle if setting.macro in [*s.macros()]}
    yield (
      f"{setting.origin}: {name} would have no effect: it belongs to "
      f"{', '.join(sorted(leads)) or 'a method'}, which no setting uses. In "
      f"use: {named}. Set parameters of these, or give the gin file that uses "
      "the other."
    )


def _of_idle_methods(
  effective: Collection[Setting], known: Mapping[str, Callable[..., Any]]
) -> list[Setting]:
  """Take the settings of methods that are not used, if others are used."""
  named = _named_methods(effective, known)
  return [
    setting
    for setting in effective
    if named
    and _is_method(name := _full_name(setting.selector, known), known)
    and name not in named
  ]


def _named_methods(
  settings: Collection[Setting], known: Mapping[str, Callable[..., Any]]
) -> set[str]:
  """Collect the methods that parameters and used macros refer to."""
  unused = _unused(settings)
  names = {
    reference.configurable.selector
    for setting in settings
    if setting.macro not in unused
    for reference in setting.references()
    if not isinstance(reference, Unknown)
  }
  return {name for name in names if _is_method(name, known)}


def _is_method(name: str, known: Mapping[str, Callable[..., Any]]) -> bool:
  kind = known.get(name)
  return isinstance(kind, type) and issubclass(kind, Method)


def _full_name(name: str, known: Mapping[str, Callable[..., Any]]) -> str:
  """Return the full name of a shortened selector, if known."""
  matches = [k for k in known if k == name or k.endswith(f".{name}")]
  return matches[0] if len(matches) == 1 else name


def _modules(settings: Sequence[Setting]) -> tuple[str, ...]:
  """Take the last value of METHOD_MODULE, which names modules with methods."""
  values = [s.value for s in settings if s.macro == METHOD_MODULE]
  value = values[-1] if values else None
  if value is None or isinstance(value, str):
    return (value,) if value else ()
  return tuple(map(str, value))


def config_text() -> str:
  """Return everything that files and flags say, as one gin file.

  The file leaves out unused macros: a command that reads it would complain
  about them.
  """
  return _ending_once(gin.config_str())


def operative_text() -> str:
  """Return the settings used so far, with defaults, as one gin file."""
  text = gin.operative_config_str()
  try:
    # Read it before the configuration, because names are unknown without it.
    module = gin.query_parameter(f"%{METHOD_MODULE}")
  except ValueError:  # not set
    module = None
  return _ending_once(
    f"{METHOD_MODULE} = {module!r}\n\n{text}" if module else text
  )


def texts() -> dict[str, str]:
  """Return both texts, under the names of the files that `write` makes."""
  return {CONFIG: config_text(), OPERATIVE: operative_text()}


def write(folder: str | os.PathLike[str]) -> None:
  """Write `config.gin` and `operative_config.gin` into a folder.

  Args:
    folder: made if missing.

  Raises:
    OSError: it cannot be written to.
  """
  files.write_texts(folder, texts())


def _ending_once(text: str) -> str:
  return text.rstrip("\n") + "\n"


def _macro_faults(
  settings: Sequence[Setting], search: SearchPath, constants: Iterable[str]
) -> Iterator[str]:
  """Find macros that are set but never used, or used but never set."""
  used = {name for setting in settings for name in setting.macros()}
  used.add(METHOD_MODULE)
  declared = {s.macro for s in settings if s.macro and s.is_packaged}
  known = sorted({*used, *declared} - {""})
  for setting in settings:
    name = setting.macro
    if name and not setting.is_packaged and name not in known:
      yield (
        f"{setting.origin}: no parsed file declares or uses the macro {name}."
        + (_declared_by(name, search) or tree.nearest(name.upper(), known))
      )
  values = {setting.macro for setting in settings}
  for setting in settings:
    for name in sorted(set(setting.macros()) - values):
      yield f"{setting.origin}: %{name} has no value." + (
        _declared_by(name, search)
        or tree.nearest(name, {*filter(None, values), *constants})
      )
  yield from _without_end(settings)


def _without_end(settings: Sequence[Setting]) -> Iterator[str]:
  """Find values that refer to themselves, or that grow without bound.

  Each macro can double the one before: ten lines of gin could fill any memory.
  """
  macros = {s.macro: s for s in settings if s.macro}
  sizes: dict[str, float] = {}

  def size(name: str, above: frozenset[str]) -> float:
    """Count the values that a macro stands for; infinite in a circle."""
    if name in above:
      return math.inf
    if name not in sizes:
      setting = macros.get(name)
      sizes[name] = total(setting, above | {name}) if setting else 1
    return sizes[name]

  def total(setting: Setting, above: frozenset[str]) -> float:
    return setting.count + sum(size(name, above) for name in setting.macros())

  for name, setting in macros.items():
    if size(name, frozenset()) == math.inf:
      yield f"{setting.origin}: the value of {name} refers to {name} itself."
  for setting in (s for s in settings if s is macros.get(s.macro or "", s)):
    values = total(setting, frozenset())
    largest = max((sizes.get(n, 1) for n in setting.macros()), default=1)
    if largest <= _MOST_VALUES < values:  # the other values contain this one
      yield (
        f"{setting.origin}: {setting.macro or setting.parameter} stands for "
        f"{values:,.0f} values, because macros contain macros; expected at "
        f"most {_MOST_VALUES:,}."
      )


def _declared_by(name: str, search: SearchPath) -> str:
  """Name the package's own files that declare a macro."""
  line = re.compile(rf"^{re.escape(name)}\s*=", re.MULTILINE)
  files = [
    file
    for file, path in search.packaged()
    if line.search(path.read_text(encoding="utf-8"))
  ]
  if not files:
    return ""
  more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
  return f" A --gin_file declares it: {', '.join(files[:_NAMED])}{more}."


def _reference_faults(
  settings: Sequence[Setting], known: Mapping[str, Callable[..., Any]]
) -> Iterator[str]:
  for setting in settings:
    for reference in setting.references():
      if isinstance(reference, Unknown):
        name = reference.selector.rpartition("/")[2]
        yield (
          f"{setting.origin}: nothing is called @{name}."
          f"{tree.nearest(name, known)}"
        )


def _apply(
  settings: Sequence[Setting], known: Mapping[str, Callable[..., Any]]
) -> Iterator[str]:
  """Bind every setting in order; report those that gin does not know.

  Unused macros are not part of the configuration, and neither are the package's
  settings of unused methods.
  """
  effective = _effective(settings)
  idle = _of_idle_methods(list(effective.values()), known)
  idle = [setting for setting in idle if setting.is_packaged]
  unused = _unused([s for s in effective.values() if s not in idle])
  for key, setting in effective.items():
    if setting.macro in unused or setting in idle:
      continue
    try:
      gin.bind_parameter(key, setting.value)
    except (ValueError, KeyError) as error:
      yield f"{setting.origin}: {_why(setting, known, error)}"


def _effective(settings: Sequence[Setting]) -> dict[_Key, Setting]:
  """Take the last setting of every key."""
  effective: dict[_Key, Setting] = {}
  for setting in settings:
    key = (setting.scope, setting.selector, setting.parameter)
    # A declaration never removes a value, whatever the order.
    if not (setting.is_declaration and key in effective):
      effective.pop(key, None)  # keep the order of the last settings
      effective[key] = setting
  return effective


def _unused(settings: Collection[Setting]) -> set[str]:
  """Name the macros that no parameter uses."""
  macros = {s.macro: s for s in settings if s.macro}
  to_read = [setting for setting in settings if not setting.macro]
  used = {METHOD_MODULE}
  while to_read:
    names = set(to_read.pop().macros()) - used
    used |= names
    to_read += [macros[name] for name in names if name in macros]
  return macros.keys() - used


def _nearest(name: str, known: Mapping[str, Callable[..., Any]]) -> str:
  """Name what was meant, or say where the names are."""
  for full in known:
    if full.rpartition(".")[2].lower() == name.lower():
      return f" Did you mean {full!r}?"
  return tree.nearest(name, known) or (
    " `--gin.NAME=VALUE` sets a macro, such as SEEDS, or a parameter of a "
    f"class or function, such as {min(known)}.NAME."
  )


def _why(
  setting: Setting,
  known: Mapping[str, Callable[..., Any]],
  error: Exception,
) -> str:
  """Say which part of a key is unknown, and name the nearest known one."""
  name, parameter = setting.selector, setting.parameter
  hint = t5x_names.hint(setting)
  if hint:
    return hint
  matches = [k for k in known if k == name or k.endswith(f".{name}")]
  if not matches:
    return f"nothing is called {name}.{_nearest(name, known)}"
  if len(matches) > 1:
    return str(error)
  parameters = [
    parameter
    for parameter in inspect.signature(known[matches[0]]).parameters
    if parameter not in FLAX_FIELDS
  ]
  return (
    f"{name} has no parameter {parameter}.{tree.nearest(parameter, parameters)}"
    f" Known: {', '.join(parameters)}."
  )


def _missing(settings: Sequence[Setting]) -> Iterator[str]:
  """List everything that is required and has no value."""
  missing: dict[tuple[str, str, str], Setting] = {}
  names = set()
  for setting in settings:
    key = (setting.scope, setting.selector, setting.parameter)
    if setting.is_required:
      missing.setdefault(key, setting)
    else:
      names.add(key)
  for key, setting in missing.items():
    if key in names:
      continue
    name = setting.macro or f"{setting.selector}.{setting.parameter}"
    about = f" ({setting.comment})" if setting.comment else ""
    yield f"{name} needs a value{about}: --gin.{name}=..."
