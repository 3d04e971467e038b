"""The encoder and decoder stacks: layers, scanned or not, and the head.

Each layer gets its own slice of the `Delta`; a `StackContext` holds what all
layers of a stack share. Layers are unrolled under `layers_<i>`, or, with
`config.scan_layers`, stacked under `layers` and scanned.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.core.delta import Delta
from prompt_tuning.core.types import Array
from prompt_tuning.models.t5 import dropout as masks
from prompt_tuning.models.t5 import sites
from prompt_tuning.models.t5.attention import Attention, RelativePositionBias
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.models.t5.dropout import dropout
from prompt_tuning.models.t5.layers import MLP, Dense, RMSNorm

ACTIVATION_AXES = ("batch", "length", "embed")


class LayerCache(NamedTuple):
  """Keys and values of one decoder layer, [B, S or T, N, D] each."""

  self_key: Array
  self_value: Array
  cross_key: Array
  cross_value: Array


class StackContext(NamedTuple):
  """Inputs that all layers of a stack share.

  Attributes:
    mask: [B, 1, 1 or Q, S] booleans of the stack's self-attention.
    bias: [1, N, Q, S] relative position bias; each stack fills in its own.
    run_ids: [B] or None.
    dropout_keys: [B] PRNG keys of the stack, or None for no dropout.
    virtual_index: [B, T] virtual token of each position (negative: none), or
      None if no site needs it.
    prefix_bias: [1, N, Q, P] of a prefix right before the text; None if no site
      needs it.
  """

  mask: Array
  bias: Array | None = None
  run_ids: Array | None = None
  dropout_keys: Array | None = None
  virtual_index: Array | None = None
  prefix_bias: Array | None = None


class Cross(NamedTuple):
  """Inputs of a decoder layer besides `StackContext`.

  Attributes:
    mask: [B, 1, 1 or Q, T] booleans.
    encoded: [B, T, H] states; None if the cache holds their projections.
    start: position of the first query; traced while decoding.
  """

  mask: Array
  encoded: Any = None
  start: Array | int = 0


class EncoderLayer(nn.Module):
  """Self-attention and MLP, each pre-normed with a residual.

  Attributes:
    config: model configuration.
  """

  config: T5Config

  @nn.compact
  def __call__(
    self,
    x: Array,
    delta: Delta,
    keep_masks: tuple[Any, ...],
    context: StackContext,
  ) -> tuple[Array, None]:
    """Map [B, T, H] to ([B, T, H], None); the pair is what `nn.scan` wants.

    `keep_masks` is what dropout keeps in this layer, see `Encoder`.
    """
    config, run_ids = self.config, context.run_ids
    in_attention, attended, in_mlp, mapped = keep_masks
    x = sites.hidden(
      x, delta.hidden.get("encoder"), context.virtual_index, run_ids
    )

    y = RMSNorm(config, name="pre_attention_layer_norm")(x)
    y = sites.scale(y, delta.norm.get("enc_self"), run_ids)
    attention = Attention(config, "enc_self", name="attention")
    key, value = attention.keys_values(y, delta, run_ids)
    y = attention(
      y,
      key,
      value,
      context.mask,
      context.bias,
      delta,
      run_ids,
      in_attention,
      context.prefix_bias,
    )
    x = x + dropout(y, config.dropout_rate, attended)

    y = RMSNorm(config, name="pre_mlp_layer_norm")(x)
    y = sites.scale(y, delta.norm.get("enc_mlp"), run_ids)
    y = MLP(config, "enc_mlp", name="mlp")(y, delta, run_ids, in_mlp)
    x = x + dropout(y, config.dropout_rate, mapped)
    return nn.with_logical_constraint(x, ACTIVATION_AXES), None


class DecoderLayer(nn.Module):
  """Causal self-attention, cross-attention and MLP.

  Attributes:
    config: model configuration.
    keep_cache: return this layer's keys and values.
  """

  config: T5Config
  keep_cache: bool = False

  @nn.compact
  def __call__(
    self,
    x: Array,
    delta: Delta,
    keep_masks: tuple[Any, ...],
    cache: LayerCache | None,
    context: StackContext,
    cross: Cross,
  ) -> tuple[Array, LayerCache | None]:
    """Run the layer on new positions, against the cache when there is one.

    Args:
      x: [B, Q, H].
      delta: this layer's sites.
      keep_masks: what dropout keeps in this layer, see `Decoder`.
      cache: keys and values of earlier positions, or None.
      context: what the stack shares.
      cross: what the stack attends to.

    Returns:
      ([B, Q, H], the layer's cache when `keep_cache`, else None).
    """
    config, run_ids = self.config, context.run_ids
    in_self, attended, in_cross, crossed, in_mlp, mapped = keep_masks
    x = sites.hidden(
      x, delta.hidden.get("decoder"), context.virtual_index, run_ids
    )

    y = RMSNorm(config, name="pre_self_attention_layer_norm")(x)
    y = sites.scale(y, delta.norm.get("dec_self"), run_ids)
    attention = Attention(config, "dec_self", name="self_attention")
    key, value = attention.keys_values(y, delta, run_ids)
    if cache is not None:
      at = (0, cross.start, 0, 0)
      key = jax.lax.dynamic_update_slice(cache.self_key, key, at)
      value = jax.lax.dynamic_update_slice(cache.self_value, value, at)
    y = attention(
      y,
      key,
      value,
      context.mask,
      context.bias,
      delta,
      run_ids,
      in_self,
      context.prefix_bias,
    )
    x = x + dropout(y, config.dropout_rate, attended)

    y = RMSNorm(config, name="pre_cross_attention_layer_norm")(x)
    y = sites.scale(y, delta.norm.get("cross"), run_ids)
    attention = Attention(config, "cross", name="encoder_decoder_attention")
    across = None
    if cache is not None:
      across = cache.cross_key, cache.cross_value
    elif self.keep_cache or not attention.absorbs(
      y.shape[1], cross.encoded, delta
    ):
      across = attention.keys_values(cross.encoded, delta, run_ids)
    if across is None:
      y = attention.attend_states(
        y, cross.encoded, cross.mask, delta, run_ids, in_cross
      )
    else:
      y = attention(y, *across, cross.mask, None, delta, run_ids, in_cross)
    x = x + dropout(y, config.dropout_rate, crossed)

    y = RMSNorm(config, name="pre_mlp_layer_norm")(x)
    y = sites.scale(y, delta.norm.get("dec_mlp"), run_ids)
    y = MLP(config, "dec_mlp", name="mlp")(y, delta, run_ids, in_mlp)
    x = x + dropout(y, config.dropout_rate, mapped)
    x = nn.with_logical_constraint(x, ACTIVATION_AXES)
    if not self.keep_cache or across is None:
      return x, None
    return x, LayerCache(key, value, *across)


@functools.lru_cache
def _rematerialised(layer: Any, policy: str) -> Any:
  """Choose what a layer keeps for its backward pass."""
  if policy == "none":
    return layer
  keep = jax.checkpoint_policies
  return nn.remat(
    layer,
    policy=keep.dots_with_no_batch_dims_saveable
    if policy == "minimal"
    else keep.nothing_saveable,
  )


def _scanned(layer: Any, in_axes: tuple[Any, ...], length: int) -> Any:
  """Stack a layer's parameters under one leading axis and scan over them."""
  return nn.scan(
    layer,
    variable_axes={"params": 0},
    split_rngs={"params": True},
    in_axes=in_axes,
    length=length,
    metadata_params={nn.PARTITION_NAME: "layers"},
  )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _traced_once(layer: nn.Module, _: Any, params: Any, *args: Any) -> Any:
  """Apply a layer; layers with the same shapes share one trace.

  Args:
    layer: the unbound layer.
    _: flax's axis rules, on which a trace depends.
    params: parameters of the layer.
    *args: arguments of its `__call__`.
  """
  return layer.apply({"params": params}, *args)


def _apply(stack: nn.Module, i: int, kind: Any, *args: Any) -> Any:
  """Run layer `i` of a stack, or declare its parameters.

  Args:
    stack: the bound module.
    i: index of the layer.
    kind: (layer class, *its attributes).
    *args: arguments of the layer's `__call__`.
  """
  layer, *attributes = kind
  name = f"layers_{i}"
  if stack.is_initializing():
    return layer(*attributes, name=name)(*args)
  params = stack.variables["params"][name]
  bare = layer(*attributes, parent=None)
  rules = tuple(map(tuple, nn.get_logical_axis_rules()))
  return _traced_once(bare, rules, params, *args)


class Encoder(nn.Module):
  """The stack of encoder layers.

  Attributes:
    config: model configuration.
  """

  config: T5Config

  @nn.compact
  def __call__(self, x: Array, delta: Delta, context: StackContext) -> Array:
    """Map embedded inputs [B, T, H] to states [B, T, H].

    Args:
      x: [B, T, H].
      delta: all sites; the encoder's are selected here.
      context: what the layers share, but for the bias, which is made here.
    """
    config = self.config
    count, keys = config.num_encoder_layers, context.dropout_keys
    bias = RelativePositionBias(config, True, name="relpos_bias")
    context = _with_bias(context, bias, delta, "enc_self", x.shape[1])
    per_layer = sites.layer_sites(delta, "encoder")
    rate, hidden = config.dropout_rate, (config.emb_dim,)
    # In the order in which a layer takes them apart.
    weights = _weights(config, x, per_layer, "enc_self")
    uses = (weights, hidden, (config.mlp_dim,), hidden)
    keep_masks = masks.of_layers(keys, rate, count, uses)
    before, after = masks.around_layers(keys, rate, count, *hidden)

    x = dropout(x, rate, before)
    layer_class = _rematerialised(EncoderLayer, config.remat_policy)
    if config.scan_layers:
      layers = _scanned(layer_class, (0, 0, nn.broadcast), count)
      x, _ = layers(config, name="layers")(x, per_layer, keep_masks, context)
    else:
      for i in range(count):
        here = (x, *_at((per_layer, keep_masks), i), context)
        x, _ = _apply(self, i, (layer_class, config), *here)
    x = RMSNorm(config, name="encoder_norm")(x)
    x = sites.final_norm(x, delta, "encoder", context.run_ids)
    return dropout(x, rate, after)


class Decoder(nn.Module):
  """The stack of decoder layers and, when it is not tied, the output head.

  Attributes:
    config: model configuration.
  """

  config: T5Config

  @nn.compact
  def __call__(
    self,
    x: Array,
    delta: Delta,
    context: StackContext,
    cross: Cross,
    past: Any = None,
    keep_cache: bool = False,
    last_only: bool = False,
  ) -> tuple[Array, Array | None, Any]:
    """Run all layers on new positions.

    Args:
      x: [B, Q, H] embedded inputs.
      delta: all sites; the decoder's are selected here.
      context: what the layers share, but for the bias, which is made here.
      cross: what the layers attend to.
      past: `Cache.layers` of earlier positions, or None.
      keep_cache: return the layers' keys and values.
      last_only: return states and logits of the last position only.

    Returns:
      (normed states [B, Q or 1, H], float32 logits [B, Q or 1, V] or None when
      the head is tied, the layers' caches or None).
    """
    config = self.config
    count, keys = config.num_decoder_layers, context.dropout_keys
    bias = RelativePositionBias(config, False, name="relpos_bias")
    context = _with_bias(
      context, bias, delta, "dec_self", x.shape[1], cross.start
    )
    per_layer = sites.layer_sites(delta, "decoder")
    rate, hidden = config.dropout_rate, (config.emb_dim,)
    # In the order in which a layer takes them apart.
    within = _weights(config, x, per_layer, "dec_self")
    across = _weights(config, cross.encoded, per_layer, "cross")
    uses = (within, hidden, across, hidden, (config.mlp_dim,), hidden)
    keep_masks = masks.of_layers(keys, rate, count, uses)
    before, after = masks.around_layers(keys, rate, count, *hidden)

    x = dropout(x, rate, before)
    layer_class = _rematerialised(DecoderLayer, config.remat_policy)
    if config.scan_layers:
      layers = _scanned(
        layer_class, (0, 0, 0, nn.broadcast, nn.broadcast), count
      )
      x, new = layers(config, keep_cache, name="layers")(
        x, per_layer, keep_masks, past, context, cross
      )
    else:
      caches = []
      for i in range(count):
        earlier = None if past is None else past[i]
        here = (x, *_at((per_layer, keep_masks), i), earlier, context, cross)
        kind = (layer_class, config, keep_cache)
        x, layer_cache = _apply(self, i, kind, *here)
        caches.append(layer_cache)
      new = tuple(caches)
    x = x[:, -1:] if last_only else x
    x = RMSNorm(config, name="decoder_norm")(x)
    x = sites.final_norm(x, delta, "decoder", context.run_ids)
    x = dropout(x, rate, after)
    return x, self._head(x), new

  def _head(self, x: Array) -> Array | None:
    if self.config.logits_via_embedding:
      return None
    # The head runs in float32 whatever the activations are, as in T5X.
    return Dense(
      self.config.emb_dim,
      self.config.vocab_size,
      ("embed", "vocab"),
      nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),
      self.config,
      name="logits_dense",
    )(x.astype(jnp.float32), Delta())


def _with_bias(
  context: StackContext,
  bias: RelativePositionBias,
  delta: Delta,
  site: str,
  queries: int,
  start: Array | int = 0,
) -> StackContext:
  """Compute a stack's relative position bias, also of a prefix before 0."""
  prefix, keys = delta.prefix.get(site), context.mask.shape[-1]
  if prefix is None or prefix.positioned is None:
    return context._replace(bias=bias(queries, keys, start))
  length = prefix.key.shape[2]
  whole = bias(queries, length + keys, start + length)
  return context._replace(
    bias=whole[..., length:], prefix_bias=whole[..., :length]
  )


def _at(per_layer: Any, i: int) -> Any:
  return jax.tree.map(lambda a: a[i], per_layer)


def _weights(
  config: T5Config, keys: Array | None, per_layer: Delta, site: str
) -> tuple[int, int]:
  """Give heads and keys of an attention: its own [B, S, H], and a prefix."""
  prefix = per_layer.prefix.get(site)
  length = 0 if keys is None else keys.shape[1]
  more = 0 if prefix is None else prefix.key.shape[2]
  return config.num_heads, length + more
