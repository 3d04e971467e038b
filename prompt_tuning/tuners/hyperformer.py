"""HyperFormer (Karimi Mahabadi et al. 2021): adapters from task vectors."""

import math
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.core.delta import STACKS, Bottleneck, Delta
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Array
from prompt_tuning.tuners import controls, norms, parameters, settings
from prompt_tuning.tuners.method import Inputs, Method, Recipe
from prompt_tuning.tuners.parameters import Parameter

_SMALL, _UNIT = nn.initializers.normal(1e-2), nn.initializers.normal(1.0)
# In the order of their position embeddings.
_SITES = {
  "encoder": ("enc_mlp", "enc_self"),
  "decoder": ("dec_mlp", "dec_self"),
}


class HyperFormer(Method):
  """Adapters after self-attentions and MLPs, generated for every task.

  An MLP turns a task's vector into E numbers. From these, linear maps of every
  layer and sublayer make the adapter: `down`, `up`, their biases, and scale and
  bias of the LayerNorm after it. Parameters, float32:
  `tasks/<number>` [E], `in` (E to M) and `out` (M to E); for each stack, array,
  layer and sublayer a map from E; with `norms`, those of `NormTuning`.

  Attributes:
    shape: sizes of the model.
    tasks: those of the run, in the order of their vectors.
    embedding: E, the length of a task's vector.
    hidden: M, the width of the hypernetwork.
    reduction: d_model divided by the width R of an adapter.
    norms: whether the factors of T5's own norms train, too.

  Source: Karimi Mahabadi et al. 2021, section 2.2, and the released code. The
  code's configuration of this name builds another model than that of the
  paper's table. Deviations: factors on T5's norms train, not their scales; the
  learning rate is for hundreds of steps, theirs (3e-4) for tens of thousands.
  """

  title: ClassVar[str] = "HyperFormer"
  noun: ClassVar[str] = "adapters"
  from_model: ClassVar[tuple[str, ...]] = ("shape",)
  from_data: ClassVar[tuple[str, ...]] = ("tasks",)
  recipe: ClassVar[Recipe] = Recipe(
    learning_rate=1e-3, optimizer="adamw", settings={"weight_decay": 0.0}
  )

  shape: ModelShape = ModelShape()
  tasks: Sequence[str] = ()
  embedding: int = 64
  hidden: int = 128
  reduction: int = 32
  norms: bool = True

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.positive_integer("HYPER_EMBEDDING", self.embedding)
    settings.positive_integer("HYPER_HIDDEN", self.hidden)
    settings.positive_integer("HYPER_REDUCTION", self.reduction)
    settings.boolean(f"tuners.{type(self).__name__}.norms", self.norms)
    if self.shape.emb_dim % self.reduction:
      raise ValueError(
        f"HYPER_REDUCTION {self.reduction} does not divide the model's width "
        f"of {self.shape.emb_dim}."
      )

  @property
  def conditions(self) -> tuple[str, ...]:
    """The tasks: each has its own delta."""
    return tuple(self.tasks)

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the adapters of one task, see `Method`."""
    vector = Parameter(_UNIT, (self.embedding,), (None,))
    vectors = parameters.declare(
      self, {f"tasks/{i}": vector for i in range(len(self.tasks))}
    )
    table = jnp.stack([vectors[f"tasks/{i}"] for i in range(len(self.tasks))])
    task = table[inputs.number(len(self.tasks))]
    adapters: dict[str, Bottleneck] = {}
    for stack, sites in self._generated(task).items():
      adapters |= dict(zip(_SITES[stack], sites, strict=True))
    factors = {}
    if self.norms:
      offsets = parameters.declare(self, norms.offsets(self.shape))
      factors = norms.factors(offsets)
    return Delta(bottleneck=adapters, norm=factors)

  def _generated(self, task: Array) -> dict[str, list[Bottleneck]]:
    """Make the adapters of both sublayers of every stack."""
    source = self._project("", task)
    made = {}
    for stack in STACKS:
      count = 2 * self.shape.num_layers(stack)
      generator = nn.vmap(
        nn.Dense,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=None,
        axis_size=count,
      )
      made[stack] = self._adapters(stack, source, generator)
    return made

  def _project(self, prefix: str, x: Array) -> Array:
    x = nn.relu(
      nn.Dense(self.hidden, kernel_init=_SMALL, name=f"{prefix}in")(x)
    )
    return nn.Dense(self.embedding, kernel_init=_SMALL, name=f"{prefix}out")(x)

  def _adapters(
    self, stack: str, source: Array, generator: type[nn.Module]
  ) -> list[Bottleneck]:
    """Generate the arrays, [layers and sublayers, ...], and cut them up."""
    width = self.shape.emb_dim
    rank, layers = width // self.reduction, self.shape.num_layers(stack)
    sizes = {
      "down": (rank, width),
      "down_bias": (rank,),
      "up": (width, rank),
      "up_bias": (width,),
      "norm_scale": (width,),
      "norm_bias": (width,),
    }
    arrays = {}
    for name, size in sizes.items():
      linear = generator(
        math.prod(size), kernel_init=_SMALL, name=f"{stack}_{name}"
      )
      made = linear(source).reshape(layers, 2, *size)
      # Kernels have the orientation of torch's.
      arrays[name] = jnp.swapaxes(made, -1, -2) if len(size) == 2 else made
    return [
      Bottleneck(**{name: array[:, i] for name, array in arrays.items()})
      for i in range(2)
    ]

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw adapters whose arrays have the same norms in every layer."""
    return controls.of_same_norms(delta, key)


class HyperFormerPlusPlus(HyperFormer):
  """HyperFormer with one hypernetwork for all layers and sublayers of a stack.

  It reads vectors of the task, the layer and the sublayer. Parameters, float32:
  `tasks/<number>` [E]; for each stack `layers` [L, E], `positions` [2, E], `in`
  (3 E to M), `out` (M to E), a LayerNorm of E, a linear map for each array.

  Source: Karimi Mahabadi et al. 2021, section 2.3.
  """

  title: ClassVar[str] = "HyperFormer++"
  noun: ClassVar[str] = "adapters"

  def _generated(self, task: Array) -> dict[str, list[Bottleneck]]:
    made, size = {}, self.embedding
    for stack in STACKS:
      layers = self.shape.num_layers(stack)
      layer = self.param(f"{stack}_layers", _UNIT, (layers, size))
      place = self.param(f"{stack}_positions", _UNIT, (2, size))
      parts = (task[None, None], layer[:, None], place[None])
      read = [jnp.broadcast_to(part, (layers, 2, size)) for part in parts]
      source = self._project(f"{stack}_", jnp.concatenate(read, axis=-1))
      source = nn.LayerNorm(epsilon=1e-6, name=f"{stack}_norm")(source)
      made[stack] = self._adapters(stack, source, nn.Dense)
    return made
