"""A T5 1.1 train step written by hand: the straightforward side of benchmarks.

Nothing of the project is used: jnp and optax, one function per part of the
model, as someone would write it for a single run. It reads the parameter tree
under T5X's names, so that both sides can start from the same weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

BUCKETS, MAX_DISTANCE, Z_LOSS = 32, 128, 1e-4


def norm(p: Mapping, x: jax.Array) -> jax.Array:
  """RMS norm over the features."""
  mean_square = jnp.mean(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(mean_square + 1e-6) * p["scale"]


def buckets(length: int, bidirectional: bool) -> np.ndarray:
  """T5's buckets of key - query, [length, length]."""
  count = BUCKETS
  offset = np.arange(length)[None, :] - np.arange(length)[:, None]
  start = np.zeros_like(offset)
  if bidirectional:
    count //= 2
    start = np.where(offset > 0, count, 0)
    distance = np.abs(offset)
  else:
    distance = np.maximum(-offset, 0)
  exact = count // 2
  ratio = distance.astype(np.float32) / exact + np.finfo(np.float32).eps
  growth = np.log(ratio) / np.float32(np.log(MAX_DISTANCE / exact))
  far = exact + (growth * (count - exact)).astype(np.int32)
  return start + np.where(distance < exact, distance, far.clip(max=count - 1))


def attention(
  p: Mapping,
  x: jax.Array,
  source: jax.Array,
  mask: jax.Array,
  bias: jax.Array | None,
  heads: int,
) -> jax.Array:
  """Attend from x [B, Q, H] to source [B, S, H] where mask [B, Q, S] is."""

  def split(y: jax.Array) -> jax.Array:
    return y.reshape(*y.shape[:2], heads, -1)

  query = split(x @ p["query"]["kernel"])
  key = split(source @ p["key"]["kernel"])
  value = split(source @ p["value"]["kernel"])
  logits = jnp.einsum("bqnd,bsnd->bnqs", query, key)
  if bias is not None:
    logits = logits + bias
  weights = jax.nn.softmax(jnp.where(mask[:, None], logits, -1e10))
  y = jnp.einsum("bnqs,bsnd->bqnd", weights, value)
  return y.reshape(*y.shape[:2], -1) @ p["out"]["kernel"]


def mlp(p: Mapping, x: jax.Array) -> jax.Array:
  """The gated feed-forward block."""
  gate = jax.nn.gelu(x @ p["wi_0"]["kernel"])
  return (gate * (x @ p["wi_1"]["kernel"])) @ p["wo"]["kernel"]


def encode(
  params: Mapping,
  batch: Mapping,
  heads: int,
  layers: int,
  prompt: jax.Array | None = None,
) -> jax.Array:
  """The encoder's states, [B, T, H]; the first ids are a prompt's places."""
  p, ids = params["encoder"], batch["encoder_input_tokens"]
  segments = batch["encoder_segment_ids"]
  mask = segments[:, :, None] == segments[:, None, :]
  mask &= (ids != 0)[:, None, :]
  table = p["relpos_bias"]["rel_embedding"]
  bias = table[:, buckets(ids.shape[1], True)]
  x = params["token_embedder"]["embedding"][ids]
  if prompt is not None:
    rows = jnp.broadcast_to(prompt, (len(x), *prompt.shape))
    x = jnp.concatenate([rows, x[:, len(prompt) :]], axis=1)
  for i in range(layers):
    layer = p[f"layers_{i}"]
    y = norm(layer["pre_attention_layer_norm"], x)
    x = x + attention(layer["attention"], y, y, mask, bias, heads)
    x = x + mlp(layer["mlp"], norm(layer["pre_mlp_layer_norm"], x))
  return norm(p["encoder_norm"], x)


def decode(
  params: Mapping, batch: Mapping, states: jax.Array, heads: int, layers: int
) -> jax.Array:
  """The logits, [B, S, V]."""
  p, ids = params["decoder"], batch["decoder_input_tokens"]
  segments, length = batch["decoder_segment_ids"], ids.shape[1]
  valid = (ids != 0) | (batch["decoder_target_tokens"] != 0)
  mask = segments[:, :, None] == segments[:, None, :]
  mask &= np.tri(length, dtype=bool) & valid[:, None, :]
  cross = segments[:, :, None] == batch["encoder_segment_ids"][:, None, :]
  cross &= (batch["encoder_input_tokens"] != 0)[:, None, :]
  table = p["relpos_bias"]["rel_embedding"]
  bias = table[:, buckets(length, False)]
  x = params["token_embedder"]["embedding"][ids]
  for i in range(layers):
    layer = p[f"layers_{i}"]
    y = norm(layer["pre_self_attention_layer_norm"], x)
    x = x + attention(layer["self_attention"], y, y, mask, bias, heads)
    y = norm(layer["pre_cross_attention_layer_norm"], x)
    own = layer["encoder_decoder_attention"]
    x = x + attention(own, y, states, cross, None, heads)
    x = x + mlp(layer["mlp"], norm(layer["pre_mlp_layer_norm"], x))
  return norm(p["decoder_norm"], x) @ p["logits_dense"]["kernel"]


def mean_loss(
  params: Mapping, batch: Mapping, heads: int, layers: int
) -> jax.Array:
  """Cross-entropy and z-loss per target token."""
  states = encode(params, batch, heads, layers)
  logits = decode(params, batch, states, heads, layers)
  targets = batch["decoder_target_tokens"]
  log_z = jax.nn.logsumexp(logits, axis=-1)
  own = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  loss = log_z - own + Z_LOSS * log_z**2
  weights = batch["decoder_loss_weights"]
  return jnp.sum(loss * weights) / jnp.sum(weights)


def features(text: Mapping, prompt_length: int) -> dict[str, np.ndarray]:
  """Features of rows that hold one example each, with places for a prompt."""
  places = ((0, 0), (prompt_length, 0))
  inputs = np.pad(text["inputs"], places, constant_values=1)
  targets = text["targets"]
  return {
    "encoder_input_tokens": inputs,
    "encoder_segment_ids": np.ones_like(inputs),
    "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": targets,
    "decoder_segment_ids": np.ones_like(targets),
    "decoder_loss_weights": (targets != 0).astype(np.float32),
  }


def prompt_loss(
  prompt: jax.Array, params: Mapping, batch: Mapping, heads: int, layers: int
) -> jax.Array:
  """Cross-entropy per target token with a prompt [P, H] in front."""
  states = encode(params, batch, heads, layers, prompt)
  logits = decode(params, batch, states, heads, layers)
  loss = optax.softmax_cross_entropy_with_integer_labels(
    logits, batch["decoder_target_tokens"]
  )
  weights = batch["decoder_loss_weights"]
  return jnp.sum(loss * weights) / jnp.sum(weights)


def make_step(
  heads: int, layers: int, optimizer: optax.GradientTransformation
) -> Callable[[Any, Any, Mapping], tuple[Any, Any, jax.Array]]:
  """Jit the step: (params, optimizer state, batch) -> both, and the loss.

  The first two are donated.
  """

  def step(params: Any, state: Any, batch: Mapping) -> tuple:
    loss, gradient = jax.value_and_grad(mean_loss)(params, batch, heads, layers)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, loss

  return jax.jit(step, donate_argnums=(0, 1))
