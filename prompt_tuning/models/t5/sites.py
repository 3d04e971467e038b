"""The sites where a `Delta` changes the frozen T5; None changes nothing.

All functions are pure. Every array has a leading run axis K. `run_ids [B]` is
the run of each row of the batch; with K = 1, it may be None, and the run axis
is dropped instead of gathered. Shape letters: `core.types`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from prompt_tuning.core.delta import Bottleneck, Delta, Hidden, LowRank, Prefix
from prompt_tuning.core.types import Array, DType
from prompt_tuning.models.t5 import quantized

_NORM_EPSILON = 1e-5  # torch's, which adapters were published with
_STACK_SITES = {
  "encoder": ("enc_self", "enc_mlp"),
  "decoder": ("dec_self", "cross", "dec_mlp"),
}


def layer_sites(delta: Delta, stack: str) -> Delta:
  """Select one stack's per-layer sites and move the layer axis to the front.

  Args:
    delta: arrays [K, L, ...].
    stack: `encoder` or `decoder`.

  Returns:
    A `Delta` of that stack's per-layer fields, arrays [L, K, ...]; indexing or
    scanning over axis 0 gives the arrays of one layer's sites.
  """
  sites = _STACK_SITES[stack]

  def of_stack(field: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in field.items() if k.split("/")[0] in sites}

  selected = dataclasses.replace(
    delta,
    virtual=None,
    head_rows=None,
    head_mask=None,
    sight=None,
    log_weight=None,
    word_weights=None,
    prefix=of_stack(delta.prefix),
    hidden={k: v for k, v in delta.hidden.items() if k == stack},
    bottleneck=of_stack(delta.bottleneck),
    lowrank=of_stack(delta.lowrank),
    scale=of_stack(delta.scale),
    norm=of_stack(delta.norm),
  )
  return jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), selected)


def embed(
  table: Array,
  ids: Array,
  virtual: Array | None,
  run_ids: Array | None,
  dtype: DType,
  scale: Array | None = None,
) -> Array:
  """Look token ids up in the frozen table, and virtual ones in `virtual`.

  Args:
    table: [V, H], the frozen embedding table.
    ids: [B, T] integers; V + p is virtual token p.
    virtual: [K, P, H] or None.
    run_ids: [B] or None.
    dtype: dtype of the result.
    scale: [V, G] scales of a quantised table, or None.

  Returns:
    [B, T, H]. An id or run outside the arrays gives NaN, never another row.
  """
  if scale is None:
    rows = _rows_or_nan(table, ids).astype(dtype)
  else:  # integers have no NaN; their scales do
    rows = table.at[ids].get(mode="clip")
    rows = quantized.dequantize(rows, _rows_or_nan(scale, ids), dtype, -1)
  if virtual is None:
    return rows
  soft = virtual_rows(virtual, ids - table.shape[0], run_ids)
  is_virtual = (ids >= table.shape[0])[..., None]
  return jnp.where(is_virtual, soft.astype(dtype), rows)


def virtual_rows(values: Array, index: Array, run_ids: Array | None) -> Array:
  """Gather each row's own virtual vectors.

  Args:
    values: [K, P, H].
    index: [B, T] integers; outside [0, P) gives NaN.
    run_ids: [B] or None.

  Returns:
    [B, T, H] in the dtype of `values`.
  """
  num_runs, length, width = values.shape
  inside = (index >= 0) & (index < length)
  flat = index
  if run_ids is not None:
    inside &= (run_ids >= 0)[:, None]
    flat = index + length * run_ids[:, None]
  return _rows_or_nan(
    values.reshape(num_runs * length, width),
    jnp.where(inside, flat, num_runs * length),
  )


def sight(
  mask: Array,
  virtual: Array,
  site: Array | None,
  run_ids: Array | None,
) -> Array:
  """Hide positions from the virtual tokens of the encoder's input.

  Args:
    mask: [B, 1, 1 or T, T] booleans, True = attend.
    virtual: [B, T] booleans, True = a virtual token.
    site: [K, 3] booleans, see `Delta.sight`, or None.
    run_ids: [B] or None.

  Returns:
    [B, 1, T, T]; without a site, the mask unchanged.
  """
  if site is None:
    return mask
  earlier, later, text = _flags(site, run_ids, len(virtual)).T[..., None, None]
  keys = jnp.arange(virtual.shape[1])[None, None, :]
  queries = keys.swapaxes(1, 2)
  among = jnp.where(keys < queries, earlier, later) | (keys == queries)
  seen = jnp.where(virtual[:, None, :], among, text)
  return mask & (seen | ~virtual[:, :, None])[:, None]


def hidden(
  x: Array, site: Hidden | None, index: Array | None, run_ids: Array | None
) -> Array:
  """Replace, or add to, a layer's input at the virtual tokens.

  Args:
    x: [B, T, H].
    site: values [K, P, H] of this layer, or None.
    index: [B, T] virtual token of each position, negative for other tokens.
    run_ids: [B] or None.

  Returns:
    [B, T, H]; positions without a row in `site` keep their value.
  """
  if site is None or index is None:
    return x
  inside = ((index >= 0) & (index < site.values.shape[1]))[..., None]
  rows = virtual_rows(site.values, index, run_ids).astype(x.dtype)
  replaces = _gather_tokens(site.replace, index, run_ids)[..., None]
  return jnp.where(inside, jnp.where(replaces, rows, x + rows), x)


def prefix(
  key: Array,
  value: Array,
  mask: Array,
  bias: Array | None,
  site: Prefix | None,
  run_ids: Array | None,
  prefix_bias: Array | None = None,
) -> tuple[Array, Array, Array, Array | None]:
  """Put extra keys and values before an attention's own.

  Every query sees the prefix. Unless it is `positioned`, its relative bias is
  zero. (Prefix tuning for T5 leaves that choice open; zero is exact for
  cross-attention, which has no bias at all.)

  Args:
    key: [B, S, N, D].
    value: [B, S, N, D].
    mask: [B, 1, 1 or Q, S] booleans, True = attend.
    bias: [1, N, Q, S] or None.
    site: key and value [K, P, N, D] of this layer, or None.
    run_ids: [B] or None.
    prefix_bias: [1, N, Q, P] bias of a prefix right before the text; needed if
      the site is `positioned`.

  Returns:
    (key, value, mask, bias), each P longer along S; the bias becomes [B, ...]
    if it differs between rows.
  """
  if site is None:
    return key, value, mask, bias
  extra_key = _per_row(site.key, run_ids, key)
  extra_value = _per_row(site.value, run_ids, value)
  length = site.key.shape[1]
  pad = ((0, 0), (0, 0), (0, 0), (length, 0))
  if site.mask is None:
    mask = jnp.pad(mask, pad, constant_values=True)
  else:
    shown = _flags(site.mask, run_ids, len(key))[:, None, None, :]
    shown = jnp.broadcast_to(shown, (*mask.shape[:3], length))
    mask = jnp.concatenate([shown, mask], axis=-1)
  if bias is not None:
    before = jnp.zeros((*bias.shape[:3], length), bias.dtype)
    if site.positioned is not None and prefix_bias is not None:
      positioned = _flags(site.positioned, run_ids, len(key))
      before = jnp.where(positioned[:, None, None, None], prefix_bias, before)
      bias = jnp.broadcast_to(bias, (len(key), *bias.shape[1:]))
    bias = jnp.concatenate([before, bias], axis=-1)
  return (
    jnp.concatenate([extra_key, key], axis=1),
    jnp.concatenate([extra_value, value], axis=1),
    mask,
    bias,
  )


def bottleneck(
  y: Array, x: Array, site: Bottleneck | None, run_ids: Array | None
) -> Array:
  """Pass a sublayer's output through an adapter, before the residual add.

  Args:
    y: [B, T, H], the sublayer's output.
    x: [B, T, H], its normed input.
    site: arrays [K, ...] of this layer, or None.
    run_ids: [B] or None.

  Returns:
    y + norm(gelu(y @ down + down_bias) @ up + up_bias), [B, T, H]; `norm` is
    the identity without `norm_scale`, and a parallel adapter multiplies x.

  Source: Houlsby et al. 2019 section 2; with norm, HyperFormer (Karimi
    Mahabadi et al. 2021), equation 1; parallel, He et al. 2022, table 1.
  """
  if site is None:
    return y
  read = y
  if site.parallel is not None:
    parallel = _flags(site.parallel, run_ids, len(y))[:, None, None]
    read = jnp.where(parallel, x, y)
  inner = _matmul(read, site.down, run_ids)
  inner = jax.nn.gelu(_add(inner, site.down_bias, run_ids), approximate=True)
  outer = _add(_matmul(inner, site.up, run_ids), site.up_bias, run_ids)
  if site.norm_scale is not None:
    normed = _layer_norm(outer) * _vector(site.norm_scale, run_ids, outer)
    normed = _add(normed, site.norm_bias, run_ids)
    if site.normed is not None:
      is_normed = _flags(site.normed, run_ids, len(y))[:, None, None]
      normed = jnp.where(is_normed, normed, outer)
    outer = normed
  return y + outer


def low_rank(
  y: Array, x: Array, site: LowRank | None, run_ids: Array | None
) -> Array:
  """Add a low-rank update to a kernel's output.

  Args:
    y: [B, T, outputs], the frozen kernel's output.
    x: [B, T, inputs], the frozen kernel's input.
    site: arrays [K, ...] of this layer, or None.
    run_ids: [B] or None.

  Returns:
    y + (x @ a) @ b, [B, T, outputs].

  Source: Hu et al. 2021 (LoRA), equation 3; the tuner folds the alpha / R
    factor into `b`.
  """
  if site is None:
    return y
  return y + _matmul(_matmul(x, site.a, run_ids), site.b, run_ids)


def scale(x: Array, site: Array | None, run_ids: Array | None) -> Array:
  """Multiply an activation by a learned vector.

  Args:
    x: [B, T, features].
    site: [K, features] of this layer, or None.
    run_ids: [B] or None.

  Returns:
    [B, T, features].

  Source: Liu et al. 2022 (IA3), section 3.3.
  """
  return x if site is None else x * _vector(site, run_ids, x)


def final_norm(
  x: Array, delta: Delta, stack: str, run_ids: Array | None
) -> Array:
  """Multiply the output of a stack's last norm by a learned vector.

  Args:
    x: [B, T, H].
    delta: all sites.
    stack: `encoder` or `decoder`.
    run_ids: [B] or None.

  Returns:
    [B, T, H].
  """
  site = delta.norm.get(stack)
  return x if site is None else scale(x, site[:, 0], run_ids)


def head_rows(
  logits: Array,
  x: Array,
  rows: Array | None,
  run_ids: Array | None,
  mask: Array | None = None,
) -> Array:
  """Append the logits of learned output rows.

  Args:
    logits: [B, S, V] float32.
    x: [B, S, H] input of the frozen head.
    rows: [K, C, H] or None.
    run_ids: [B] or None.
    mask: [K, C] booleans, False for words that a run does not have, or None.

  Returns:
    [B, S, V + C]; minus infinity for masked words.
  """
  if rows is None:
    return logits
  extra = _matmul(x.astype(logits.dtype), jnp.swapaxes(rows, 1, 2), run_ids)
  if mask is not None:
    there = _flags(mask, run_ids, len(x))[:, None, :]
    extra = jnp.where(there, extra, -jnp.inf)
  return jnp.concatenate([logits, extra], axis=-1)


def _rows_or_nan(table: Array, index: Array) -> Array:
  """Gather rows; an index outside the table, also a negative one, gives NaN."""
  index = jnp.where(index < 0, table.shape[0], index)
  return table.at[index].get(mode="fill", fill_value=jnp.nan)


def _gather_tokens(flags: Array, index: Array, run_ids: Array | None) -> Array:
  """Look up [K, P] flags at each row's own virtual tokens [B, T]."""
  rows = _flags(flags, run_ids, len(index))
  index = jnp.where(index < 0, flags.shape[1], index)
  return jax.vmap(lambda row, i: row.at[i].get(mode="fill", fill_value=False))(
    rows, index
  )


def _flags(values: Array, run_ids: Array | None, rows: int) -> Array:
  """Give every row of the batch its run's booleans: [K, ...] -> [B, ...]."""
  if run_ids is None:
    return jnp.broadcast_to(values, (rows, *values.shape[1:]))
  return values.at[run_ids].get(mode="fill", fill_value=False)


def _per_row(values: Array, run_ids: Array | None, like: Array) -> Array:
  """Give every row of the batch its run's array: [K, ...] -> [B, ...]."""
  values = values.astype(like.dtype)
  if run_ids is not None:
    return _rows_or_nan(values, run_ids)
  return jnp.broadcast_to(values, (like.shape[0], *values.shape[1:]))


def _matmul(x: Array, kernel: Array, run_ids: Array | None) -> Array:
  """Multiply [B, T, I] by each row's own [K, I, O] kernel."""
  kernel = kernel.astype(x.dtype)
  if run_ids is None:
    return x @ kernel[0]
  return jnp.einsum("bti,bio->bto", x, _rows_or_nan(kernel, run_ids))


def _vector(values: Array, run_ids: Array | None, like: Array) -> Array:
  """Shape each row's own [K, F] vector to broadcast over [B, T, F]."""
  values = values.astype(like.dtype)
  if run_ids is not None:
    values = _rows_or_nan(values, run_ids)
  return values[:, None, :]


def _add(x: Array, bias: Array | None, run_ids: Array | None) -> Array:
  return x if bias is None else x + _vector(bias, run_ids, x)


def _layer_norm(x: Array) -> Array:
  x32 = x.astype(jnp.float32)
  centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
  return (centred * jax.lax.rsqrt(variance + _NORM_EPSILON)).astype(x.dtype)
