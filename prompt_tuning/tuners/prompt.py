"""Prompt tuning (Lester et al. 2021): trained vectors at virtual tokens."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import meta

from prompt_tuning.core.adapter import Adapter
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Array, DType, Shape
from prompt_tuning.tuners import interpret, settings
from prompt_tuning.tuners.initializers import (
  Initializer,
  InitializerContext,
  SampledVocabulary,
)
from prompt_tuning.tuners.method import Inputs, Method, Recipe

PROMPT_AXES = ("prompt", "prompt_embed")

_PEFT_TENSOR = "prompt_embeddings"
# Settings of PEFT's that say how a prompt was made, or are read below.
_PEFT_HARMLESS = (
  *("encoder_dropout", "encoder_hidden_size", "encoder_num_layers"),
  *("encoder_reparameterization_type", "num_attention_heads", "num_layers"),
  *("num_transformer_submodules", "num_virtual_tokens", "prompt_tuning_init"),
  *("prompt_tuning_init_text", "token_dim", "tokenizer_kwargs"),
  "tokenizer_name_or_path",
)

# Where the encoder's vectors stand -> field of `Placement`.
_PLACES = {"before": "encoder_prefix", "after": "encoder_suffix"}
_PLACES |= {"after_first": "encoder_infix"}
# What a vector sees of its prompt -> whether it sees earlier vectors, and later
# ones.
_SIGHTS = {"all": (True, True), "earlier": (True, False)}
_SIGHTS |= {"itself": (False, False)}

# T5X's path of the prompt inside each stack: encoder/prompt/prompt/prompt.
_FOLDERS, _PARAMETER = ("prompt", "prompt"), "prompt"
_STACKS = ("encoder", "decoder")


class Prompt(Method):
  """The vectors of one run's prompt, in the encoder, the decoder or both.

  Parameters: `encoder/prompt/prompt/prompt` [P, H] and, with a decoder prompt,
  `decoder/prompt/prompt/prompt`, float32, logical axes (prompt, prompt_embed),
  so that a T5X prompt-tuning checkpoint and this module agree.

  Attributes:
    emb_dim: features of a token embedding (H).
    encoder_length: vectors in the encoder input.
    decoder_length: vectors in front of the decoder's start token.
    encoder_position: `before` the input text, `after` it (before its EOS), or
      `after_first` (after its first token, for models whose texts begin with a
      BOS).
    sees: which vectors of the encoder prompt each of them attends to: `all`,
      the `earlier` ones and itself, or `itself` alone.
    sees_text: whether these vectors attend to the text.
    encoder_init: initial value of the encoder prompt.
    decoder_init: initial value of the decoder prompt.
    encoder_rows: number of rows of the encoder prompt, at least its length.
      Surplus rows are zero, and no virtual token refers to them. None: as many
      as its length. See `aligned`.
    decoder_rows: the same for the decoder prompt.

  Source: section 2 of the paper; prompt-tuning's `train/prompts.py` for the
  positions, `extended/masks.py` for `sees` and `sees_text` (six settings; the
  default there is `earlier`). It has no decoder prompt for encoder-decoder
  models.
  """

  title: ClassVar[str] = "prompt tuning"
  noun: ClassVar[str] = "prompt"
  peft_types: ClassVar[tuple[str, ...]] = ("PROMPT_TUNING", "P_TUNING")
  bundle_name: ClassVar[str] = "Prompt"
  later: ClassVar[tuple[str, ...]] = ("sees", "sees_text")
  recipe: ClassVar[Recipe] = Recipe(
    learning_rate=0.3,
    settings={"multiply_by_parameter_scale": False, "weight_decay": 1e-5},
  )

  emb_dim: int = 0
  encoder_length: int = 100
  decoder_length: int = 0
  encoder_position: Literal["before", "after", "after_first"] = "before"
  sees: str = "all"
  sees_text: bool = True
  encoder_init: Initializer = SampledVocabulary()
  decoder_init: Initializer = SampledVocabulary()
  encoder_rows: int | None = None
  decoder_rows: int | None = None

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.encoder_position not in _PLACES:
      raise ValueError(
        f"encoder_position is {self.encoder_position!r}; expected one of "
        f"{', '.join(map(repr, _PLACES))}."
      )
    settings.among("PROMPT_SEES", [self.sees], list(_SIGHTS))
    settings.boolean("PROMPT_SEES_TEXT", self.sees_text)
    for length, rows in zip(self._lengths(), self._rows(), strict=True):
      if not 0 <= length <= rows:
        raise ValueError(
          f"A prompt of {length} vectors cannot have {rows} rows; expected "
          "PROMPT_LENGTH at 0 or more, and at least as many rows."
        )
    if not sum(self._lengths()):
      raise ValueError(
        "The prompt has no vectors; set PROMPT_LENGTH, or a decoder length."
      )

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the prompt as virtual tokens.

    Args:
      inputs: initialisers look at its context.

    Returns:
      A delta for one run, without the run axis: `virtual` [P, H], the encoder's
      rows first, then the decoder's.
    """
    plan = (
      ("encoder", self.encoder_init, self.encoder_length, self.encoder_rows),
      ("decoder", self.decoder_init, self.decoder_length, self.decoder_rows),
    )
    vectors = []
    for stack, init, length, rows in plan:
      shape = (length if rows is None else rows, self.emb_dim)
      if shape[0]:
        padded = _Padded(init, length)
        vectors.append(
          _Vectors(_FOLDERS, shape, padded, name=stack)(context=inputs.context)
        )
    return Delta(virtual=jnp.concatenate(vectors), sight=self._sight())

  @property
  def rows(self) -> Mapping[str, int]:
    """How many rows virtual tokens use, for parameters with more rows."""
    sizes = zip(_STACKS, self._lengths(), self._rows(), strict=True)
    return {
      "/".join((stack, *_FOLDERS, _PARAMETER)): length
      for stack, length, rows in sizes
      if length < rows
    }

  @classmethod
  def aligned(cls, methods: Sequence[Method]) -> tuple[Method, ...] | None:
    """Give shorter prompts as many rows as the longest one, see `Method`.

    Each keeps its own length and `placement`; surplus rows are zero.
    """
    prompts = [method for method in methods if type(method) is cls]
    stacks = {tuple(map(bool, prompt._lengths())) for prompt in prompts}
    if len(prompts) < len(methods) or len(stacks) > 1:
      return None
    encoder, decoder = map(
      max, zip(*(prompt._rows() for prompt in prompts), strict=True)
    )
    return tuple(
      prompt.clone(encoder_rows=encoder, decoder_rows=decoder)
      for prompt in prompts
    )

  @classmethod
  def of_vectors(cls, length: int, width: int) -> "Prompt":
    """Return the prompt for such vectors."""
    return cls(emb_dim=width, encoder_length=length)

  @nn.nowrap
  def to_peft(self, delta: Delta) -> Adapter | str:
    """Write PEFT's PROMPT_TUNING, see `Method`."""
    rows, placement = list(self.placement.encoder_prefix), self.placement
    if delta.sight is not None:
      return "PEFT's virtual tokens see each other and the text"
    if tuple(rows) != placement.encoder_rows or placement.decoder_prefix:
      return "PEFT has virtual tokens before the encoder's input only"
    assert delta.virtual is not None
    values = np.asarray(delta.virtual[0], np.float32)[rows]
    config = {
      "num_transformer_submodules": 1,
      "num_virtual_tokens": len(values),
      "peft_type": self.peft_types[0],
      "prompt_tuning_init": "RANDOM",
      "prompt_tuning_init_text": None,
      "token_dim": values.shape[1],
      "tokenizer_name_or_path": None,
    }
    return Adapter(config, {_PEFT_TENSOR: values})

  @classmethod
  def from_peft(
    cls, adapter: Adapter, model: ModelShape | None
  ) -> tuple["Prompt", Delta]:
    """Read PEFT's PROMPT_TUNING and P_TUNING, see `Method`.

    An adapter holds only the vectors, whatever made them in training. PEFT
    allocates one prompt for the encoder and one for the decoder, but uses only
    the first. So of the [2P, H] that it saves by default, rows P and above were
    never trained or read.
    """
    del model
    adapter.insist(_PEFT_HARMLESS, tensors=(_PEFT_TENSOR,))
    length = adapter.positive("num_virtual_tokens")
    width = adapter.positive("token_dim")
    values = adapter.tensors.get(_PEFT_TENSOR, np.zeros(()))
    if values.shape not in ((length, width), (2 * length, width)):
      raise ValueError(
        f"{_PEFT_TENSOR}: expected [{length}, {width}] or "
        f"[{2 * length}, {width}]; found {list(values.shape) or 'nothing'}."
      )
    return cls.of_vectors(length, width), Delta(
      virtual=jnp.asarray(values[None, :length])
    )

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta | None:
    """Make vectors of random direction and the same norms."""
    if delta.virtual is None:
      return None
    noise = interpret.random_control(key, delta.virtual[0])
    return dataclasses.replace(delta, virtual=noise[None])

  @nn.nowrap
  def _sight(self) -> Array | None:
    """Say what vectors attend to, unless it is everything."""
    seen = (*_SIGHTS[self.sees], self.sees_text)
    return None if all(seen) else jnp.asarray(seen, bool)

  @nn.nowrap
  def _lengths(self) -> tuple[int, int]:
    return self.encoder_length, self.decoder_length

  @nn.nowrap
  def _rows(self) -> tuple[int, int]:
    allotted = (self.encoder_rows, self.decoder_rows)
    return tuple(  # type: ignore[return-value]
      length if rows is None else rows
      for length, rows in zip(self._lengths(), allotted, strict=True)
    )

  @property
  def placement(self) -> Placement:
    """The places of this run's virtual tokens."""
    encoder = tuple(range(self.encoder_length))
    first = self._rows()[0]
    decoder = tuple(range(first, first + self.decoder_length))
    where = {_PLACES[self.encoder_position]: encoder}
    return Placement(decoder_prefix=decoder, **where)


@dataclasses.dataclass(frozen=True)
class _Padded:
  """An initialiser for the first rows, zero in the rest."""

  initializer: Initializer
  length: int

  def __call__(
    self, rng: Array, shape: Shape, dtype: DType, context: InitializerContext
  ) -> Array:
    rows, width = shape
    values = jnp.zeros((0, width), dtype)
    if self.length:
      values = self.initializer(rng, (self.length, width), dtype, context)
    padding = jnp.zeros((rows - self.length, width), dtype)
    return jnp.concatenate([values, padding])


class _Vectors(nn.Module):
  """A `prompt` parameter inside named folders.

  Attributes:
    folders: names of the modules between this one and the parameter.
    shape: [P, H].
    initializer: first value.
  """

  folders: tuple[str, ...]
  shape: Shape
  initializer: Initializer

  @nn.compact
  def __call__(self, *, context: InitializerContext) -> Array:
    if self.folders:
      folder, *rest = self.folders
      inner = _Vectors(tuple(rest), self.shape, self.initializer, name=folder)
      return inner(context=context)

    def initial(rng: Array, shape: Shape) -> Array:
      if not self.is_initializing():  # flax asks for the shape only
        return jnp.zeros(shape, jnp.float32)
      return self.initializer(rng, shape, jnp.float32, context)

    boxed = nn.with_logical_partitioning(initial, PROMPT_AXES)
    return meta.unbox(self.param(_PARAMETER, boxed, self.shape))
