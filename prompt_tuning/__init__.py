"""Soft prompts for a frozen T5, at every scale, in JAX.

import prompt_tuning as pt

model = pt.load_model("checkpoint_1100000", "sentencepiece.model")
trained = model.train("taskless_super_glue_rte_v102", steps=1_000)

Importing the package costs nothing: JAX comes with the first name that is used.
"""

import importlib
import platform
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036
  raise ImportError(
    f"prompt-tuning needs Python 3.11 or newer; this is {sys.executable}, "
    f"Python {platform.python_version()}. Make an environment with a newer "
    "one, such as: python3.11 -m venv .venv"
  )

if TYPE_CHECKING:
  from prompt_tuning.api import Model as Model
  from prompt_tuning.api import from_vectors as from_vectors
  from prompt_tuning.api import load as load
  from prompt_tuning.api import load_model as load_model
  from prompt_tuning.api import load_prompt as load_prompt
  from prompt_tuning.data import custom as custom
  from prompt_tuning.data import mixtures as mixtures
  from prompt_tuning.data import ppt as ppt
  from prompt_tuning.data import templated as templated
  from prompt_tuning.data.in_context import InContext as InContext
  from prompt_tuning.models import scorers as scorers
  from prompt_tuning.tuners import initializers as initializers

__version__ = "0.1.0"

# What `import prompt_tuning as pt` offers: name -> where it is. A line more
# here is one more above, for type checkers.
_NAMES = {
  "InContext": "prompt_tuning.data.in_context:InContext",
  "Model": "prompt_tuning.api:Model",
  "custom": "prompt_tuning.data.custom",
  "templated": "prompt_tuning.data.templated",
  "from_vectors": "prompt_tuning.api:from_vectors",
  "initializers": "prompt_tuning.tuners.initializers",
  "load": "prompt_tuning.api:load",
  "load_model": "prompt_tuning.api:load_model",
  "load_prompt": "prompt_tuning.api:load_prompt",
  "mixtures": "prompt_tuning.data.mixtures",
  "ppt": "prompt_tuning.data.ppt",
  "scorers": "prompt_tuning.models.scorers",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
  """Import what a name stands for when it is first used (PEP 562)."""
  if name not in _NAMES:
    return _method(name)
  module, _, attribute = _NAMES[name].partition(":")
  value = importlib.import_module(module)
  if attribute:
    value = getattr(value, attribute)
  globals()[name] = value
  return value


def _method(name: str) -> Any:
  """Return a tuning method of this package, such as `pt.LoRA`."""
  if not name[:1].isupper():  # no class: nothing to import for
    raise AttributeError(_unknown(name, []))
  from prompt_tuning.tuners import discovery

  methods = discovery.methods()
  if name not in methods:
    raise AttributeError(_unknown(name, methods))
  return methods[name]


def _unknown(name: str, methods: Iterable[str]) -> str:
  """Say that there is no such name, and which there are."""
  from prompt_tuning.core import tree

  known = [*__all__, *methods]
  return (
    f"module {__name__!r} has no attribute {name!r}."
    f"{tree.nearest(name, known)} It has: {', '.join(known)}."
  )


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
