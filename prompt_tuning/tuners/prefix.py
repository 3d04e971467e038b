"""Prefix tuning (Li and Liang 2021): learned keys and values."""

import math
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.core.adapter import Adapter
from prompt_tuning.core.delta import ATTENTION_SITES, Delta, Prefix
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Array, Shape
from prompt_tuning.tuners import controls, peft_prefix, settings
from prompt_tuning.tuners.method import Inputs, Method, Recipe
from prompt_tuning.tuners.parameters import declare, per_layer

_LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class PrefixTuning(Method):
  """P keys and values in front of those of an attention, in every layer.

  Parameters: `<site>/key` and `<site>/value` [L, P, N, D], float32.

  Attributes:
    shape: sizes of the model.
    length: P, the keys and values of each attention.
    sites: attentions that get a prefix: any of `enc_self`, `dec_self`, `cross`.
    positions: True puts it at positions right before the text, so that T5's
      relative bias sees distances to it (not in cross-attention, which has no
      relative bias). False makes the relative bias zero, so that the prefix is
      equally near everywhere.
    dropout: share of a prefix's numbers that a training step drops: the same
      ones for all rows of a run; the paper's code draws them for every row.
    prefix_init: initial value, as flax's initialisers.

  Source: Li and Liang 2021, section 4; the authors' code for encoder-decoders
  has these three sites. The paper does not say how T5's relative bias treats a
  prefix; OpenPrompt has `positions`. Keys are N D wide, which is not always H.
  """

  title: ClassVar[str] = "prefix tuning"
  noun: ClassVar[str] = "prefix"
  from_model: ClassVar[tuple[str, ...]] = ("shape",)
  recipe: ClassVar[Recipe] = Recipe(learning_rate=3e-2)
  peft_types: ClassVar[tuple[str, ...]] = ("PREFIX_TUNING",)

  shape: ModelShape = ModelShape()
  length: int = 10
  sites: Sequence[str] = ATTENTION_SITES
  positions: bool = False
  dropout: float = 0.0
  prefix_init: nn.initializers.Initializer = nn.initializers.normal(1.0)

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.positive_integer("PREFIX_LENGTH", self.length)
    settings.probability("PREFIX_DROPOUT", self.dropout)
    settings.among("PREFIX_SITES", self.sites, ATTENTION_SITES)
    settings.boolean("PREFIX_POSITIONS", self.positions)

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the prefixes, see `Method`."""
    drop = nn.Dropout(self.dropout, deterministic=not inputs.train)
    prefix = {}
    for site in self.sites:
      layers = self.shape.num_layers(site)
      key, value = map(drop, self._pair(site, layers))
      placed = self.positions and site != "cross"
      here = jnp.ones(layers, bool) if placed else None
      prefix[site] = Prefix(key, value, positioned=here)
    return Delta(prefix=prefix)

  def _pair(self, site: str, layers: int) -> tuple[Array, Array]:
    """Make a site's keys and values, [L, P, N, D] each."""
    del layers
    size = (self.length, self.shape.num_heads, self.shape.head_dim)
    axes = ("prompt", "heads", "kv")
    made = declare(
      self,
      {
        f"{site}/{name}": per_layer(
          self.shape, site, self.prefix_init, size, axes
        )
        for name in ("key", "value")
      },
    )
    return made[f"{site}/key"], made[f"{site}/value"]

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw keys and values with the same norms at every position."""
    return controls.of_same_norms(delta, key)

  @nn.nowrap
  def to_peft(self, delta: Delta) -> Adapter | str:
    """Write PEFT's PREFIX_TUNING if it computes the same, see `Method`."""
    if tuple(self.sites) != ("dec_self",) or not self.positions:
      return (
        "PEFT's prefix of a T5 is only in the decoder's self-attention, "
        "before its text: PREFIX_SITES = ('dec_self',), PREFIX_POSITIONS = "
        "True"
      )
    return peft_prefix.adapter(delta.prefix["dec_self"])

  @classmethod
  def from_peft(
    cls, adapter: Adapter, model: ModelShape | None
  ) -> tuple["PrefixTuning", Delta]:
    """Read PEFT's PREFIX_TUNING as PEFT uses it, see `Method`."""
    prefix = peft_prefix.read(adapter, model)
    length = prefix.key.shape[2]
    method = cls(model or ModelShape(), length, ("dec_self",), positions=True)
    return method, Delta(prefix={"dec_self": prefix})


class PrefixMLP(PrefixTuning):
  """Prefix tuning with the paper's reparameterisation.

  One MLP per kind of attention makes the prefix in training. A delta, and so an
  export, does not hold it. Parameters, float32: `<site>/embedding` [P, H],
  `<site>/inner` to `hidden`, tanh, `<site>/outer` to L 2 N D, with biases.

  Attributes:
    hidden: width of the MLP; the authors use 512 or 800.

  Source: Li and Liang 2021, section 4.3, and the authors' code, whose learning
  rate of 5e-5 is for many more steps. Initial values are torch's, as there.
  """

  title: ClassVar[str] = "prefix tuning by an MLP"
  noun: ClassVar[str] = "prefix"
  recipe: ClassVar[Recipe] = Recipe(
    learning_rate=3e-4, optimizer="adamw", settings={"weight_decay": 0.0}
  )

  hidden: int = 512

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.positive_integer("PREFIX_HIDDEN", self.hidden)

  def _pair(self, site: str, layers: int) -> tuple[Array, Array]:
    heads = (self.shape.num_heads, self.shape.head_dim)
    size = (self.length, layers, 2, *heads)
    made = _MLP(self.shape.emb_dim, self.hidden, size, name=site)()
    key, value = jnp.moveaxis(made, (2, 1), (0, 1))
    return key, value


class _MLP(nn.Module):
  """Embedding, kernel, tanh, kernel.

  Attributes:
    emb_dim: width of the embedding (H).
    hidden: width behind the first kernel.
    size: (P, L, 2, N, D).
  """

  emb_dim: int
  hidden: int
  size: Shape

  @nn.compact
  def __call__(self) -> Array:
    """Make [P, L, 2, N, D]."""
    length, *inside = self.size
    shape = (length, self.emb_dim)
    x = self.param("embedding", nn.initializers.normal(1.0), shape)
    x = nn.tanh(nn.Dense(self.hidden, kernel_init=_LINEAR, name="inner")(x))
    split = nn.with_logical_partitioning(_LINEAR, (None, "joined_kv"))
    outer = nn.Dense(math.prod(inside), kernel_init=split, name="outer")
    return outer(x).reshape(self.size)
