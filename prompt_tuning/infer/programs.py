"""The compiled programs of inference: decode, score candidates or classes.

Each is compiled once per model, settings and shapes of batch and delta, and
kept while it is among the last that were used. Delta and parameters are
arguments.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prompt_tuning.core.axes import rows_sharding
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.types import PAD_ID, Array, Batch, Params
from prompt_tuning.models.scorers import Scorer, WordScorer
from prompt_tuning.models.t5 import decoding, network
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.prompting.label_words import WordPieces

# (parameters, delta, batch of host or device arrays) -> arrays, rows first.
InferProgram = Callable[[Params, Delta, Mapping[str, Any]], Any]

# Compiled programs that stay in memory, where each takes megabytes: more than
# an evaluation of many tasks needs in turn, and a bound for a long session.
_MOST = 256


@dataclasses.dataclass(frozen=True)
class _Program:
  """A program that is compiled for every shape of its batch and delta.

  Each shape has a jitted function of its own, so that it can be forgotten
  alone.

  Attributes:
    build: builds the function that is jitted.
    settings: arguments of `build`, all hashable.
    mesh: the mesh on which it runs.
  """

  build: Callable[..., InferProgram]
  settings: tuple[Any, ...]
  mesh: Mesh | None

  def __call__(
    self, params: Params, delta: Delta, batch: Mapping[str, Any]
  ) -> Any:
    leaves, structure = jax.tree.flatten((delta, dict(batch)))
    shapes = (structure, *map(np.shape, leaves))
    return _jitted(self, shapes)(params, delta, batch)


@functools.lru_cache(maxsize=_MOST)
def _jitted(program: _Program, shapes: tuple[Hashable, ...]) -> InferProgram:
  del shapes  # for which it will be compiled
  everywhere = None  # every host sees all results
  if program.mesh is not None:
    everywhere = NamedSharding(program.mesh, PartitionSpec())
  function = program.build(*program.settings)
  return jax.jit(function, out_shardings=everywhere)


def decoder(
  config: T5Config,
  method: decoding.DecodingMethod,
  length: int,
  mesh: Mesh | None,
) -> InferProgram:
  """Compile decoding.

  Args:
    config: configuration of the model.
    method: decoding method; it must be hashable, as those of `decoding` are.
    length: maximum number of positions to decode.
    mesh: the mesh on which it runs.

  Returns:
    A program whose batch needs, besides the features of `decoding.generate`,
    `seed` and `numbers` [B]: a row's samples depend on these two and on nothing
    else. It returns `decoding.Decoded`.
  """
  return _Program(_decode, (config, method, length), mesh)


def _decode(
  config: T5Config, method: decoding.DecodingMethod, length: int
) -> InferProgram:
  model = network.T5(config)

  def decode(params: Params, delta: Delta, batch: Batch) -> decoding.Decoded:
    key = jax.random.key(batch["seed"])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["numbers"])
    return decoding.generate(
      model, params, batch, delta, length=length, method=method, rng=keys
    )

  return decode


def candidate_scores(config: T5Config, mesh: Mesh | None) -> InferProgram:
  """Compile the scoring of candidate targets.

  The encoder, the cross-attention's keys and values and the decoder's own
  virtual tokens are computed once per row, for any number of candidates.

  Args:
    config: configuration of the model.
    mesh: the mesh on which it runs.

  Returns:
    A program whose batch needs `candidates` [B, C, S], ids with EOS and then 0,
    S at least 2. It returns summed log-likelihoods, [B, C] float32.
  """
  return _Program(_score_candidates, (config,), mesh)


def _score_candidates(config: T5Config) -> InferProgram:
  model = network.T5(config)

  def score(params: Params, delta: Delta, batch: Batch) -> Array:
    def apply(method: str, *args: Any) -> Any:
      return model.apply({"params": params}, *args, method=method)

    run_ids, candidates = batch.get("run_ids"), batch["candidates"]
    start = batch.get("decoder_prefix_tokens")
    if start is None:
      start = jnp.full((len(candidates), 1), PAD_ID, jnp.int32)
    valid = (start != PAD_ID).at[:, -1].set(True)
    room = start.shape[1] + candidates.shape[2] - 1
    encoded = apply("encode", batch, delta)
    first, cache = apply("prefill", start, valid, encoded, room, delta, run_ids)

    def one(targets: Array) -> Array:
      rest, _ = apply("step", targets[:, :-1], cache, delta, run_ids)
      logits = jnp.concatenate([first[:, -1:], rest], axis=1)
      return network.score(logits, targets)

    return jax.lax.map(one, jnp.moveaxis(candidates, 1, 0)).T

  return score


class Words:
  """Label words as a key of compiled programs.

  Attributes:
    words: the words.
  """

  def __init__(self, words: WordPieces):
    """Make the key of words, whose arrays nobody changes."""
    self.words = words
    self._key = words.key
    self._hash = hash(self._key)  # asked for with every batch

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Words) and self._key == other._key

  def __hash__(self) -> int:
    return self._hash


def class_scores(
  config: T5Config, score: Scorer, key: Words, mesh: Mesh | None
) -> InferProgram:
  """Compile the scoring of classes.

  Args:
    config: configuration of the model.
    score: the scorer of classes.
    key: the words of the classes, as a hashable key.
    mesh: the mesh on which it runs.

  Returns:
    A program that returns [B, C] float32, see `models.scorers`.
  """
  return _Program(_score_classes, (config, score, key), mesh)


def _score_classes(config: T5Config, score: Scorer, key: Words) -> InferProgram:
  def scores(logits: Array, delta: Delta, batch: Batch) -> Array:
    learned = delta.word_weights
    if learned is not None:
      learned = learned[batch.get("run_ids", jnp.zeros(len(logits), "i4"))]
    return score(logits, key.words, config.vocab_size, learned)

  return _scoring(config, score, scores, key.words)


def word_scores(
  config: T5Config, score: WordScorer, key: Words, mesh: Mesh | None
) -> InferProgram:
  """Compile the scoring of words, before they are combined into classes.

  Args:
    config: configuration of the model.
    score: the scorer of words.
    key: the words of the classes, as a hashable key.
    mesh: the mesh on which it runs.

  Returns:
    A program that returns [B, C, W] float32, see `models.scorers`.
  """
  return _Program(_score_words, (config, score, key), mesh)


def _score_words(
  config: T5Config, score: WordScorer, key: Words
) -> InferProgram:
  def scores(logits: Array, delta: Delta, batch: Batch) -> Array:
    del delta, batch
    return score.of_words(logits, key.words, config.vocab_size)

  return _scoring(config, score, scores, key.words)


def _scoring(
  config: T5Config,
  reader: Scorer,
  score: Callable[[Array, Delta, Batch], Array],
  words: WordPieces,
) -> InferProgram:
  model = network.T5(config)

  def scores(params: Params, delta: Delta, batch: Batch) -> Array:
    rows = reader.prepare(batch, words)
    logits = model.apply({"params": params}, rows, delta)
    return score(jnp.asarray(logits), delta, batch)

  return scores


def put(
  batch: Mapping[str, np.ndarray], mesh: Mesh | None
) -> Mapping[str, np.ndarray | Array]:
  """Divide a batch's rows among the devices of a mesh.

  Args:
    batch: arrays with rows first, or scalars; the same on every host.
    mesh: None leaves the placement to the program.

  Returns:
    The batch.
  """
  if mesh is None:
    return batch

  def place(array: np.ndarray) -> Array:
    to = (
      rows_sharding(mesh)
      if array.ndim
      else NamedSharding(mesh, PartitionSpec())
    )
    return jax.make_array_from_callback(
      array.shape, to, lambda index: array[index]
    )

  return {name: place(array) for name, array in batch.items()}
