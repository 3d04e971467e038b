"""P-tuning (Liu et al. 2021): an LSTM or an MLP makes a prompt."""

from typing import ClassVar, cast

import numpy as np
from flax import linen as nn
from flax.core import meta

from prompt_tuning.core.adapter import Adapter
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.types import Array
from prompt_tuning.tuners import controls, settings
from prompt_tuning.tuners.method import Inputs, Method, Recipe
from prompt_tuning.tuners.prompt import PROMPT_AXES

REPARAMETERISATIONS = ("lstm", "mlp")
# torch's initial values of a Linear, except for its biases.
_LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class PTuning(Method):
  """A prompt that a small network makes from P embeddings in training.

  A delta, and so an export, does not hold the network. Parameters, float32:
  `embedding` [P, H]. With `lstm`: `lstm_<i>`, each M wide forwards and M wide
  backwards, then `dense_0` (2M to 2M), ReLU, `dense_1` (to H). With `mlp`:
  `dense_0` (H to M), ReLU, `dense_1` (M to M), ReLU, `dense_2` (to H).

  Attributes:
    emb_dim: features of a token embedding (H).
    length: P, the vectors of the prompt.
    network: `lstm`, where tokens depend on each other, or `mlp`, which makes
      each token alone.
    hidden: M, the width of the network.
    layers: number of layers of the LSTM.
    scale: factor on the output of the network; 1 in PEFT, and in bundles that
      do not name it; `methods/p_tuning.gin` has 10.

  Source: Liu et al. 2021, section 3.2 and its code, which has two layers of
  H / 2 for LAMA; PEFT's `PromptEncoder` for the MLP and the order of ReLUs.
  Here the prompt stands in front of the text. Deviations: the LSTM's kernels
  start as in flax, and it has one bias where torch adds two; `scale`, because
  token vectors of the authors' models are a tenth as long as T5's, and the
  output of an LSTM is bounded; the learning rate, because theirs is for
  thousands of steps. As in their code, gradients are clipped at a norm of 1.
  """

  title: ClassVar[str] = "P-tuning"
  later: ClassVar[tuple[str, ...]] = ("scale",)
  noun: ClassVar[str] = "prompt"
  recipe: ClassVar[Recipe] = Recipe(
    learning_rate=1e-2,
    optimizer="adamw",
    settings={"weight_decay": 0.0},
    max_norm=1.0,
  )

  emb_dim: int = 0
  length: int = 10
  network: str = "lstm"
  hidden: int = 256
  layers: int = 2
  scale: float = 1.0

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.positive_integer("P_TUNING_LENGTH", self.length)
    settings.positive_integer("P_TUNING_HIDDEN", self.hidden)
    settings.positive_integer("P_TUNING_LAYERS", self.layers)
    settings.positive("P_TUNING_SCALE", self.scale)
    settings.among("P_TUNING_NETWORK", [self.network], REPARAMETERISATIONS)

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the prompt as virtual tokens, see `Method`."""
    del inputs
    boxed = nn.with_logical_partitioning(
      nn.initializers.normal(1.0), PROMPT_AXES
    )
    size = (self.length, self.emb_dim)
    x: Array = meta.unbox(self.param("embedding", boxed, size))
    widths = [self.hidden] * 2
    if self.network == "lstm":
      for i in range(self.layers):
        x = cast(Array, _both_ways(self.hidden, f"lstm_{i}")(x))
      widths = [2 * self.hidden]
    for i, width in enumerate((*widths, self.emb_dim)):
      x = nn.relu(x) if i else x
      x = nn.Dense(width, kernel_init=_LINEAR, name=f"dense_{i}")(x)
    return Delta(virtual=self.scale * x)

  @property
  def placement(self) -> Placement:
    """In front of the text."""
    return Placement(encoder_prefix=tuple(range(self.length)))

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw vectors of random direction and the same norms."""
    return controls.of_same_norms(delta, key)

  @nn.nowrap
  def to_peft(self, delta: Delta) -> Adapter:
    """Write PEFT's P_TUNING, see `Method`; it also holds only the vectors."""
    assert delta.virtual is not None
    values = np.asarray(delta.virtual[0], np.float32)
    config = {
      "encoder_dropout": 0.0,
      "encoder_hidden_size": self.hidden,
      "encoder_num_layers": self.layers,
      "encoder_reparameterization_type": self.network.upper(),
      "num_transformer_submodules": 1,
      "num_virtual_tokens": len(values),
      "peft_type": "P_TUNING",
      "token_dim": values.shape[1],
    }
    return Adapter(config, {"prompt_embeddings": values})


def _both_ways(width: int, name: str) -> nn.Bidirectional:
  """Make one layer of an LSTM that reads [P, features] in both directions."""

  def one_way() -> nn.RNN:
    return nn.RNN(nn.OptimizedLSTMCell(width, parent=None), parent=None)

  return nn.Bidirectional(one_way(), one_way(), name=name)
