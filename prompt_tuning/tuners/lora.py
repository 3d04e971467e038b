"""LoRA (Hu et al. 2021): low-rank updates of frozen kernels."""

import math
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from prompt_tuning.core.adapter import Adapter, by_layer
from prompt_tuning.core.delta import Delta, LowRank
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Array
from prompt_tuning.tuners import controls, parameters, settings
from prompt_tuning.tuners.method import Inputs, Method, Recipe

# U(-1/sqrt(inputs), 1/sqrt(inputs)), the same as PEFT's kaiming_uniform_.
A_INIT = nn.initializers.variance_scaling(
  1 / 3, "fan_in", "uniform", batch_axis=(0,)
)
ZEROS = nn.initializers.zeros
_NAMES = ("lora_A.weight", "lora_B.weight")
# PEFT's settings that are read below, or that only say how an adapter was
# trained or stored.
_HARMLESS = (
  *("ensure_weight_tying", "lora_alpha", "lora_dropout", "megatron_core"),
  *("qalora_group_size", "r", "runtime_config", "use_rslora"),
)
# PEFT's initialisers that do not change the frozen kernels.
_INITS = {"init_lora_weights": (True, "gaussian", "eva", "orthogonal")}


class LoRA(Method):
  """x W + (alpha / R) (x a) b: `a` is random, `b` zero at the start.

  Parameters: `<site>/<kernel>/a` [L, inputs, R] and `b` [L, R, outputs],
  float32, so L R (inputs + outputs) numbers for a kernel.

  Attributes:
    shape: sizes of the model.
    rank: R, the rank of the updates.
    alpha: updates are multiplied by alpha / R.
    kernels: names of the kernels, see `parameters.select`.
    a_init: initial value of `a`, as flax's initialisers.

  Source: Hu et al. 2021, section 4.1, with PEFT's defaults: queries and values
  of every attention, and PEFT's initialiser (the paper's is Gaussian). PEFT's
  dropout of x is left out, because a delta does not see activations.
  """

  title: ClassVar[str] = "LoRA"
  noun: ClassVar[str] = "low-rank update"
  from_model: ClassVar[tuple[str, ...]] = ("shape",)
  recipe: ClassVar[Recipe] = Recipe(
    learning_rate=3e-3, optimizer="adamw", settings={"weight_decay": 0.01}
  )
  peft_types: ClassVar[tuple[str, ...]] = ("LORA",)

  shape: ModelShape = ModelShape()
  rank: int = 8
  alpha: float = 8.0
  kernels: Sequence[str] = ("query", "value")
  a_init: nn.initializers.Initializer = A_INIT

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.positive_integer("LORA_RANK", self.rank)
    settings.positive("LORA_ALPHA", self.alpha)
    parameters.select(self.kernels, self.shape, "LORA_KERNELS")

  @nn.nowrap
  def check_to_train(self) -> None:
    """Refuse a rank above that of the kernels, see `Method`."""
    sizes = self.shape.kernels()
    for site in parameters.select(self.kernels, self.shape, "LORA_KERNELS"):
      if self.rank > min(sizes[site]):
        inputs, outputs = sizes[site]
        raise ValueError(
          f"LORA_RANK is {self.rank}, and {site} has {inputs} x {outputs} "
          "numbers, so no update of it can have a rank above "
          f"{min(sizes[site])}: lower LORA_RANK, or change LORA_KERNELS."
        )

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the updates, see `Method`."""
    del inputs
    sizes, pairs = self.shape.kernels(), {}
    sites = parameters.select(self.kernels, self.shape, "LORA_KERNELS")
    for site in sites:
      (size, outputs), (row, column) = sizes[site], parameters.axes_of(site)
      pairs[f"{site}/a"] = parameters.per_layer(
        self.shape, site, self.a_init, (size, self.rank), (row, None)
      )
      pairs[f"{site}/b"] = parameters.per_layer(
        self.shape, site, ZEROS, (self.rank, outputs), (None, column)
      )
    made, factor = parameters.declare(self, pairs), self.alpha / self.rank
    low = {s: LowRank(made[f"{s}/a"], factor * made[f"{s}/b"]) for s in sites}
    return Delta(lowrank=low)

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw random updates; `a` and `b` of every layer keep their norms."""
    return controls.of_same_norms(delta, key)

  @nn.nowrap
  def to_peft(self, delta: Delta) -> Adapter:
    """Write PEFT's LORA, see `Method`."""
    kernels: dict[tuple[str, int, str], np.ndarray] = {}
    for site, (a, b) in delta.lowrank.items():
      unscaled = b[0] * (self.rank / self.alpha)
      kernels |= by_layer(site, _NAMES[0], jnp.swapaxes(a[0], 1, 2))
      kernels |= by_layer(site, _NAMES[1], jnp.swapaxes(unscaled, 1, 2))
    config = {"peft_type": "LORA", "r": self.rank, "lora_alpha": self.alpha}
    return Adapter(
      config | {"target_modules": tuple(delta.lowrank)}, {}, kernels
    )

  @classmethod
  def from_peft(
    cls, adapter: Adapter, model: ModelShape | None
  ) -> tuple["LoRA", Delta]:
    """Read PEFT's LORA, with or without rank stabilisation, see `Method`."""
    adapter.insist(_HARMLESS, _INITS)
    rank, alpha = adapter.positive("r"), adapter.config.get("lora_alpha", 0)
    stacks = adapter.stacked(_NAMES, model, 0.0)
    method = cls(model or ModelShape(), rank, alpha, tuple(stacks))
    if adapter.config.get("use_rslora"):
      method = method.clone(alpha=method.alpha * math.sqrt(rank))
    lowrank = {}
    for site, (a, b) in stacks.items():
      if a.shape[1] != rank or b.shape[2] != rank:
        raise ValueError(
          f"{site} has the rank {a.shape[1]}, but r is {rank}; expected equal "
          "numbers."
        )
      scaled = b * (method.alpha / rank)
      pair = (jnp.swapaxes(array, 1, 2)[None] for array in (a, scaled))
      lowrank[site] = LowRank(*pair)
    return method, Delta(lowrank=lowrank)
