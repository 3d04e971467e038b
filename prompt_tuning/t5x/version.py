"""Insist on a T5X that has the classes and functions used here.

T5X is on no package registry and has no version number. So this module checks
what T5X offers.
"""

import importlib
import inspect
from types import ModuleType
from typing import Any

COMMIT = "cc342d4"
_HINT = f"Install T5X at commit {COMMIT}, as docs/t5x.md shows."

# Module -> class or function -> the parameters that are used here.
_USED: dict[str, dict[str, tuple[str, ...]]] = {
  "t5x.examples.t5.network": {
    "T5Config": ("emb_dim", "dtype"),
    "Transformer": ("config",),
    "Transformer.encode": (
      *("encoder_input_tokens", "encoder_segment_ids", "enable_dropout"),
    ),
    "Transformer.decode": ("encoded", "encoder_input_tokens"),
  },
  "t5x.optimizers": {
    "Optimizer": ("optimizer_def", "state", "target"),
    "OptimizerDef": ("hyper_params",),
    "OptimizerDef.init_state": ("params",),
    "OptimizerDef.apply_gradient": ("hyper_params", "params", "state", "grads"),
  },
  "t5x.partitioning": {"standard_logical_axis_rules": ("additional_rules",)},
  "t5x.utils": {
    "RestoreCheckpointConfig": ("assignment_map", "fallback_to_scratch"),
  },
}


def insist() -> None:
  """Check T5X's modules.

  Raises:
    ImportError: T5X is absent, or another version.
  """
  for module, members in _USED.items():
    try:
      found = importlib.import_module(module)
    except ModuleNotFoundError as error:
      name = error.name or module
      if name == "t5x":
        raise ImportError(f"T5X is not installed. {_HINT}") from error
      raise ImportError(
        f"T5X needs the module {name}, but it is missing: T5X is another "
        f"version, or not completely installed. {_HINT}"
      ) from error
    for member, parameters in members.items():
      _check(found, member, parameters)


def _check(
  module: ModuleType, member: str, parameters: tuple[str, ...]
) -> None:
  """Look for a class or function, and for its parameters."""
  what: Any = module
  for name in member.split("."):
    what = getattr(what, name, None)
  known = inspect.signature(what).parameters if callable(what) else {}
  missing = [name for name in parameters if name not in known]
  if missing:
    raise ImportError(
      f"T5X in {module.__file__} is a version that this project does not "
      f"support: {module.__name__}.{member} has no {', '.join(missing)}. "
      f"{_HINT}"
    )
