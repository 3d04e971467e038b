"""T5's attention and relative positions.

As in T5X: no 1/sqrt(D), no biases, an additive mask, and one table of relative
positions per stack.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from prompt_tuning.core.delta import Delta
from prompt_tuning.core.types import Array
from prompt_tuning.models.t5 import sites
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.models.t5.dropout import dropout
from prompt_tuning.models.t5.layers import Dense, parameter

# Additive mask of T5X: far below any logit, finite in bfloat16, so that a row
# without any key gives a mean instead of NaN.
MASKED_LOGIT = -1e10


def relative_position_bucket(
  relative_position: np.ndarray,
  *,
  bidirectional: bool,
  num_buckets: int,
  max_distance: int,
) -> np.ndarray:
  """Map key-minus-query distances to T5's buckets.

  Half of the buckets are exact distances, the rest grow logarithmically up to
  `max_distance`; bidirectional attention splits them between the directions.

  Args:
    relative_position: integers, key position - query position.
    bidirectional: whether queries attend to later keys.
    num_buckets: buckets in all.
    max_distance: distance from which all distances share the last bucket.

  Returns:
    int32 buckets of the same shape. The logarithm is taken in float32 with a
    machine-epsilon term, like the published code, so that bucket edges agree.
  """
  distance = -np.asarray(relative_position)
  offset = np.zeros_like(distance)
  if bidirectional:
    num_buckets //= 2
    offset = np.where(distance < 0, num_buckets, 0)
    distance = np.abs(distance)
  else:
    distance = np.maximum(distance, 0)
  exact = num_buckets // 2
  epsilon = np.finfo(np.float32).eps
  growth = np.log(distance.astype(np.float32) / exact + epsilon) / np.float32(
    np.log(max_distance / exact)
  )
  large = exact + (growth * (num_buckets - exact)).astype(np.int32)
  large = np.minimum(large, num_buckets - 1)
  return (offset + np.where(distance < exact, distance, large)).astype(np.int32)


class RelativePositionBias(nn.Module):
  """Attention bias by bucketed distance, one table for a whole stack.

  Attributes:
    config: model configuration.
    bidirectional: encoder (True) or causal decoder (False) buckets.
  """

  config: T5Config
  bidirectional: bool

  @nn.compact
  def __call__(
    self, query_length: int, key_length: int, query_start: Array | int = 0
  ) -> Array:
    """Compute the bias of consecutive queries over all keys.

    Args:
      query_length: Q.
      key_length: S; keys stand at positions 0..S-1.
      query_start: position of the first query (traced while decoding).

    Returns:
      [1, N, Q, S] in the activation dtype.
    """
    config = self.config
    table = parameter(
      self,
      "rel_embedding",
      nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
      (config.num_heads, config.relpos_buckets),
      ("heads", "relpos_buckets"),
    )
    # One value per distance, then a window of them per query: key - query runs
    # over key_length values and moves down by one from query to query.
    distances = np.arange(-(key_length - 1), key_length)
    buckets = relative_position_bucket(
      distances,
      bidirectional=self.bidirectional,
      num_buckets=config.relpos_buckets,
      max_distance=config.relpos_max_distance,
    )
    by_distance = table.astype(config.dtype)[:, buckets]
    queries = query_start + jnp.arange(query_length)
    index = jnp.arange(key_length)[None, :] - queries[:, None] + key_length - 1
    return by_distance[None, :, index]


class Attention(nn.Module):
  """Multi-head attention over given keys and values, without 1/sqrt(D).

  Attributes:
    config: model configuration.
    site: `enc_self`, `dec_self` or `cross`.
  """

  config: T5Config
  site: str

  def setup(self) -> None:
    """Declare the four kernels."""
    config = self.config
    joined = config.num_heads * config.head_dim
    init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")

    # T5 has no factor 1/sqrt(D) in attention: it is part of the query's
    # initialiser.
    def query_init(*args: Any) -> Array:
      return init(*args) / jnp.sqrt(config.head_dim).astype(config.param_dtype)

    def kernel(name: str, kernel_init: Any) -> Dense:
      inward = name != "out"
      sizes = (config.emb_dim, joined) if inward else (joined, config.emb_dim)
      axes = ("embed", "joined_kv") if inward else ("joined_kv", "embed")
      site = f"{self.site}/{name}"
      return Dense(*sizes, axes, kernel_init, config, site, name=name)

    self.query = kernel("query", query_init)
    self.key = kernel("key", init)
    self.value = kernel("value", init)
    self.out = kernel("out", init)

  def keys_values(
    self, source: Array, delta: Delta, run_ids: Array | None
  ) -> tuple[Array, Array]:
    """Project states to keys and values: [B, S, H] -> two [B, S, N, D]."""
    return (
      self._split(self.key(source, delta, run_ids)),
      self._split(self.value(source, delta, run_ids)),
    )

  def __call__(
    self,
    x: Array,
    key: Array,
    value: Array,
    mask: Array,
    bias: Array | None,
    delta: Delta,
    run_ids: Array | None,
    keep: Array | None,
    prefix_bias: Array | None = None,
  ) -> Array:
    """Attend from x to the given keys and values.

    Args:
      x: [B, Q, H] normalised queries.
      key: [B, S, N, D].
      value: [B, S, N, D].
      mask: [B, 1, 1 or Q, S] booleans, True = attend.
      bias: [1, N, Q, S] or None.
      delta: this layer's sites.
      run_ids: [B] or None.
      keep: [B, N, 1, S] booleans, weights that dropout keeps, or None.
      prefix_bias: [1, N, Q, P] of a prefix with positions, or None.

    Returns:
      [B, Q, H].
    """
    query = self._split(self.query(x, delta, run_ids))
    site = delta.prefix.get(self.site)
    key, value, mask, bias = sites.prefix(
      key, value, mask, bias, site, run_ids, prefix_bias
    )
    query, key, value = (jnp.moveaxis(a, 1, 2) for a in (query, key, value))
    y = self._attend(
      ("nqd,nsd->nqs", "nqs,nsd->nqd"),
      (query, key, value, mask, keep),
      bias,
    )
    return self._outward(jnp.moveaxis(y, 1, 2), x, delta, run_ids)

  def absorbs(self, queries: int, states: Array, delta: Delta) -> bool:
    """Whether `attend_states` computes the same with less arithmetic.

    Projecting S states costs S x H x D per head; applying the projections to
    the queries instead costs S x H x Q. If this saves little, T5X's order of
    multiplication is kept, and thus its rounding.

    Args:
      queries: number of queries, Q.
      states: [B, S, H].
      delta: this layer's sites.
    """
    config = self.config
    plain = self.key.untouched(delta) and self.value.untouched(delta)
    work = states.size * config.num_heads * config.head_dim
    return (
      plain
      and self.site not in delta.prefix
      and queries < config.head_dim
      and work >= config.absorb_from
    )

  def attend_states(
    self,
    x: Array,
    states: Array,
    mask: Array,
    delta: Delta,
    run_ids: Array | None,
    keep: Array | None,
  ) -> Array:
    """Attend from a few queries to states, without projecting the states.

    (x W_q) (s W_k)^T = ((x W_q) W_k^T) s^T, and weights (s W_v) = (weights s)
    W_v: the two kernels are applied to the queries and to the weighted states.

    Args:
      x: [B, Q, H] normalised queries.
      states: [B, S, H].
      mask: [B, 1, 1 or Q, S] booleans, True = attend.
      delta: this layer's sites.
      run_ids: [B] or None.
      keep: [B, N, 1, S] booleans, weights that dropout keeps, or None.

    Returns:
      [B, Q, H], equal to the result of `__call__` up to rounding.
    """
    config = self.config
    heads = (config.emb_dim, config.num_heads, config.head_dim)
    query = self._split(self.query(x, delta, run_ids))
    query = self.key.contract("bqnd,hnd->bnqh", query, heads)
    y = self._attend(
      ("nqh,sh->nqs", "nqs,sh->nqh"),
      (query, states, states, mask, keep),
      None,
    )
    y = self.value.contract("bnqh,hnd->bqnd", y, heads)
    return self._outward(y, x, delta, run_ids)

  def _split(self, x: Array) -> Array:
    heads = (self.config.num_heads, self.config.head_dim)
    return x.reshape(*x.shape[:-1], *heads)

  def _outward(
    self, y: Array, x: Array, delta: Delta, run_ids: Array | None
  ) -> Array:
    """Combine the heads' [B, Q, N, D]; x is the input of the attention."""
    y = self.out(y.reshape(*y.shape[:2], -1), delta, run_ids)
    return sites.bottleneck(y, x, delta.bottleneck.get(self.site), run_ids)

  def _attend(
    self,
    equations: tuple[str, str],
    operands: tuple[Array, Array, Array, Array, Array | None],
    bias: Array | None,
  ) -> Array:
    """Compute weighted values for every row: all at once, or in groups of rows.

    Args:
      equations: einsum equations of one row: queries with keys, and weights
        with values.
      operands: queries [B, N, Q, .], keys, values, mask [B, 1, 1 or Q, S] and
        what dropout keeps [B, N, 1, S] or None.
      bias: [1, N, Q, S], or [B, ...] where rows differ, or None.

    Returns:
      [B, N, Q, .].
    """
    by_row = bias is not None and len(bias) > 1

    def one(row: tuple[Any, ...]) -> Array:
      (query, key, value, mask, keep), own_bias = row
      dtype = query.dtype
      if self.config.float32_attention_logits:
        query, key = query.astype(jnp.float32), key.astype(jnp.float32)
      logits = jnp.einsum(equations[0], query, key)
      # Added, as in T5X: a select of logits would need one of gradients too.
      masked = jnp.asarray(MASKED_LOGIT, logits.dtype)
      if bias is not None and not by_row:
        own_bias = bias[0]
      added = 0 if own_bias is None else own_bias.astype(logits.dtype)
      logits += jnp.where(mask, added, masked)
      weights = jax.nn.softmax(logits, axis=-1).astype(dtype)
      weights = dropout(weights, self.config.dropout_rate, keep)
      return jnp.einsum(equations[1], weights, value)

    query, mask = operands[0], operands[3]
    by_rows = (operands, bias if by_row else None)
    rows, limit = len(query), self.config.attention_bytes
    if limit is None:
      return jax.vmap(one)(by_rows)
    row_bytes = query[0, ..., 0].size * mask.shape[-1] * query.dtype.itemsize
    if rows * row_bytes <= limit:
      return jax.vmap(one)(by_rows)
    # The backward pass computes one group's values again; they are not kept.
    turn = max(1, limit // row_bytes)
    return jax.lax.map(
      jax.checkpoint(one), by_rows, batch_size=turn if turn > 1 else None
    )
