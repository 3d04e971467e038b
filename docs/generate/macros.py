"""The reference of gin macros: default, meaning, and T5X's name."""

import dataclasses
import inspect
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gin import config_parser

from docs.generate import markdown
from prompt_tuning.launch import configurables, gin_files, t5x_names

# Macros that T5X's run files, or prompt-tuning's on top of them, have.
_OF_T5X = frozenset(
  [
    *("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "MIXTURE_OR_TASK_MODULE"),
    *("TASK_FEATURE_LENGTHS", "TRAIN_STEPS", "TRAIN_STEPS_RELATIVE"),
    *("INITIAL_CHECKPOINT_PATH", "CHECKPOINT_PATH", "EVAL_OUTPUT_DIR"),
    *("INFER_OUTPUT_DIR", "BATCH_SIZE", "EVAL_STEPS", "EVAL_PERIOD"),
    *("DROPOUT_RATE", "USE_CACHED_TASKS", "RANDOM_SEED"),
    *("JSON_WRITE_N_RESULTS", "EVALUATOR_NUM_EXAMPLES"),
    *("PROMPT_LENGTH", "PROMPT_FILE", "CLASS_LABELS", "MODEL", "OPTIMIZER"),
  ]
)
# Files whose macros most commands have: that is where a reader looks.
_FIRST = (
  *("runs/finetune.gin", "models/t5.gin", "prompts/prompt.gin"),
  *("objectives/cross_entropy.gin", "objectives/classes.gin"),
  *("runs/prompt_eval.gin", "models/decoding/one_beam.gin"),
)


@dataclasses.dataclass
class Declaration:
  """A line `NAME = value` of one of the package's gin files."""

  file: str
  value: str
  comment: str


@dataclasses.dataclass
class Macro:
  """One macro.

  Attributes:
    name: of the macro.
    declarations: wherever a file of the package gives it a value.
    parameters: (file, what is configured, parameter) that are just this macro.
  """

  name: str
  declarations: list[Declaration] = dataclasses.field(default_factory=list)
  parameters: list[tuple[str, str, str]] = dataclasses.field(
    default_factory=list
  )

  @property
  def home(self) -> Declaration:
    """The declaration in a file for all, or in one that also uses it."""
    for file in _FIRST:
      for declaration in self.declarations:
        if declaration.file == file:
          return declaration
    users = {file for file, _, _ in self.parameters}
    explained = [d for d in self.declarations if d.comment]
    beside = [d for d in self.declarations if d.file in users]
    both = [d for d in beside if d.comment]
    return (both or beside or explained or self.declarations)[0]

  def meaning(self, known: Mapping[str, Callable[..., Any]]) -> str:
    """Say what it is: its comment, or the docstring of what it sets."""
    comments = [self.home.comment, *(d.comment for d in self.declarations)]
    documented = (
      _of_parameter(selector, parameter, known)
      for _, selector, parameter in self.parameters
    )
    return next(filter(None, [*comments, *documented]), "")


class _Text(config_parser.ParserDelegate):
  """Leaves references as they are written."""

  def configurable_reference(self, selector: str, evaluate: bool) -> Any:
    return _Written(f"@{selector}{'()' * evaluate}")

  def macro(self, name: str) -> Any:
    return _Written(f"%{name}")


class _Written(str):
  """Gin's own text, without quotes."""

  __slots__ = ()

  def __repr__(self) -> str:
    return str(self)


def macros() -> dict[str, Macro]:
  """Read every macro of the package's gin files."""
  made: dict[str, Macro] = {}
  for name, path in sorted(gin_files.SearchPath().packaged()):
    _read(name, path, made)
  return {name: macro for name, macro in made.items() if macro.declarations}


def statements(text: str) -> list[config_parser.BindingStatement]:
  """Read the bindings of a gin file; references stay as they are written."""
  return [
    statement
    for statement in config_parser.ConfigParser(text, _Text())
    if isinstance(statement, config_parser.BindingStatement)
  ]


def known() -> Mapping[str, Callable[..., Any]]:
  """Return what gin can configure: full name -> class or function."""
  return {**configurables.KNOWN, **configurables.register_methods()}


def page() -> str:
  """Write the page of all macros."""
  by_file: dict[str, list[Macro]] = {}
  for macro in macros().values():
    by_file.setdefault(macro.home.file, []).append(macro)
  configured, old_names = known(), t5x_names.old_names()
  lines = ["# Settings: gin macros", "", _INTRODUCTION, ""]
  for file in sorted(by_file, key=_order):
    rows = [_row(macro, configured, old_names) for macro in by_file[file]]
    head = ("macro", "meaning", "default", "T5X")
    lines += [f"## {file}", "", markdown.table(head, rows), ""]
  rows = [
    (markdown.code(name), markdown.escaped(why))
    for name, why in sorted(t5x_names.needless().items())
  ]
  lines += ["## T5X's macros without effect", ""]
  lines += ["They are accepted, with a warning.", ""]
  lines += [markdown.table(("macro", "why"), rows), ""]
  return "\n".join(lines)


_INTRODUCTION = """\
Made from the package's gin files. A macro is set by `--gin.NAME=value`, or by
`NAME = value` in a gin file of yours. It stands below the file that declares
it; a later file on the command line may give it another value, which is listed
too. *recipe* means: what the method's own recipe says. T5X's column has the
name of the same setting there, or *same*."""


def _read(name: str, path: pathlib.Path, made: dict[str, Macro]) -> None:
  text = path.read_text(encoding="utf-8")
  for statement in statements(text):
    value = statement.value
    if statement.arg_name:
      if isinstance(value, _Written) and value.startswith("%"):
        macro = made.setdefault(value[1:], Macro(value[1:]))
        where = (name, statement.selector, statement.arg_name)
        macro.parameters.append(where)
      continue
    comment = statement.location.line_content.partition("#")[2].strip()
    macro = made.setdefault(statement.selector, Macro(statement.selector))
    macro.declarations.append(Declaration(name, _value(value), comment))


def _value(value: Any) -> str:
  text = repr(value).replace("%gin.REQUIRED", "required")
  return text.replace("%method.RECIPE", "recipe")


def _of_parameter(
  selector: str, parameter: str, known: Mapping[str, Callable[..., Any]]
) -> str:
  """Read what a docstring says about a parameter."""
  matches = [k for k in known if k == selector or k.endswith(f".{selector}")]
  for match in matches:
    for docstring in _docstrings(known[match]):
      entry = markdown.entries(docstring).get(parameter, "")
      if entry:
        return " ".join(entry.split())
  return ""


def _docstrings(kind: Any) -> Iterator[str | None]:
  if not inspect.isclass(kind):
    yield inspect.getdoc(kind)
    return
  for base in kind.__mro__:
    yield vars(base).get("__doc__")


def _row(
  macro: Macro,
  known: Mapping[str, Callable[..., Any]],
  old_names: Mapping[str, tuple[str, ...]],
) -> tuple[str, str, str, str]:
  home = macro.home
  others = {
    d.value: d.file for d in macro.declarations if d.value != home.value
  }
  default = _shown(home.value)
  if 0 < len(others) <= 3:
    default += "".join(f"; {_shown(v)} in `{f}`" for v, f in others.items())
  elif others:
    default += f"; others in {len(others)} files"
  old = [markdown.code(name) for name in old_names.get(macro.name, ())]
  if macro.name in _OF_T5X:
    old.insert(0, "same")
  meaning = _plain(macro.meaning(known))
  return markdown.code(macro.name), meaning, default, ", ".join(old)


def _shown(value: str) -> str:
  if value in ("required", "recipe"):
    return f"*{value}*"
  return markdown.code(value if len(value) <= 60 else f"{value[:57]}...")


def _plain(text: str) -> str:
  return markdown.escaped(re.sub(r"\s+", " ", text))


def _order(file: str) -> tuple[int, str]:
  folders = ("runs", "models", "prompts", "methods", "objectives")
  folder = file.partition("/")[0]
  first = file not in ("runs/finetune.gin", "runs/prompt_finetune.gin")
  number = folders.index(folder) if folder in folders else len(folders)
  return (number * 2 + first if number == 0 else number * 2, file)
