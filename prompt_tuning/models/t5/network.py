"""The T5 encoder-decoder as a pure function of (frozen, batch, delta).

One masked path serves training, prefill and cached decoding. A batch is a
mapping with T5X's feature names:

  encoder_input_tokens   [B, T] ids, 0 = padding on either side, >= V virtual
  decoder_input_tokens   [B, S] ids, targets shifted right behind a 0
  decoder_target_tokens  [B, S] ids, 0 = no target
  encoder_segment_ids    [B, T] only when packed: 1-based, 0 = padding
  decoder_segment_ids    [B, S] only when packed
  run_ids                [B] run of each row; absent when the delta has one run
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from prompt_tuning.core.axes import LogicalAxes
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.types import PAD_ID, Array, Batch
from prompt_tuning.models.t5 import quantized, site_shapes, sites
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.models.t5.dropout import fold_keys
from prompt_tuning.models.t5.layers import TokenEmbedder
from prompt_tuning.models.t5.stacks import (
  ACTIVATION_AXES,
  Cross,
  Decoder,
  Encoder,
  LayerCache,
  StackContext,
)


class Encoded(NamedTuple):
  """The encoder's output, to which the decoder attends.

  Attributes:
    states: [B, T, H] encoder states.
    mask: [B, T] booleans, True = the position holds a token.
  """

  states: Array
  mask: Array


class Cache(NamedTuple):
  """The state of incremental decoding.

  Attributes:
    layers: one `LayerCache` per layer; one with a leading L axis if the layers
      are scanned.
    self_mask: [B, S] booleans, the decoder positions written so far that hold a
      token (a left-padded start does not).
    cross_mask: [B, T] booleans.
    position: scalar, the next decoder position.
  """

  layers: tuple[LayerCache, ...] | LayerCache
  self_mask: Array
  cross_mask: Array
  position: Array


class T5(nn.Module):
  """A T5 that accepts a `Delta`: `T5(config).apply({"params": p}, batch, d)`.

  Attributes:
    config: model configuration.
  """

  config: T5Config

  def setup(self) -> None:
    """Declare the table and the two stacks under T5X's names."""
    self.token_embedder = TokenEmbedder(self.config)
    self.encoder = Encoder(self.config)
    self.decoder = Decoder(self.config)

  def __call__(
    self,
    batch: Batch,
    delta: Delta | None = None,
    dropout_keys: Array | None = None,
  ) -> Array:
    """Compute the logits of every target position, teacher-forced.

    Args:
      batch: see the module docstring.
      delta: what a tuning method adds; None or `Delta()` is the plain T5.
      dropout_keys: [B] PRNG keys, one per row, or None for no dropout.

    Returns:
      [B, S, V] float32, or [B, S, V + C] with `delta.head_rows`.
    """
    return self.outputs(batch, delta, dropout_keys).logits

  def outputs(
    self,
    batch: Batch,
    delta: Delta | None = None,
    dropout_keys: Array | None = None,
  ) -> Outputs:
    """Compute the logits, as `__call__` does, and the states before them.

    Args:
      batch: see the module docstring.
      delta: the changes of a tuning method.
      dropout_keys: [B] PRNG keys or None.

    Returns:
      Logits, and the last states of both stacks.
    """
    encoder_keys = fold_keys(dropout_keys, 0)
    encoded = self.encode(batch, delta, encoder_keys)
    logits, states = self._decode_targets(
      batch, encoded, delta, fold_keys(dropout_keys, 1)
    )
    return Outputs(logits, encoded.states, states)

  def encode(
    self,
    batch: Batch,
    delta: Delta | None = None,
    dropout_keys: Array | None = None,
  ) -> Encoded:
    """Run the encoder.

    Args:
      batch: needs `encoder_input_tokens`, and segment and run ids if used.
      delta: the changes of a tuning method.
      dropout_keys: [B] PRNG keys or None.

    Returns:
      States [B, T, H] and the mask of real tokens [B, T].

    Raises:
      ValueError: the delta does not fit the model; it has several runs and the
        batch has no `run_ids`; or its prefix is positioned and the batch is
        packed.
    """
    delta = Delta() if delta is None else delta
    ids, run_ids = batch["encoder_input_tokens"], batch.get("run_ids")
    runs = site_shapes.check(delta, self.config)
    if runs > 1 and run_ids is None:
      raise ValueError(
        f"The delta holds {runs} runs: the batch needs `run_ids` [B] to say "
        "which run each row belongs to."
      )
    valid = ids != PAD_ID
    segments = batch.get("encoder_segment_ids")
    _check_packed(segments, delta, "enc_self")
    mask = _key_mask(valid) & _same_segment(segments, segments)
    virtual = ids >= self.config.vocab_size
    context = StackContext(
      mask=sites.sight(mask, virtual, delta.sight, run_ids),
      run_ids=run_ids,
      dropout_keys=dropout_keys,
      virtual_index=self._virtual_index(ids, delta, "encoder"),
    )
    x = self.token_embedder(ids, delta.virtual, run_ids)
    x = nn.with_logical_constraint(x, ACTIVATION_AXES)
    return Encoded(self.encoder(x, delta, context), valid)

  def decode(
    self,
    batch: Batch,
    encoded: Encoded,
    delta: Delta | None = None,
    dropout_keys: Array | None = None,
  ) -> Array:
    """Run the decoder over whole target sequences.

    Args:
      batch: needs the two decoder features, and segment and run ids if used.
      encoded: the encoder's output for the same rows.
      delta: the changes of a tuning method.
      dropout_keys: [B] PRNG keys or None.

    Returns:
      [B, S, V (+ C)] float32 logits.
    """
    return self._decode_targets(batch, encoded, delta, dropout_keys)[0]

  def _decode_targets(
    self,
    batch: Batch,
    encoded: Encoded,
    delta: Delta | None,
    dropout_keys: Array | None,
  ) -> tuple[Array, Array]:
    """Run the decoder, see `decode`; also return the head's input."""
    delta = Delta() if delta is None else delta
    ids = batch["decoder_input_tokens"]
    # A start token is 0 like padding, but only the start token has a target.
    valid = (ids != PAD_ID) | (batch["decoder_target_tokens"] != PAD_ID)
    segments = batch.get("decoder_segment_ids")
    _check_packed(segments, delta, "dec_self")
    across = _same_segment(segments, batch.get("encoder_segment_ids"))
    positions = jnp.arange(ids.shape[1])
    context = StackContext(
      mask=_causal_mask(valid, positions) & _same_segment(segments, segments),
      run_ids=batch.get("run_ids"),
      dropout_keys=dropout_keys,
      virtual_index=self._virtual_index(ids, delta, "decoder"),
    )
    cross = Cross(_key_mask(encoded.mask) & across, encoded.states)
    logits, states, _ = self._decode(ids, delta, context, cross)
    return logits, states

  def prefill(
    self,
    tokens: Array,
    valid: Array,
    encoded: Encoded,
    length: int,
    delta: Delta | None = None,
    run_ids: Array | None = None,
  ) -> tuple[Array, Cache]:
    """Read the decoder's first tokens and start a cache.

    Args:
      tokens: [B, Q] ids, usually one start token 0; with decoder prompts of
        several lengths, padded on the left.
      valid: [B, Q] booleans, False on that padding.
      encoded: the encoder's output.
      length: decoder positions that the cache has room for, including Q.
      delta: the changes of a tuning method.
      run_ids: [B] or None.

    Returns:
      (logits of the last token [B, 1, V (+ C)], the cache).

    Raises:
      ValueError: `length` is smaller than Q.
    """
    delta = Delta() if delta is None else delta
    count = tokens.shape[1]
    if length < count:
      raise ValueError(
        f"A cache of length {length} cannot hold the {count} tokens that "
        "decoding starts from; raise the maximal decode length."
      )
    context = StackContext(
      mask=_causal_mask(valid, jnp.arange(count)),
      run_ids=run_ids,
      virtual_index=self._virtual_index(tokens, delta, "decoder"),
    )
    cross = Cross(_key_mask(encoded.mask), encoded.states)
    logits, _, layers = self._decode(
      tokens, delta, context, cross, keep_cache=True, last_only=True
    )

    # The length axis is the third from the right in [(L,) B, S, N, D].
    def grow(a: Array) -> Array:
      pad = [(0, 0)] * a.ndim
      pad[-3] = (0, length - count)
      return jnp.pad(a, pad)

    def grow_layer(layer: LayerCache) -> LayerCache:
      key, value = grow(layer.self_key), grow(layer.self_value)
      return layer._replace(self_key=key, self_value=value)

    layers = jax.tree.map(
      grow_layer, layers, is_leaf=lambda x: isinstance(x, LayerCache)
    )
    self_mask = jnp.pad(valid, ((0, 0), (0, length - count)))
    position = jnp.asarray(count, jnp.int32)
    return logits, Cache(layers, self_mask, encoded.mask, position)

  def step(
    self,
    tokens: Array,
    cache: Cache,
    delta: Delta | None = None,
    run_ids: Array | None = None,
  ) -> tuple[Array, Cache]:
    """Read the next tokens against the cache.

    Args:
      tokens: [B, Q] ids, usually Q = 1.
      cache: from `prefill` or an earlier step; with room for Q more.
      delta: the changes of a tuning method.
      run_ids: [B] or None.

    Returns:
      (logits [B, Q, V (+ C)], the updated cache).
    """
    delta = Delta() if delta is None else delta
    count = tokens.shape[1]
    self_mask = jax.lax.dynamic_update_slice(
      cache.self_mask, jnp.ones(tokens.shape, bool), (0, cache.position)
    )
    context = StackContext(
      mask=_causal_mask(self_mask, cache.position + jnp.arange(count)),
      run_ids=run_ids,
      virtual_index=self._virtual_index(tokens, delta, "decoder"),
    )
    cross = Cross(_key_mask(cache.cross_mask), start=cache.position)
    logits, _, layers = self._decode(
      tokens, delta, context, cross, cache.layers, keep_cache=True
    )
    return logits, Cache(
      layers, self_mask, cache.cross_mask, cache.position + count
    )

  def _decode(
    self,
    ids: Array,
    delta: Delta,
    context: StackContext,
    cross: Cross,
    past: Any = None,
    keep_cache: bool = False,
    last_only: bool = False,
  ) -> tuple[Array, Array, Any]:
    run_ids = context.run_ids
    x = self.token_embedder(ids, delta.virtual, run_ids)
    x = nn.with_logical_constraint(x, ACTIVATION_AXES)
    x, logits, layers = self.decoder(
      x, delta, context, cross, past, keep_cache, last_only
    )
    if logits is None:
      logits = self.token_embedder.attend(x)
    logits = sites.head_rows(
      logits, x, delta.head_rows, run_ids, delta.head_mask
    )
    return logits, x, layers

  def _virtual_index(
    self, ids: Array, delta: Delta, stack: str
  ) -> Array | None:
    if stack not in delta.hidden:
      return None
    return ids - self.config.vocab_size


def _key_mask(valid: Array) -> Array:
  """Let every query see the valid keys: [B, S] -> [B, 1, 1, S]."""
  return valid[:, None, None, :]


def _causal_mask(valid: Array, query_positions: Array) -> Array:
  """Let queries see valid keys up to themselves: -> [B, 1, Q, S]."""
  keys = jnp.arange(valid.shape[1])
  causal = keys[None, :] <= query_positions[:, None]
  return _key_mask(valid) & causal[None, None]


def _same_segment(
  query_segments: Array | None, key_segments: Array | None
) -> Array | bool:
  """Keep attention within packed segments: [B, 1, Q, S], or True unpacked."""
  if query_segments is None or key_segments is None:
    return True
  same = query_segments[:, :, None] == key_segments[:, None, :]
  return same[:, None]


def _check_packed(segments: Array | None, delta: Delta, site: str) -> None:
  """Refuse a positioned prefix if a row holds several texts.

  Raises:
    ValueError: the prefix is positioned and the batch is packed.
  """
  prefix = delta.prefix.get(site)
  if segments is None or prefix is None or prefix.positioned is None:
    return
  raise ValueError(
    f"A prefix with positions ({site}) stands right before one text, but a "
    "packed row holds several texts: set BATCHING to 'buckets' and, where "
    "classes are ranked, SCORER to @scorers.FirstPiece(), or PREFIX_POSITIONS "
    "to False."
  )


def shift_right(targets: Array) -> Array:
  """Make decoder inputs from unpacked targets: a 0, then all but the last.

  Args:
    targets: [B, S] ids.

  Returns:
    [B, S] ids.
  """
  return jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))


def score(logits: Array, targets: Array) -> Array:
  """Sum the log-likelihoods of given targets.

  Args:
    logits: [B, S, V] float32.
    targets: [B, S] ids; 0 is not scored.

  Returns:
    [B] float32, natural logarithm.

  Source: T5X's score_batch (z-loss excluded).
  """
  log_probs = jax.nn.log_softmax(logits)
  picked = jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
  return jnp.sum(jnp.where(targets != PAD_ID, picked, 0), axis=-1)


def output_rows(
  config: T5Config, params: Mapping[str, Any], ids: Sequence[int]
) -> Array:
  """Return the rows of some pieces in the output head.

  Args:
    config: configuration of the model.
    params: parameters of the model.
    ids: n pieces.

  Returns:
    [n, H] float32; a piece's logit is the product of its row and the head's
    input.
  """
  index = jnp.asarray(ids, jnp.int32)
  if config.logits_via_embedding:
    rows = quantized.embedding_table(params)[index].astype(jnp.float32)
    return rows / np.float32(np.sqrt(config.emb_dim))
  head = params["decoder"]["logits_dense"]
  scale = head.get("kernel" + quantized.SUFFIX)
  kernel = quantized.dequantize(head["kernel"], scale, jnp.float32)
  return kernel[:, index].T


def _init(config: T5Config, key: Array) -> Mapping[str, Any]:
  ids = jnp.ones((1, 2), jnp.int32)
  batch = {
    "encoder_input_tokens": ids,
    "decoder_input_tokens": ids,
    "decoder_target_tokens": ids,
  }
  return T5(config).init(key, batch)["params"]


@functools.cache
def _boxed_params(config: T5Config) -> Mapping[str, Any]:
  """Describe the tree by tracing one layer of each stack: all are alike."""
  if config.scan_layers:
    return jax.eval_shape(lambda: _init(config, jax.random.key(0)))
  shallow = dataclasses.replace(
    config, num_encoder_layers=1, num_decoder_layers=1
  )
  boxed = dict(jax.eval_shape(lambda: _init(shallow, jax.random.key(0))))
  for stack, count in (
    ("encoder", config.num_encoder_layers),
    ("decoder", config.num_decoder_layers),
  ):
    rest = dict(boxed[stack])
    layer = rest.pop("layers_0")
    boxed[stack] = rest | {f"layers_{i}": layer for i in range(count)}
  return boxed


def abstract_params(config: T5Config) -> Mapping[str, Any]:
  """Describe the parameter tree without allocating anything.

  Args:
    config: model configuration.

  Returns:
    Nested mappings of `jax.ShapeDtypeStruct`, under T5X's names; with
    `scan_layers`, a stack's layers lie under one `layers` with a leading L.
  """
  return nn.meta.unbox(_boxed_params(config))


def logical_axes(config: T5Config) -> Mapping[str, Any]:
  """Name the logical axes of every parameter.

  Args:
    config: model configuration.

  Returns:
    The tree of `abstract_params` with tuples of axis names as leaves.
  """

  def names(leaf: Any) -> LogicalAxes:
    return tuple(leaf.names)

  is_box = lambda x: isinstance(x, nn.LogicallyPartitioned)  # noqa: E731
  return jax.tree.map(names, _boxed_params(config), is_leaf=is_box)


def init_params(config: T5Config, key: Array) -> Mapping[str, Any]:
  """Draw a random model; for tests and for pretraining from scratch.

  Args:
    config: model configuration.
    key: PRNG key.

  Returns:
    The tree of `abstract_params`, with arrays. Not jitted: small compilations
    per shape beat one large one. Jit it with `out_shardings` to draw a model
    that does not fit one device.
  """
  return nn.meta.unbox(_init(config, key))
