"""Cached decoding against full recomputation, and the three methods."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core.delta import Delta, Prefix
from prompt_tuning.models.t5 import decoding, network
from prompt_tuning.models.t5.config import T5Config

CONFIG = T5Config(
  vocab_size=24,
  emb_dim=16,
  num_heads=3,
  head_dim=4,
  mlp_dim=32,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
V, P, K = 24, 3, 2


@pytest.fixture(scope="module")
def params(random_params):
  return random_params(CONFIG)


@pytest.fixture(scope="module")
def delta():
  """Two runs with virtual tokens and a prefix; the first's has positions."""
  keys = jax.random.split(jax.random.key(1), 3)
  prefix = Prefix(
    jax.random.normal(keys[0], (K, 2, 2, 3, 4)),
    jax.random.normal(keys[1], (K, 2, 2, 3, 4)),
  )
  virtual = jax.random.normal(keys[2], (K, P, 16))
  placed = prefix._replace(positioned=jnp.array([[True, True], [False, False]]))
  return Delta(virtual=virtual, prefix={"dec_self": placed, "cross": prefix})


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(0)
  encoder = rng.integers(2, V, (4, 9))
  encoder[:, :P] = V + np.arange(P)
  for row in range(4):
    encoder[row, 9 - row :] = 0
  return {
    "encoder_input_tokens": jnp.asarray(encoder, jnp.int32),
    "run_ids": jnp.array([0, 1, 1, 0], jnp.int32),
  }


@functools.cache
def _generate(method, length):
  """One compilation per method and length, however many tests use it."""
  return jax.jit(
    functools.partial(
      decoding.generate, network.T5(CONFIG), length=length, method=method
    )
  )


def run(params, batch, delta, method, length=6, rng=None):
  return _generate(method, length)(params, batch, delta, rng=rng)


APPLY = jax.jit(network.T5(CONFIG).apply)


def full_logits(params, batch, delta, tokens):
  """Teacher-forced logits of given tokens, nothing cached."""
  full = batch | {
    "decoder_input_tokens": network.shift_right(tokens),
    # All positions count: padding behind EOS is not looked at.
    "decoder_target_tokens": jnp.where(tokens == 0, 1, tokens),
  }
  return APPLY({"params": params}, full, delta)


def test_greedy_equals_full_recomputation(params, batch, delta):
  decoded = run(params, batch, delta, decoding.Greedy())
  tokens = np.asarray(decoded.tokens[:, 0])
  argmax = np.argmax(
    full_logits(params, batch, delta, decoded.tokens[:, 0]), -1
  )
  for row in range(4):
    for position in range(6):
      assert tokens[row, position] == argmax[row, position]
      if tokens[row, position] == 1:
        assert not tokens[row, position + 1 :].any()
        break


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_incremental_logits_equal_full(
  scan, chunk, params, batch, delta, tolerance
):
  """Prefill then steps of `chunk` tokens, against one pass."""
  rng = np.random.default_rng(3)
  tokens = jnp.asarray(rng.integers(2, V, (4, 11)), jnp.int32)
  expected = full_logits(params, batch, delta, tokens)
  config = dataclasses.replace(CONFIG, scan_layers=scan)
  if scan:
    params = dict(params)
    for stack in ("encoder", "decoder"):
      part = dict(params[stack])
      layers = [part.pop(f"layers_{i}") for i in range(2)]
      part["layers"] = jax.tree.map(lambda *a: jnp.stack(a), *layers)
      params[stack] = part
  model = network.T5(config)

  @functools.partial(jax.jit, static_argnames=("method", "length"))
  def call(*args, method, length=None):
    rest = () if length is None else (length,)
    return model.apply(
      {"params": params}, *args[:3], *rest, *args[3:], method=method
    )

  inputs = network.shift_right(tokens)
  encoded = call(batch, delta, method="encode")
  first, rest = inputs[:, :1], inputs[:, 1:]
  valid = jnp.ones_like(first, bool)
  ids = batch["run_ids"]
  logits, cache = call(
    first, valid, encoded, delta, ids, method="prefill", length=11
  )
  pieces = [logits]
  for start in range(0, 10, chunk):
    part = rest[:, start : start + chunk]
    logits, cache = call(part, cache, delta, ids, method="step")
    pieces.append(logits)
  np.testing.assert_allclose(
    jnp.concatenate(pieces, axis=1), expected, **tolerance["same"]
  )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
  "method",
  [decoding.Greedy(), decoding.BeamSearch(3), decoding.Sampling(num_decodes=2)],
  ids=["greedy", "beam", "sampling"],
)
def test_encoder_padding_does_not_change_outputs(
  side, method, params, batch, delta, tolerance
):
  pad = (3, 0) if side == "left" else (0, 3)
  padded = batch | {
    "encoder_input_tokens": jnp.pad(
      batch["encoder_input_tokens"], ((0, 0), pad)
    )
  }
  plain = run(params, batch, delta, method)
  other = run(params, padded, delta, method)
  np.testing.assert_array_equal(plain.tokens, other.tokens)
  np.testing.assert_allclose(plain.scores, other.scores, **tolerance["same"])


def test_a_row_does_not_depend_on_the_rows_beside_it(params, batch, delta):
  for method in (decoding.Greedy(), decoding.BeamSearch(2)):
    together = run(params, batch, delta, method)
    for row in range(4):
      one = jax.tree.map(lambda a, row=row: a[row : row + 1], batch)
      alone = run(params, one, delta, method)
      np.testing.assert_array_equal(together.tokens[row], alone.tokens[0])


def test_decoder_prompts_of_several_lengths(params, batch, delta, tolerance):
  """Left-padded decoder prompts decode as each does alone.

  Not with a prefix at positions, from which padding would part them: `Runs`
  are not joined so.
  """
  own = delta.prefix["dec_self"]
  nowhere = own._replace(positioned=jnp.zeros_like(own.positioned))
  delta = dataclasses.replace(
    delta, prefix={**delta.prefix, "dec_self": nowhere}
  )
  prefix = jnp.array(
    [[V, V + 1, V + 2, 0], [0, 0, V, 0], [0, V, V + 1, 0], [0, 0, 0, 0]],
    jnp.int32,
  )
  together = run(
    params, batch | {"decoder_prefix_tokens": prefix}, delta, decoding.Greedy()
  )
  for row, length in enumerate([4, 2, 3, 1]):
    one = jax.tree.map(lambda a, row=row: a[row : row + 1], batch)
    one["decoder_prefix_tokens"] = prefix[row : row + 1, 4 - length :]
    alone = run(params, one, delta, decoding.Greedy())
    np.testing.assert_array_equal(together.tokens[row], alone.tokens[0])
    np.testing.assert_allclose(
      together.scores[row], alone.scores[0], **tolerance["same"]
    )


def _log_likelihood(params, batch, delta, tokens):
  logits = full_logits(params, batch, delta, jnp.asarray(tokens, jnp.int32))
  return np.asarray(network.score(logits, jnp.asarray(tokens, jnp.int32)))


def test_greedy_score_is_the_log_likelihood(params, batch, delta, tolerance):
  decoded = run(params, batch, delta, decoding.Greedy())
  expected = _log_likelihood(params, batch, delta, decoded.tokens[:, 0])
  np.testing.assert_allclose(
    decoded.scores[:, 0], expected, **tolerance["same"]
  )


def test_wide_beam_finds_the_best_of_all_sequences(
  params, batch, delta, tolerance
):
  """Two positions can be searched exhaustively: V^2 sequences."""
  alpha, one = 0.6, jax.tree.map(lambda a: a[:1], batch)
  sequences = np.array(
    [(1, 0), *((a, 1) for a in range(V) if a != 1)], np.int32
  )
  many = jax.tree.map(lambda a: jnp.repeat(a, len(sequences), 0), one)
  scores = _log_likelihood(params, many, delta, sequences)
  # Token 0 scores nothing in `score`, so leave it out of the comparison.
  usable = sequences[:, 0] != 0
  lengths = np.where(sequences[:, 0] == 1, 1, 2)
  penalised = scores / ((5 + lengths) / 6) ** alpha
  best = np.argmax(np.where(usable, penalised, -np.inf))
  decoded = run(params, one, delta, decoding.BeamSearch(V, alpha), length=2)
  np.testing.assert_array_equal(decoded.tokens[0, 0], sequences[best])
  np.testing.assert_allclose(
    decoded.scores[0, 0], penalised[best], **tolerance["sum"]
  )


def reference_beam_search(next_log_probs, beams, alpha, length):
  """Beam search over one example with Python lists."""
  live, done = [(0.0, ())], []
  for step in range(length):
    candidates = [
      (score + log_prob, (*tokens, token))
      for score, tokens in live
      for token, log_prob in enumerate(next_log_probs(tokens))
    ]
    candidates = sorted(candidates, reverse=True)[: 2 * beams]
    penalty = ((5 + step + 1) / 6) ** alpha
    done += [(s / penalty, t) for s, t in candidates if t[-1] == 1]
    done = sorted(done, reverse=True)[:beams]
    live = [c for c in candidates if c[1][-1] != 1][:beams]
    bound = live[0][0] / ((5 + length + 1) / 6) ** alpha
    if len(done) == beams and done[-1][0] > bound:
      break
  return done or live


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("beams", [1, 3])
def test_beam_search_equals_a_plain_one(
  beams, alpha, params, batch, delta, tolerance
):
  decoded = run(params, batch, delta, decoding.BeamSearch(beams, alpha), 5)
  for row in range(4):
    one = jax.tree.map(lambda a, row=row: a[row : row + 1], batch)

    @functools.cache
    def next_log_probs(tokens, one=one):
      padded = jnp.asarray([[*tokens, 2, 2, 2, 2, 2][:6]], jnp.int32)
      logits = full_logits(params, one, delta, padded)
      return np.asarray(jax.nn.log_softmax(logits[0, len(tokens)])).tolist()

    expected = reference_beam_search(next_log_probs, beams, alpha, 5)
    for place, (score, tokens) in enumerate(expected):
      ours = np.asarray(decoded.tokens[row, place])
      np.testing.assert_array_equal(ours[: len(tokens)], tokens)
      assert not ours[len(tokens) :].any()
      np.testing.assert_allclose(
        decoded.scores[row, place], score, **tolerance["beam"]
      )


def test_sampling_follows_the_distribution(params, batch, delta):
  """First tokens of many samples against the softmax: chi-square."""
  one = jax.tree.map(lambda a: a[:1], batch)
  draws = 4_000
  decoded = run(
    params,
    one,
    delta,
    decoding.Sampling(temperature=0.7, num_decodes=draws),
    length=1,
    rng=jax.random.key(5),
  )
  logits = full_logits(params, one, delta, jnp.ones((1, 1), jnp.int32))[0, 0]
  expected = np.asarray(jax.nn.softmax(logits / 0.7)) * draws
  counts = np.bincount(np.asarray(decoded.tokens).ravel(), minlength=V)
  often = expected >= 5
  chi = np.sum((counts - expected)[often] ** 2 / expected[often])
  degrees = often.sum() - 1
  assert chi < degrees + 5 * np.sqrt(2 * degrees)


@pytest.mark.parametrize(
  ("settings", "allowed"),
  [
    ({"topk": 1}, 1),
    ({"topk": 3}, 3),
    ({"topp": 1e-6}, 1),
  ],
)
def test_truncation_keeps_only_the_most_likely(
  settings, allowed, params, batch, delta
):
  one = jax.tree.map(lambda a: a[:1], batch)
  decoded = run(
    params,
    one,
    delta,
    decoding.Sampling(temperature=5.0, num_decodes=200, **settings),
    length=1,
    rng=jax.random.key(6),
  )
  logits = full_logits(params, one, delta, jnp.ones((1, 1), jnp.int32))[0, 0]
  best = set(np.argsort(-np.asarray(logits))[:allowed].tolist())
  assert set(np.asarray(decoded.tokens).ravel().tolist()) == best


@pytest.mark.parametrize(
  ("topp", "expected"),
  [
    (0.35, [[1, 0, 0, 0], [0, 0, 0, 1]]),
    (0.60, [[1, 1, 1, 0], [0, 0, 1, 1]]),  # equal ones stay together
    (0.95, [[1, 1, 1, 1], [1, 1, 1, 1]]),
  ],
)
def test_nucleus_is_the_smallest_set_that_reaches_topp(topp, expected):
  logits = jnp.log(jnp.array([[0.5, 0.2, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]))
  inside = decoding._in_nucleus(logits, topp)
  np.testing.assert_array_equal(inside, np.array(expected, bool))


@pytest.mark.parametrize(
  "settings",
  [{"temperature": -1}, {"topp": 1.5}, {"topk": -1}, {"num_decodes": 0}],
)
def test_settings_out_of_range_are_refused(settings):
  with pytest.raises(ValueError, match="|".join(settings)):
    decoding.Sampling(**settings)


@pytest.mark.parametrize(
  "settings", [{"num_decodes": 0}, {"alpha": float("nan")}]
)
def test_beam_settings_out_of_range_are_refused(settings):
  with pytest.raises(ValueError, match="|".join(settings)):
    decoding.BeamSearch(**settings)


def test_no_position_to_decode_is_refused(params, batch, delta):
  with pytest.raises(ValueError, match="at least one position"):
    run(params, batch, delta, decoding.Greedy(), length=0)


@pytest.mark.parametrize(
  "method", [decoding.Greedy(), decoding.BeamSearch(2)], ids=["greedy", "beam"]
)
def test_an_answer_word_ends_its_sequence(method, params, batch, delta):
  """Extra output rows that win at once: one token, a finite score."""
  rows = jnp.broadcast_to(
    50.0 * jnp.arange(1.0, 6.0)[None, :, None], (K, 5, 16)
  )
  rows = jnp.concatenate([rows, -rows], axis=1)
  answers = dataclasses.replace(delta, head_rows=rows)
  decoded = run(params, batch, answers, method)
  tokens = np.asarray(decoded.tokens[:, 0])
  assert (tokens[:, 0] >= V).all()
  assert not tokens[:, 1:].any()
  assert np.isfinite(decoded.scores[:, 0]).all()


def test_a_prompt_longer_than_the_cache_is_refused(params, batch, delta):
  model = network.T5(CONFIG)
  encoded = model.apply({"params": params}, batch, delta, method="encode")
  with pytest.raises(ValueError, match="maximal decode length"):
    model.apply(
      {"params": params},
      jnp.zeros((4, 3), jnp.int32),
      jnp.ones((4, 3), bool),
      encoded,
      2,
      delta,
      batch["run_ids"],
      method="prefill",
    )
