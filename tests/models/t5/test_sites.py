"""Every site of the model against a T5 written a second time, in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core.delta import (
  Bottleneck,
  Delta,
  Hidden,
  LowRank,
  Prefix,
)
from prompt_tuning.models.t5 import network
from prompt_tuning.models.t5.config import T5Config

# heads * head_dim != d_model, as in T5 1.1 small.
CONFIG = T5Config(
  vocab_size=64,
  emb_dim=16,
  num_heads=3,
  head_dim=4,
  mlp_dim=24,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
V, H, N, D, F, L = 64, 16, 3, 4, 24, 2
P, R, C = 4, 3, 5
SIDES = {
  "enc_self": ("encoder", "attention"),
  "dec_self": ("decoder", "self_attention"),
  "cross": ("decoder", "encoder_decoder_attention"),
}


def gelu(x):
  inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
  return 0.5 * x * (1 + np.tanh(inner))


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def bucket(distance, bidirectional):
  """Bucket of one key-minus-query distance (Shaw-style T5 buckets)."""
  count, offset = 32, 0
  if bidirectional:
    count = 16
    offset = 16 if distance > 0 else 0
    distance = abs(distance)
  else:
    distance = max(-distance, 0)
  half = count // 2
  if distance < half:
    return offset + distance
  grown = half + int(
    math.log(distance / half) / math.log(128 / half) * (count - half) + 1e-6
  )
  return offset + min(grown, count - 1)


class NumpyT5:
  """One example, one run: loops and float64, no batching, no masks."""

  def __init__(self, params, delta):
    self.params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    # Drop the run axis of the only run.
    self.delta = jax.tree.map(lambda a: np.asarray(a, np.float64)[0], delta)

  def norm(self, x, scale, site, layer=0):
    if site in self.delta.norm:
      scale = scale * self.delta.norm[site][layer]
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale

  def dense(self, x, kernel, site, layer):
    y = x @ kernel
    if site in self.delta.lowrank:
      low = self.delta.lowrank[site]
      y = y + x @ low.a[layer] @ low.b[layer]
    if site in self.delta.scale:
      y = y * self.delta.scale[site][layer]
    return y

  def adapter(self, y, x, site, layer):
    if site not in self.delta.bottleneck:
      return y
    part = {
      k: None if v is None else v[layer]
      for k, v in self.delta.bottleneck[site]._asdict().items()
    }
    parallel = part["parallel"] is not None and part["parallel"]
    inner = (x if parallel else y) @ part["down"]
    if part["down_bias"] is not None:
      inner = inner + part["down_bias"]
    outer = gelu(inner) @ part["up"]
    if part["up_bias"] is not None:
      outer = outer + part["up_bias"]
    if part["norm_scale"] is not None:
      outer = outer - outer.mean(-1, keepdims=True)
      outer = outer / np.sqrt(outer.var(-1, keepdims=True) + 1e-5)
      outer = outer * part["norm_scale"] + part["norm_bias"]
    return y + outer

  def seen(self, ids):
    """Which position each position of the encoder's input sees."""
    seen = np.ones((len(ids), len(ids)), bool)
    if self.delta.sight is None:
      return seen
    earlier, later, text = self.delta.sight.astype(bool)
    for i, query in enumerate(ids):
      for j, key in enumerate(ids):
        if query >= V and i != j:
          if key < V:
            seen[i, j] = text
          else:
            seen[i, j] = earlier if j < i else later
    return seen

  def attention(self, x, source, kernels, site, layer, bias, causal, seen=None):
    def heads(name, inputs):
      y = self.dense(inputs, kernels[name]["kernel"], f"{site}/{name}", layer)
      return y.reshape(len(inputs), N, D)

    q, k, v = heads("query", x), heads("key", source), heads("value", source)
    extra, placed = 0, False
    if site in self.delta.prefix:
      prefix = self.delta.prefix[site]
      there = np.ones(P, bool)
      if prefix.mask is not None:
        there = prefix.mask[layer].astype(bool)
      k = np.concatenate([prefix.key[layer][there], k])
      v = np.concatenate([prefix.value[layer][there], v])
      extra = int(there.sum())
      placed = prefix.positioned is not None and prefix.positioned[layer]
    y = np.zeros((len(x), N, D))
    for head in range(N):
      logits = q[:, head] @ k[:, head].T
      for i in range(len(x)):
        for j in range(extra if placed else 0):
          b = bucket(j - extra - i, bidirectional=not causal)
          logits[i, j] += bias[head, b]
        for j in range(len(source)):
          if bias is not None:
            b = bucket(j - i, bidirectional=not causal)
            logits[i, extra + j] += bias[head, b]
          if (causal and j > i) or (seen is not None and not seen[i, j]):
            logits[i, extra + j] = -np.inf
      y[:, head] = softmax(logits) @ v[:, head]
    y = y.reshape(len(x), N * D)
    y = self.dense(y, kernels["out"]["kernel"], f"{site}/out", layer)
    return self.adapter(y, x, site, layer)

  def mlp(self, x, kernels, site, layer):
    def wi(i):
      return self.dense(
        x, kernels[f"wi_{i}"]["kernel"], f"{site}/wi_{i}", layer
      )

    inner = gelu(wi(0)) * wi(1)
    if f"{site}/hidden" in self.delta.scale:
      inner = inner * self.delta.scale[f"{site}/hidden"][layer]
    y = self.dense(inner, kernels["wo"]["kernel"], f"{site}/wo", layer)
    return self.adapter(y, x, site, layer)

  def embed(self, ids):
    table = self.params["token_embedder"]["embedding"]
    return np.stack(
      [table[i] if i < V else self.delta.virtual[i - V] for i in ids]
    )

  def hidden(self, x, ids, stack, layer):
    if stack not in self.delta.hidden:
      return x
    site = self.delta.hidden[stack]
    x = x.copy()
    for position, token in enumerate(ids):
      if V <= token < V + P:
        row = site.values[layer, token - V]
        replaced = site.replace[layer, token - V]
        x[position] = row if replaced else x[position] + row
    return x

  def stack(self, name, ids, encoded=None):
    params = self.params[name]
    bias = params["relpos_bias"]["rel_embedding"]
    x = self.embed(ids)
    for i in range(L):
      layer = params[f"layers_{i}"]
      x = self.hidden(x, ids, name, i)
      side = "enc_self" if name == "encoder" else "dec_self"
      key = "attention" if name == "encoder" else "self_attention"
      y = self.norm(x, layer[f"pre_{key}_layer_norm"]["scale"], side, i)
      causal = name == "decoder"
      seen = self.seen(ids) if name == "encoder" else None
      x = x + self.attention(y, y, layer[key], side, i, bias, causal, seen)
      if name == "decoder":
        scale = layer["pre_cross_attention_layer_norm"]["scale"]
        y = self.norm(x, scale, "cross", i)
        cross = layer["encoder_decoder_attention"]
        x = x + self.attention(y, encoded, cross, "cross", i, None, False)
      mlp = f"{name[:3]}_mlp"
      y = self.norm(x, layer["pre_mlp_layer_norm"]["scale"], mlp, i)
      x = x + self.mlp(y, layer["mlp"], mlp, i)
    return self.norm(x, params[f"{name}_norm"]["scale"], name)

  def logits(self, encoder_ids, decoder_ids):
    encoded = self.stack("encoder", encoder_ids)
    x = self.stack("decoder", decoder_ids, encoded)
    logits = x @ self.params["decoder"]["logits_dense"]["kernel"]
    if self.delta.head_rows is not None:
      logits = np.concatenate([logits, x @ self.delta.head_rows.T], axis=-1)
    return logits


def normal(rng, *shape):
  return jnp.asarray(rng.normal(scale=0.3, size=shape), jnp.float32)


def features(site):
  sublayer, kernel = site.split("/")
  joined = N * D
  if sublayer.endswith("mlp"):
    sizes = {"wi_0": (H, F), "wi_1": (H, F), "wo": (F, H), "hidden": (F, F)}
  else:
    inward = (H, joined)
    sizes = {
      "query": inward,
      "key": inward,
      "value": inward,
      "out": (joined, H),
    }
  return sizes[kernel]


ATTENTION = ["enc_self", "dec_self", "cross"]
MLPS = ["enc_mlp", "dec_mlp"]
KERNELS = [
  f"{s}/{k}" for s in ATTENTION for k in ("query", "key", "value", "out")
]
KERNELS += [f"{s}/{k}" for s in MLPS for k in ("wi_0", "wi_1", "wo")]


def make_delta(kind, rng, runs=1):
  """A delta that fills one field (all of its sites), or every field."""
  K = runs
  virtual = normal(rng, K, P, H)

  def adapter(full):
    return Bottleneck(
      normal(rng, K, L, H, R),
      normal(rng, K, L, R, H),
      normal(rng, K, L, R),
      normal(rng, K, L, H),
      *((normal(rng, K, L, H), normal(rng, K, L, H)) if full else ()),
    )

  fields = {
    "virtual": {},
    "prefix": {
      "prefix": {
        s: Prefix(normal(rng, K, L, P, N, D), normal(rng, K, L, P, N, D))
        for s in ATTENTION
      }
    },
    "prefix_marked": {
      "prefix": {
        s: Prefix(
          normal(rng, K, L, P, N, D),
          normal(rng, K, L, P, N, D),
          # Absent where others are longer: in front. A layer may differ.
          jnp.asarray(np.arange(P) >= np.array([[[1], [2]]] * K)),
          None if s == "cross" else jnp.asarray([[True, False]] * K),
        )
        for s in ATTENTION
      }
    },
    "hidden_replace": {
      "hidden": {
        s: Hidden(normal(rng, K, L, P, H), jnp.ones((K, L, P), bool))
        for s in SIDES_STACKS
      }
    },
    "hidden_add": {
      "hidden": {
        s: Hidden(normal(rng, K, L, P, H), jnp.zeros((K, L, P), bool))
        for s in SIDES_STACKS
      }
    },
    "bottleneck": {"bottleneck": {s: adapter(False) for s in ATTENTION + MLPS}},
    "bottleneck_norm": {
      "bottleneck": {s: adapter(True) for s in ATTENTION + MLPS}
    },
    "bottleneck_parallel": {
      "bottleneck": {
        s: adapter(False)._replace(parallel=jnp.asarray([[True, False]] * K))
        for s in ATTENTION + MLPS
      }
    },
    "lowrank": {
      "lowrank": {
        s: LowRank(
          normal(rng, K, L, features(s)[0], R),
          normal(rng, K, L, R, features(s)[1]),
        )
        for s in KERNELS
      }
    },
    "scale": {
      "scale": {
        s: 1 + normal(rng, K, L, features(s)[1])
        for s in [*KERNELS, "enc_mlp/hidden", "dec_mlp/hidden"]
      }
    },
    "norm": {
      "norm": {s: 1 + normal(rng, K, L, H) for s in ATTENTION + MLPS}
      | {s: 1 + normal(rng, K, 1, H) for s in SIDES_STACKS}
    },
    "head_rows": {"head_rows": normal(rng, K, C, H)},
    "sight": {"sight": jnp.asarray([[True, False, False]] * K)},
  }
  if kind == "all":
    merged = {}
    for name in ("prefix", "hidden_add", "bottleneck_norm", "lowrank"):
      merged |= fields[name]
    merged |= fields["scale"] | fields["norm"] | fields["head_rows"]
    return Delta(virtual=virtual, **merged)
  return Delta(virtual=virtual, **fields[kind])


SIDES_STACKS = ("encoder", "decoder")
KINDS = [
  "virtual",
  "sight",
  "prefix",
  "prefix_marked",
  "hidden_replace",
  "hidden_add",
  "bottleneck",
  "bottleneck_norm",
  "bottleneck_parallel",
  "lowrank",
  "scale",
  "norm",
  "head_rows",
  "all",
]


@pytest.fixture(scope="module")
def params(random_params):
  return random_params(CONFIG)


@pytest.fixture(scope="module")
def apply():
  # As users compile: unoptimised code rounds more, on some processors by more
  # than an oracle in float64 may be away.
  optimised = {"xla_backend_optimization_level": 3}
  return jax.jit(network.T5(CONFIG).apply, compiler_options=optimised)


def make_batch(rows=3, seed=0, pad=0):
  """Virtual tokens at the front of both stacks, ragged real tokens behind."""
  rng = np.random.default_rng(seed)
  T, S = 11, 7
  encoder = rng.integers(2, V, (rows, T))
  decoder = rng.integers(2, V, (rows, S))
  targets = np.roll(decoder, -1, axis=1)
  encoder[:, :P] = V + np.arange(P)
  decoder[:, :2] = V + np.array([0, P - 1])
  decoder[:, 2] = 0
  targets[:, :2] = 0
  for row in range(rows):
    encoder[row, T - row :] = 0
    decoder[row, S - row :] = 0
    targets[row, S - 1 - row :] = 0
    targets[row, S - 1 - row] = 1
  extend = ((0, 0), (0, pad))
  return {
    "encoder_input_tokens": jnp.asarray(np.pad(encoder, extend), jnp.int32),
    "decoder_input_tokens": jnp.asarray(np.pad(decoder, extend), jnp.int32),
    "decoder_target_tokens": jnp.asarray(np.pad(targets, extend), jnp.int32),
  }


def trim(batch, row):
  """The real tokens of one row, unpadded."""
  encoder = np.asarray(batch["encoder_input_tokens"][row])
  decoder = np.asarray(batch["decoder_input_tokens"][row])
  length = int(np.max(np.nonzero(decoder))) + 1
  return encoder[encoder != 0], decoder[:length]


@pytest.mark.parametrize("kind", KINDS)
def test_site_equals_numpy(kind, params, apply, tolerance):
  delta = make_delta(kind, np.random.default_rng(KINDS.index(kind)))
  batch = make_batch()
  ours = apply({"params": params}, batch, delta)
  oracle = NumpyT5(params, delta)
  for row in range(3):
    encoder, decoder = trim(batch, row)
    expected = oracle.logits(encoder, decoder)
    np.testing.assert_allclose(
      ours[row, : len(decoder)], expected, **tolerance["oracle"]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_site_changes_the_logits(kind, params, apply):
  """An oracle and a model that both ignore a site would agree."""
  batch = make_batch()
  delta = make_delta(kind, np.random.default_rng(0))
  changed = apply({"params": params}, batch, delta)
  other = jax.tree.map(lambda a: a if a.dtype == bool else a + 0.3, delta)
  assert not np.allclose(changed, apply({"params": params}, batch, other))


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_batch_equals_each_run_alone(kind, params, apply, tolerance):
  delta = make_delta(kind, np.random.default_rng(1), runs=3)
  batch = make_batch(rows=4)
  run_ids = jnp.array([2, 0, 0, 1], jnp.int32)
  mixed = apply({"params": params}, batch | {"run_ids": run_ids}, delta)
  for row, run in enumerate(np.asarray(run_ids)):
    one = jax.tree.map(lambda a, run=run: a[run : run + 1], delta)
    alone = apply(
      {"params": params},
      jax.tree.map(lambda a, row=row: a[row : row + 1], batch),
      one,
    )
    np.testing.assert_allclose(mixed[row], alone[0], **tolerance["same"])


def test_empty_delta_is_the_plain_model(params):
  """Bit for bit: the very same program."""
  batch = make_batch()
  batch["encoder_input_tokens"] = batch["encoder_input_tokens"] % V
  batch["decoder_input_tokens"] = batch["decoder_input_tokens"] % V
  model = network.T5(CONFIG)
  variables = {"params": params}
  plain = jax.jit(model.apply)(variables, batch)
  empty = jax.jit(model.apply)(variables, batch, Delta())
  np.testing.assert_array_equal(plain, empty)
  texts = [
    jax.jit(model.apply).lower(variables, batch, *delta).as_text()
    for delta in ((), (Delta(),))
  ]
  assert texts[0] == texts[1]


def test_zero_length_prefix_is_the_plain_model(params, apply):
  empty = {
    s: Prefix(jnp.zeros((1, L, 0, N, D)), jnp.zeros((1, L, 0, N, D)))
    for s in ATTENTION
  }
  batch = make_batch()
  base = Delta(virtual=jnp.zeros((1, P, H)))
  with_prefix = Delta(virtual=jnp.zeros((1, P, H)), prefix=empty)
  variables = {"params": params}
  np.testing.assert_array_equal(
    apply(variables, batch, base), apply(variables, batch, with_prefix)
  )


def test_zero_up_adapter_starts_at_the_frozen_model(params, apply):
  adapter = Bottleneck(jnp.ones((1, L, H, R)), jnp.zeros((1, L, R, H)))
  base = Delta(virtual=jnp.zeros((1, P, H)))
  delta = Delta(
    virtual=jnp.zeros((1, P, H)),
    bottleneck=dict.fromkeys(ATTENTION + MLPS, adapter),
  )
  batch, variables = make_batch(), {"params": params}
  np.testing.assert_array_equal(
    apply(variables, batch, base), apply(variables, batch, delta)
  )


@pytest.mark.parametrize("token", [V + P, V + 50])
def test_an_unanswered_id_gives_nan(token, params, apply):
  """Never a neighbour's row: K = 2 runs lie side by side in memory."""
  delta = make_delta("virtual", np.random.default_rng(0), runs=2)
  batch = make_batch(rows=2)
  ids = batch["encoder_input_tokens"].at[0, 5].set(token)
  batch |= {
    "encoder_input_tokens": ids,
    "run_ids": jnp.array([0, 1], jnp.int32),
  }
  logits = apply({"params": params}, batch, delta)
  assert np.isnan(logits[0]).all()
  assert np.isfinite(logits[1]).all()


def test_a_negative_id_or_an_unknown_run_gives_nan(params, apply):
  delta = make_delta("all", np.random.default_rng(0), runs=2)
  batch = make_batch(rows=3)
  ids = batch["encoder_input_tokens"].at[0, 5].set(-1)
  batch |= {
    "encoder_input_tokens": ids,
    "run_ids": jnp.array([0, 1, 0], jnp.int32),
  }
  logits = apply({"params": params}, batch, delta)
  assert np.isnan(logits[0]).all()
  assert np.isfinite(logits[1:]).all()
  for kind in ("virtual", "prefix", "lowrank", "scale", "norm", "bottleneck"):
    delta = make_delta(kind, np.random.default_rng(0), runs=2)
    batch = make_batch(rows=3)
    batch["run_ids"] = jnp.array([0, 2, -1], jnp.int32)
    logits = np.asarray(apply({"params": params}, batch, delta))
    assert np.isfinite(logits[0]).all(), kind
    assert np.isnan(logits[1:]).any(axis=(1, 2)).all(), kind


def test_virtual_id_without_rows_gives_nan(params, apply):
  logits = apply({"params": params}, make_batch(), Delta())
  assert np.isnan(logits).all()


def test_what_does_not_fit_is_listed_in_one_error(params, apply):
  delta = Delta(
    virtual=jnp.zeros((1, P, H + 1)),
    scale={
      "enc_self/keys": jnp.ones((1, L, N * D)),
      "dec_mlp/hidden": jnp.ones((2, L, F)),
    },
    prefix={
      "cross": Prefix(
        jnp.zeros((1, L + 1, P, N, D)), jnp.zeros((1, L, P, N, D))
      )
    },
  )
  with pytest.raises(ValueError, match="does not fit") as error:
    apply({"params": params}, make_batch(), delta)
  text = str(error.value)
  assert "virtual: expected [runs, any, 16], got [1, 4, 17]" in text
  assert "Did you mean 'enc_self/key'?" in text
  assert "prefix[cross].key: expected [runs, 2, any, 3, 4]" in text
  assert "different numbers of runs" in text


def test_several_runs_need_run_ids(params, apply):
  delta = make_delta("virtual", np.random.default_rng(0), runs=2)
  with pytest.raises(ValueError, match="run_ids"):
    apply({"params": params}, make_batch(), delta)
