"""A trained delta as PEFT stores it, before names of the model are in it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Adapter:
  """What stands in `adapter_config.json` and `adapter_model.safetensors`.

  Attributes:
    config: what a method says in the configuration, `peft_type` included; the
      base model is added by whoever writes it.
    tensors: name -> array, for arrays that belong to no kernel.
    kernels: (`<sublayer>/<kernel>`, layer, PEFT's name of the array, such as
      `lora_A.weight`) -> array, in PEFT's orientation.
  """

  config: Mapping[str, Any]
  tensors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  kernels: Mapping[tuple[str, int, str], np.ndarray] = dataclasses.field(
    default_factory=dict
  )
