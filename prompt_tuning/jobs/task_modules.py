"""MIXTURE_OR_TASK_MODULE: modules that declare tasks.

The published benchmarks need no module: their definitions need no TensorFlow,
and only a cold token cache imports the code that makes their texts. Their
module names are accepted, also those of the original package.
"""

import importlib
from collections.abc import Iterable

from prompt_tuning.core import tree
from prompt_tuning.data import catalog

_PACKAGE = "prompt_tuning"
_TASKS = f"{_PACKAGE}.data.tasks"


def known() -> list[str]:
  """List the module names that mean tasks of this package."""
  names = [f"{_PACKAGE}.data", _TASKS]
  for name in catalog.BENCHMARKS:
    # The original's module -> the module with the same tasks here.
    names += [f"{_PACKAGE}.data.{name}", f"{_TASKS}.{name}"]
  for modules in catalog.OF_THE_ORIGINAL.values():
    names += [f"{_PACKAGE}.{module}" for module in modules]
  return names


def ensure(modules: Iterable[str]) -> None:
  """Register the tasks of some modules.

  Args:
    modules: dotted names; those of this package need no import.

  Raises:
    ValueError: a module that does not exist, or fails.
  """
  for name in modules:
    if name in known():
      continue
    if name.partition(".")[0] == _PACKAGE:
      raise ValueError(
        f"MIXTURE_OR_TASK_MODULE: there is no module {name!r} that declares "
        f"tasks.{tree.nearest(name, known())}"
      )
    try:
      importlib.import_module(name)
    except ImportError as error:
      raise ValueError(
        f"MIXTURE_OR_TASK_MODULE: cannot import {name!r}: {error}. Is its "
        "folder on PYTHONPATH?"
      ) from error
