"""A prompt before the encoder's input, in T5X's own network."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from t5x.examples.t5 import network

AXES = ("prompt", "prompt_embed")

# (rng, shape [P, H], dtype) -> the first vectors
Start = Callable[[jax.Array, Sequence[int], Any], jax.Array]


class PromptedTransformer(network.Transformer):
  """T5X's T5, whose encoder reads P learned vectors before every text.

  The vectors go in before the dropout of the input. The text's positions come
  after theirs. The prompt and the text see each other. All this, and the path
  `encoder/prompt/prompt/prompt`, is as in the public code.

  Attributes:
    prompt_length: P.
    prompt_start: makes the first vectors.
    prompt_is_parameter: whether the vectors are a parameter. If not, they are a
      constant of the network, and checkpoints of the frozen model alone fit:
      T5X's `infer` and `eval` take all parameters from one checkpoint.

  Source: google-research/prompt-tuning at 72285ee for path, axes and place.
  """

  prompt_length: int = 100
  prompt_start: Start = nn.initializers.uniform(0.5)
  prompt_is_parameter: bool = True

  def encode(
    self,
    encoder_input_tokens: jax.Array,
    encoder_segment_ids: jax.Array | None = None,
    enable_dropout: bool = True,
  ) -> jax.Array:
    """Encode texts after the prompt.

    Args:
      encoder_input_tokens: [B, T].
      encoder_segment_ids: of packed texts: refused.
      enable_dropout: as T5X's.

    Returns:
      [B, P + T, H].

    Raises:
      ValueError: the texts are packed.
    """
    if encoder_segment_ids is not None:
      raise ValueError(
        "A prompt stands before one text, but a packed row holds several "
        "texts. Set train/utils.DatasetConfig.pack = False, and the same for "
        "train_eval: prompt_tuning/t5x/configs/prompt.gin does so, after the "
        "run's file."
      )

    def put_before(
      call: Callable[..., Any],
      args: tuple[Any, ...],
      kwargs: dict[str, Any],
      context: nn.module.InterceptorContext,
    ) -> Any:
      embeds = context.module is self.shared_embedding
      if not embeds or context.method_name != "__call__":
        return call(*args, **kwargs)
      (tokens,) = args
      text = call(tokens[:, self.prompt_length :])
      vectors = self._vectors(text.shape[-1]).astype(text.dtype)
      rows = jnp.broadcast_to(vectors, (len(text), *vectors.shape))
      return jnp.concatenate([rows, text], axis=1)

    with nn.intercept_methods(put_before):
      encoded: jax.Array = super().encode(
        self._behind_prompt(encoder_input_tokens), None, enable_dropout
      )
    return encoded

  def decode(
    self,
    encoded: jax.Array,
    encoder_input_tokens: jax.Array,
    *args: Any,
    **kwargs: Any,
  ) -> jax.Array:
    """Decode, and attend to the prompt too.

    Args:
      encoded: [B, P + T, H].
      encoder_input_tokens: [B, T]; says which positions are padding.
      *args: as T5X's.
      **kwargs: as T5X's.

    Returns:
      [B, S, V] logits.
    """
    tokens = self._behind_prompt(encoder_input_tokens)
    logits: jax.Array = super().decode(encoded, tokens, *args, **kwargs)
    return logits

  def _vectors(self, features: int) -> jax.Array:
    """Return the prompt, [P, features] float32."""
    shape = (self.prompt_length, features)
    if not self.prompt_is_parameter:
      return self.prompt_start(jax.random.key(0), shape, jnp.float32)
    folder = _Folder(
      shape, self.prompt_start, parent=self.encoder, name="prompt"
    )
    vectors: jax.Array = folder()
    return vectors

  def _behind_prompt(self, tokens: jax.Array) -> jax.Array:
    """Put P ids before those of a text; any ids except padding."""
    before = ((0, 0), (self.prompt_length, 0))
    return jnp.pad(tokens, before, constant_values=1)


class _Folder(nn.Module):
  """The first half of a path that comes from two modules in the public code."""

  shape: tuple[int, int]
  start: Start

  @nn.compact
  def __call__(self) -> jax.Array:
    vectors: jax.Array = _Vectors(self.shape, self.start, name="prompt")()
    return vectors


class _Vectors(nn.Module):
  """The parameter."""

  shape: tuple[int, int]
  start: Start

  @nn.compact
  def __call__(self) -> jax.Array:
    vectors: jax.Array = partitioning.param_with_axes(
      "prompt", self.start, self.shape, jnp.float32, axes=AXES
    )
    return vectors
