"""What PEFT's PREFIX_TUNING does in a T5; we found it by running it.

It reaches only the decoder's self-attention, at positions before the text. PEFT
writes the pairs (key, value) of M layers twice in a row and gives each layer
four entries, of which the self-attention takes two: layer i gets the pair
2 i mod M. So with M = L layers and L even, every other pair has no effect, and
two layers share each of the rest. An adapter of M = 2 L layers in which every
other pair is zero gives the right numbers, and PEFT loads it. Widths can be set
to N D; by default PEFT uses H, and fails if that is another number.

Source: PEFT 0.21.2 `peft_model.get_prompt`, with transformers 5.23.
"""

import math

import jax.numpy as jnp
import numpy as np

from prompt_tuning.core.adapter import Adapter
from prompt_tuning.core.delta import Prefix
from prompt_tuning.core.shape import ModelShape

_TENSOR = "prompt_embeddings"
_SIZES = ("num_virtual_tokens", "num_layers", "num_attention_heads")
# Settings that are read below, or say how the numbers were made.
_HARMLESS = (
  *("encoder_hidden_size", "init_weights", "prefix_projection", "token_dim"),
  *_SIZES,
)
# With one submodule, PEFT's prefix of an encoder-decoder fails.
_SUBMODULES = {"num_transformer_submodules": (2,)}


def adapter(prefix: Prefix) -> Adapter:
  """Write the decoder's prefix so that PEFT computes the same numbers.

  Args:
    prefix: of one run, with a run axis of size 1.

  Returns:
    The adapter.
  """
  pairs = np.stack([prefix.key[0], prefix.value[0]], axis=1)  # [L, 2, P, N, D]
  layers, _, length, heads, width = pairs.shape
  dealt = np.zeros((length, layers, 2, 2, heads * width), np.float32)
  dealt[:, :, 0] = np.moveaxis(pairs, 2, 0).reshape(length, layers, 2, -1)
  config = {
    "num_attention_heads": heads,
    "num_layers": 2 * layers,
    "num_transformer_submodules": 2,
    "num_virtual_tokens": length,
    "peft_type": "PREFIX_TUNING",
    "prefix_projection": False,
    "token_dim": heads * width,
  }
  return Adapter(config, {_TENSOR: dealt.reshape(length, -1)})


def read(adapter: Adapter, model: ModelShape | None) -> Prefix:
  """Read the part of a prefix that PEFT uses.

  Args:
    adapter: of PREFIX_TUNING.
    model: says how many layers use it.

  Returns:
    The decoder's prefix, with a run axis of size 1.

  Raises:
    ValueError: there is no model, or the adapter is for another one.
  """
  adapter.insist(_HARMLESS, _SUBMODULES, (_TENSOR,))
  if model is None:
    raise ValueError(
      "Reading a prefix needs the sizes of its model, but no model was given."
    )
  length, dealt, heads = map(adapter.positive, _SIZES)
  features = adapter.positive("token_dim")
  values = adapter.tensors.get(_TENSOR, np.zeros(0))
  layers, heads_shape = (
    model.num_decoder_layers,
    (model.num_heads, model.head_dim),
  )
  size = (length, dealt, 2, *heads_shape)
  fits = (heads, features) == (
    heads_shape[0],
    math.prod(heads_shape),
  ) and dealt >= layers
  if not fits or values.shape != (length, math.prod(size[1:])):
    raise ValueError(
      f"{_TENSOR} {list(values.shape)}, which the adapter says has {dealt} "
      f"layers and {heads} heads, {features} wide, does not fit a model of "
      f"{layers} layers and {heads_shape[0]} heads of {heads_shape[1]}."
    )
  used = [2 * i % dealt for i in range(layers)]
  pairs = np.moveaxis(values.reshape(size)[:, used], (2, 1), (0, 1))
  key, value = map(jnp.asarray, pairs[:, None])
  return Prefix(key, value, positioned=jnp.ones((1, layers), bool))
