"""Tuning methods that this project and PEFT both have, and their first values.

Both sides start from the same numbers: the project's parameters, and an adapter
that PEFT reads.
"""

import pathlib
from collections.abc import Callable, Mapping

import jax
import numpy as np
from flax.core import meta

from benchmarks.sides import work
from prompt_tuning.checkpoints import peft
from prompt_tuning.core import tree
from prompt_tuning.core.adapter import Adapter
from prompt_tuning.core.types import Params
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.tuners import initializers
from prompt_tuning.tuners.ia3 import IA3
from prompt_tuning.tuners.lora import LoRA
from prompt_tuning.tuners.method import Inputs, Method
from prompt_tuning.tuners.p_tuning import PTuning
from prompt_tuning.tuners.prefix import PrefixTuning
from prompt_tuning.tuners.prompt import Prompt

LENGTH = 20  # virtual tokens, positions of a prefix
# As PEFT's documentation has it.
_P_TUNING = {"length": LENGTH, "hidden": 128, "scale": 1.0}

# Name -> (model) -> method.
METHODS: Mapping[str, Callable[[T5Config], Method]] = {
  "lora": lambda model: LoRA(model.shape, rank=8, kernels=("query", "value")),
  "ia3": lambda model: IA3(model.shape),
  "p_tuning": lambda model: PTuning(model.emb_dim, network="mlp", **_P_TUNING),
  "p_tuning_lstm": lambda model: PTuning(model.emb_dim, **_P_TUNING),
  # The one that PEFT's prefix of a T5 is.
  "prefix": lambda model: PrefixTuning(
    model.shape, LENGTH, ("dec_self",), positions=True
  ),
}


def build(name: str, model: T5Config, prompt_length: int) -> Method:
  """Build a method.

  Args:
    name: `work.PROMPT`, or one of `METHODS`.
    model: the backbone.
    prompt_length: P of prompt tuning.
  """
  if name == work.PROMPT:
    return Prompt(
      model.emb_dim,
      encoder_length=prompt_length,
      encoder_init=initializers.UNIFORM_PAPER,
    )
  return METHODS[name](model)


def write(folder: pathlib.Path, name: str, model: T5Config) -> None:
  """Write a method's first values, for both sides.

  Args:
    folder: of the model and the prompt.
    name: of the method.
    model: the backbone.
  """
  method = METHODS[name](model)
  delta, variables = method.init_with_output(jax.random.key(0), Inputs())
  params = tree.flatten(meta.unbox(variables["params"]))
  np.savez(work.values_file(folder, name), **jax.device_get(params))
  adapter = method.to_peft(jax.tree.map(lambda a: a[None], delta))
  assert isinstance(adapter, Adapter)
  peft.write_adapter(work.adapter_folder(folder, name), adapter)


def read(folder: pathlib.Path, name: str) -> Params:
  """Read the values that `write` wrote, as the parameters of a bank of one."""
  with np.load(work.values_file(folder, name)) as arrays:
    flat = {path: array[None] for path, array in arrays.items()}
  return tree.unflatten(flat)
