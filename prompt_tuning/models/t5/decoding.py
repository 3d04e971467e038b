"""Decoding over a key-value cache: greedy, sampling, beam search.

`generate` reads the decoder's first tokens once and passes their logits to a
method. The method chooses tokens and calls `step` for the next logits. Finished
rows are padded with 0 after their EOS.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from prompt_tuning.core.delta import Delta
from prompt_tuning.core.types import EOS_ID, PAD_ID, Array, Batch, Params
from prompt_tuning.models.t5.network import T5, Cache
from prompt_tuning.models.t5.stacks import LayerCache

# T5X's stand-in for log 0: adding it twice stays finite in float32.
_NEGATIVE = -1.0e7


class Decoded(NamedTuple):
  """Decoded sequences, best first.

  Attributes:
    tokens: [B, num_decodes, S] int32, with EOS, then 0.
    scores: [B, num_decodes] float32: the sum of log-probabilities, divided by
      the length penalty in beam search.
  """

  tokens: Array
  scores: Array


class State(NamedTuple):
  """The state of every row in decoding: the cache, and the run.

  Attributes:
    cache: the decoder's cache.
    run_ids: [n] or None.
    table_rows: scalar, V; ids from this one on are learned answer words, each
      of which ends its sequence like EOS.
  """

  cache: Cache
  run_ids: Array | None
  table_rows: Array

  def ends(self, tokens: Array) -> Array:
    """Return which tokens are the last of their sequence."""
    return (tokens == EOS_ID) | (tokens >= self.table_rows)


# (tokens [n], state of n rows) -> (logits [n, V], state)
StepFn = Callable[[Array, State], tuple[Array, State]]


class DecodingMethod(Protocol):
  """Chooses tokens."""

  def __call__(
    self, step: StepFn, logits: Array, state: State, length: int, rng: Array
  ) -> Decoded:
    """Decode.

    Args:
      step: reads one token per row.
      logits: [B, V], of the first position to decode.
      state: of B rows.
      length: maximum number of positions to decode, S.
      rng: PRNG key, or [B] keys.

    Returns:
      The decoded sequences.
    """
    ...


def generate(
  model: T5,
  params: Params,
  batch: Batch,
  delta: Delta | None = None,
  *,
  length: int,
  method: DecodingMethod,
  rng: Array | None = None,
) -> Decoded:
  """Decode every row of a batch.

  Args:
    model: the T5 model.
    params: its frozen parameters.
    batch: `encoder_input_tokens` [B, T]; `run_ids` [B] with several runs;
      `decoder_prefix_tokens` [B, Q], the decoder's virtual tokens and then its
      start token 0, padded on the left (default: the start token alone).
    delta: the changes of a tuning method.
    length: maximum number of positions to decode, S.
    method: `Greedy()`, `Sampling(...)` or `BeamSearch(...)`.
    rng: PRNG key, or [B] keys that make a row's samples independent of its
      place in the batch; only sampling uses them.

  Returns:
    The decoded sequences.

  Raises:
    ValueError: no positions to decode, or a delta that does not fit.
  """
  if length < 1:
    raise ValueError(f"Decoding needs at least one position; got {length}.")

  def apply(method: str, *args: Any) -> Any:
    return model.apply({"params": params}, *args, method=method)

  run_ids = batch.get("run_ids")
  rows = batch["encoder_input_tokens"].shape[0]
  tokens = batch.get("decoder_prefix_tokens")
  if tokens is None:
    tokens = jnp.full((rows, 1), PAD_ID, jnp.int32)
  valid = (tokens != PAD_ID).at[:, -1].set(True)
  encoded = apply("encode", batch, delta)
  room = tokens.shape[1] + length
  logits, cache = apply("prefill", tokens, valid, encoded, room, delta, run_ids)

  def step(tokens: Array, state: State) -> tuple[Array, State]:
    logits, cache = apply(
      "step", tokens[:, None], state.cache, delta, state.run_ids
    )
    return logits[:, -1], state._replace(cache=cache)

  rng = jax.random.key(0) if rng is None else rng
  table_rows = jnp.asarray(model.config.vocab_size, jnp.int32)
  state = State(cache, run_ids, table_rows)
  return method(step, logits[:, -1], state, length, rng)


@dataclasses.dataclass(frozen=True)
class Sampling:
  """Sample from the tempered, truncated distribution.

  Attributes:
    temperature: divides the logits; 0 is greedy.
    topk: keep only the k most likely tokens; 0 keeps all of them.
    topp: keep only the smallest set of most likely tokens whose probabilities
      add up to at least this; 0 keeps all. With both, top-k comes first.
    num_decodes: sequences per row.

  Source: T5X's temperature_sample. Deviations: best sequence first instead of
    last; scores are the model's own log-probabilities, not the truncated ones;
    every row draws from its own key, so a row's samples do not depend on the
    rows beside it.

  Raises:
    ValueError: a setting out of range.
  """

  temperature: float = 1.0
  topk: int = 0
  topp: float = 0.0
  num_decodes: int = 1

  def __post_init__(self) -> None:
    """Check the ranges."""
    # This form also treats NaN as out of range.
    in_range = self.temperature >= 0 and self.topk >= 0 and 0 <= self.topp <= 1
    if not in_range:
      raise ValueError(
        "Sampling needs temperature >= 0, topk >= 0 and 0 <= topp <= 1; got "
        f"temperature={self.temperature}, topk={self.topk}, topp={self.topp}."
      )
    if self.num_decodes < 1:
      raise ValueError(f"num_decodes must be 1 or more, got {self.num_decodes}")

  def __call__(
    self, step: StepFn, logits: Array, state: State, length: int, rng: Array
  ) -> Decoded:
    """Decode; see `DecodingMethod`."""
    batch = logits.shape[0]
    state = _map_rows(state, lambda a, axis: _repeat(a, self.num_decodes, axis))
    logits = _repeat(logits, self.num_decodes, 0)
    rows = logits.shape[0]
    keys = _sequence_keys(rng, batch, self.num_decodes)

    def choose(logits: Array, position: Array) -> tuple[Array, Array]:
      tokens = self._choose(logits, keys, position)
      log_probs = jax.nn.log_softmax(logits)
      return tokens, jnp.take_along_axis(log_probs, tokens[:, None], 1)[:, 0]

    class Loop(NamedTuple):
      position: Array
      tokens: Array
      scores: Array
      ended: Array
      state: State

    def record(loop: Loop, logits: Array) -> Loop:
      token, log_prob = choose(logits, loop.position)
      token = jnp.where(loop.ended, PAD_ID, token)
      return loop._replace(
        position=loop.position + 1,
        tokens=loop.tokens.at[:, loop.position].set(token),
        scores=loop.scores + jnp.where(loop.ended, 0.0, log_prob),
        ended=loop.ended | loop.state.ends(token),
      )

    def body(loop: Loop) -> Loop:
      logits, new_state = step(loop.tokens[:, loop.position - 1], loop.state)
      return record(loop._replace(state=new_state), logits)

    start = Loop(
      jnp.zeros((), jnp.int32),
      jnp.full((rows, length), PAD_ID, jnp.int32),
      jnp.zeros((rows,), jnp.float32),
      jnp.zeros((rows,), bool),
      state,
    )
    final = jax.lax.while_loop(
      lambda loop: (loop.position < length) & ~jnp.all(loop.ended),
      body,
      record(start, logits),
    )
    tokens = final.tokens.reshape(batch, self.num_decodes, length)
    scores = final.scores.reshape(batch, self.num_decodes)
    order = jnp.argsort(-scores, axis=1)
    return Decoded(
      jnp.take_along_axis(tokens, order[..., None], axis=1),
      jnp.take_along_axis(scores, order, axis=1),
    )

  def _choose(self, logits: Array, keys: Array, position: Array) -> Array:
    if self.temperature == 0 or self.topk == 1:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits / self.temperature
    if self.topk:
      kth = jax.lax.top_k(logits, min(self.topk, logits.shape[-1]))[0][:, -1:]
      logits = jnp.where(logits < kth, -jnp.inf, logits)
    if self.topp:
      logits = jnp.where(_in_nucleus(logits, self.topp), logits, -jnp.inf)

    def draw(key: Array, row: Array) -> Array:
      return jax.random.categorical(jax.random.fold_in(key, position), row)

    return jax.vmap(draw)(keys, logits).astype(jnp.int32)


def Greedy() -> Sampling:  # noqa: N802 - stands beside the two classes
  """Take the most likely token at every position."""
  return Sampling(temperature=0.0)


@dataclasses.dataclass(frozen=True)
class BeamSearch:
  """Keep the best partial sequences.

  With one beam this is T5X's default for encoder-decoders, which is not quite
  greedy: it compares two candidates per step, and keeps finished and live
  sequences separately.

  Attributes:
    num_decodes: beams, and sequences returned.
    alpha: exponent of the length penalty ((5 + length) / 6)^alpha; the length
      includes EOS.

  Source: T5X's beam_search, with its penalty and stopping rule. Deviation: best
    sequence first instead of last.
  """

  num_decodes: int = 4
  alpha: float = 0.6

  def __post_init__(self) -> None:
    """Check the ranges."""
    if self.num_decodes < 1 or not math.isfinite(self.alpha):
      raise ValueError(
        "Beam search needs num_decodes >= 1 and a finite alpha; got "
        f"num_decodes={self.num_decodes}, alpha={self.alpha}."
      )

  def __call__(
    self, step: StepFn, logits: Array, state: State, length: int, rng: Array
  ) -> Decoded:
    """Decode; see `DecodingMethod`."""
    del rng
    batch, beams = logits.shape[0], self.num_decodes
    state = _map_rows(state, lambda a, axis: _repeat(a, beams, axis))
    logits = jnp.broadcast_to(logits[:, None], (batch, beams, logits.shape[-1]))
    empty = jnp.full((batch, beams, length), PAD_ID, jnp.int32)
    # All beams start equal: only the first may win, or all would be copies.
    only_first = jnp.where(jnp.arange(beams) == 0, 0.0, _NEGATIVE)
    start = _Beams(
      position=jnp.zeros((), jnp.int32),
      live_tokens=empty,
      live_scores=jnp.broadcast_to(only_first, (batch, beams)),
      done_tokens=empty,
      done_scores=jnp.full((batch, beams), _NEGATIVE),
      done=jnp.zeros((batch, beams), bool),
      state=state,
    )

    def body(beam: _Beams) -> _Beams:
      last = beam.live_tokens[:, :, beam.position - 1].reshape(-1)
      logits, new_state = step(last, beam.state)
      logits = logits.reshape(batch, beams, -1)
      return self._extend(beam._replace(state=new_state), logits)

    def unfinished(beam: _Beams) -> Array:
      # No live beam can beat the worst finished one, even at full length
      # (T5X counts one position more than it decodes here).
      bound = beam.live_scores[:, :1] / self._penalty(length + 1)
      worst = jnp.min(beam.done_scores, axis=1, keepdims=True)
      worst = jnp.where(beam.done, worst, _NEGATIVE)
      return (beam.position < length) & ~jnp.all(worst > bound)

    final = jax.lax.while_loop(unfinished, body, self._extend(start, logits))
    any_done = jnp.any(final.done, axis=1, keepdims=True)
    return Decoded(
      jnp.where(any_done[..., None], final.done_tokens, final.live_tokens),
      jnp.where(any_done, final.done_scores, final.live_scores),
    )

  def _penalty(self, length: Array | int) -> Array:
    length = jnp.asarray(length, jnp.float32)
    return jnp.power((5.0 + length) / 6.0, self.alpha)

  def _extend(self, beam: "_Beams", logits: Array) -> "_Beams":
    """Append one token to every beam and keep the best."""
    batch, beams, vocab = logits.shape
    scores = jax.nn.log_softmax(logits) + beam.live_scores[..., None]
    # Twice as many candidates as beams: at most half of them end here.
    scores, flat = jax.lax.top_k(scores.reshape(batch, -1), 2 * beams)
    parents, tokens = flat // vocab, (flat % vocab).astype(jnp.int32)
    sequences = _pick(beam.live_tokens, parents)
    sequences = sequences.at[:, :, beam.position].set(tokens)
    ends = beam.state.ends(tokens)

    live_scores, live = jax.lax.top_k(
      jnp.where(ends, scores + _NEGATIVE, scores), beams
    )
    live_parents = _pick(parents, live)
    flat_parents = (live_parents + beams * jnp.arange(batch)[:, None]).ravel()

    finished = scores / self._penalty(beam.position + 1)
    finished = jnp.where(ends, finished, finished + _NEGATIVE)
    all_scores = jnp.concatenate([beam.done_scores, finished], axis=1)
    done_scores, best = jax.lax.top_k(all_scores, beams)
    all_tokens = jnp.concatenate([beam.done_tokens, sequences], axis=1)
    return _Beams(
      position=beam.position + 1,
      live_tokens=_pick(sequences, live),
      live_scores=live_scores,
      done_tokens=_pick(all_tokens, best),
      done_scores=done_scores,
      done=_pick(jnp.concatenate([beam.done, ends], axis=1), best),
      state=_map_rows(
        beam.state, lambda a, axis: jnp.take(a, flat_parents, axis=axis)
      ),
    )


class _Beams(NamedTuple):
  """Beam search's loop state; scores are sorted, best first."""

  position: Array
  live_tokens: Array
  live_scores: Array
  done_tokens: Array
  done_scores: Array
  done: Array
  state: State


def _sequence_keys(rng: Array, batch: int, num_decodes: int) -> Array:
  """Give every sequence of every row its own key: [B * num_decodes]."""
  fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
  if not rng.ndim:
    rng = fold(rng, jnp.arange(batch))
  keys = jax.vmap(fold, in_axes=(0, None))(rng, jnp.arange(num_decodes))
  return keys.reshape(-1)


def _in_nucleus(logits: Array, topp: float) -> Array:
  """Mark the most likely tokens whose probabilities reach topp: [n, V]."""
  descending = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
  mass = jnp.cumsum(jax.nn.softmax(descending, axis=-1), axis=-1)
  # A token stays while the mass before it is short of topp.
  before = jnp.pad(mass[:, :-1], ((0, 0), (1, 0)))
  inside = jnp.where(before < topp, descending, jnp.inf)
  return logits >= jnp.min(inside, axis=-1, keepdims=True)


def _pick(values: Array, index: Array) -> Array:
  """Gather along axis 1: [B, M, ...], [B, n] -> [B, n, ...]."""
  index = index.reshape(*index.shape, *([1] * (values.ndim - 2)))
  return jnp.take_along_axis(values, index, axis=1)


def _repeat(a: Array, times: int, axis: int) -> Array:
  return a if times == 1 else jnp.repeat(a, times, axis=axis)


def _map_rows(state: State, fn: Callable[[Array, int], Array]) -> State:
  """Apply fn(array, batch axis) to all arrays with one row per example."""
  cache = state.cache
  stacked = isinstance(cache.layers, LayerCache)

  def over(tree: Any, axis: int) -> Any:
    return jax.tree.map(lambda a: fn(a, axis), tree)

  return State(
    cache._replace(
      layers=over(cache.layers, 1 if stacked else 0),
      self_mask=over(cache.self_mask, 0),
      cross_mask=over(cache.cross_mask, 0),
    ),
    over(state.run_ids, 0),
    state.table_rows,
  )
