"""Move a prompt to another model, through words that both models have.

It fits a map from the source model's embeddings of words to the target's, and
applies it to the prompt's vectors.

Source: Lester et al. 2022, Reducing Retraining by Recycling Parameter-Efficient
Prompts; settings of prompt-tuning's `recycling`: 4,000 English words after the
first 1,000. Its linear combination of words (`lin-comb`) equals the
least-squares map up to rounding, since both are prompt x pinv(source) x target;
so there is only one here. Deviation: English words are pieces that begin a word
and have only ASCII letters; the original has a list.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from prompt_tuning.checkpoints import fingerprint, prompts, restore
from prompt_tuning.core import bounds
from prompt_tuning.data import vocabulary
from prompt_tuning.jobs import load, same_vocabulary

LINEAR, MLP = "linear", "mlp"
WAYS = (LINEAR, MLP)
WORDS, SKIPPED = 4_000, 1_000  # the original's
_EMBEDDING = "token_embedder/embedding"
_WORD = re.compile("▁[A-Za-z]+")
# The MLP's: width over the target's, and how it is fitted.
_WIDER, _BATCH, _EPOCHS, _RATE = 4, 50, 25, 3e-4

logger = logging.getLogger(__name__)

# Vectors [P, H] -> vectors [P, H'] of the other model.
Map = Callable[[np.ndarray], np.ndarray]


class Recycled(NamedTuple):
  """A prompt for another model.

  Attributes:
    vectors: [P, H'] float32.
    words: number of words for fitting the map.
    error: root mean square of the map's errors on their embeddings, divided by
      the root mean square of the target's embeddings.
  """

  vectors: np.ndarray
  words: int
  error: float


def recycle(
  prompt: np.ndarray,
  source: np.ndarray,
  target: np.ndarray,
  by: str = LINEAR,
) -> Recycled:
  """Move a prompt.

  Args:
    prompt: [P, H], a prompt of the source model.
    source: [N, H] embeddings of N words in the source model.
    target: [N, H'] of the same words in the target model.
    by: `linear`, a matrix by least squares, or `mlp`, two layers and ReLU.

  Returns:
    The prompt for the target model.

  Raises:
    ValueError: the prompt's width is not the model's, there are fewer words
      than features, or `by` is unknown.
  """
  if by not in WAYS:
    raise ValueError(f"--by {by!r}: expected {' or '.join(WAYS)}.")
  if prompt.shape[1] != source.shape[1]:
    raise ValueError(
      f"The prompt has vectors of {prompt.shape[1]} features, but the source "
      f"model has {source.shape[1]}. Set --source to the model that the "
      "prompt was trained with."
    )
  if len(source) < source.shape[1]:
    raise ValueError(
      f"{len(source)} words are too few to fit a map of {source.shape[1]} "
      "features. Raise --words, or lower --skip."
    )
  fitted = {LINEAR: _least_squares, MLP: _mlp}[by](source, target)
  apart = np.square(fitted(source) - target).mean()
  error = float(np.sqrt(apart / np.square(target).mean()))
  return Recycled(fitted(prompt).astype(np.float32), len(source), error)


def shared_words(
  source: Sequence[str],
  target: Mapping[str, int],
  count: int = WORDS,
  skip: int = SKIPPED,
) -> list[tuple[int, int]]:
  """Choose words for which both models have a row.

  Args:
    source: pieces of the source's vocabulary, by id.
    target: piece -> id in the target's vocabulary.
    count: number of words to take.
    skip: number of first words to leave out.

  Returns:
    Pairs of ids, at most `count`.
  """
  pairs = [
    (number, target[piece])
    for number, piece in enumerate(source)
    if _WORD.fullmatch(piece) and piece in target
  ]
  return pairs[skip : skip + count]


def move(
  path: str,
  source: str,
  target: str,
  out: str | os.PathLike[str],
  vocabulary_file: str | None = None,
  target_vocabulary_file: str | None = None,
  by: str = LINEAR,
  count: int = WORDS,
  skip: int = SKIPPED,
  overwrite: bool = False,
) -> str:
  """Read a prompt, move it to another model, and write it.

  Args:
    path: path of the prompt, see `load.load`; for several seeds of one task,
      the best is taken.
    source: checkpoint of the model of its training.
    target: checkpoint of the model for its use.
    out: NumPy file to write.
    vocabulary_file: that of the source model; None for the default.
    target_vocabulary_file: of the target model; None for the source's.
    by: see `recycle`.
    count: see `shared_words`.
    skip: see `shared_words`.
    overwrite: whether to replace an existing file.

  Returns:
    A line that says what was done.

  Raises:
    ValueError: prompt, models and vocabularies do not fit together.
    CheckpointError: a file cannot be read or written.
  """
  bounds.insist_whole("--words", count, least=1)
  bounds.insist_whole("--skip", skip, least=0)
  ours = vocabulary.load(vocabulary_file)

  def fingerprint_of_source() -> str:
    return fingerprint.of_leaves(restore.open_checkpoint(source).params)

  vectors = load.encoder_vectors(path, ours, fingerprint_of_source)
  theirs = vocabulary.load(target_vocabulary_file or vocabulary_file)
  same_vocabulary.insist_of_model(source, ours)
  same_vocabulary.insist_of_model(target, theirs)
  pieces = theirs.pieces(range(theirs.size))
  ids = {piece: number for number, piece in enumerate(pieces)}
  pairs = shared_words(ours.pieces(range(ours.size)), ids, count, skip)
  if not pairs:
    raise ValueError(
      f"No words are left after the first {skip}: lower --skip. Both "
      "vocabularies need words of ASCII letters."
    )
  rows = np.array(pairs)
  made = recycle(
    vectors,
    _rows(source, rows[:, 0], "--vocabulary"),
    _rows(target, rows[:, 1], "--target_vocabulary"),
    by,
  )
  prompts.write_npy(out, made.vectors, overwrite=overwrite)
  return (
    f"{out}: {len(made.vectors)} vectors of {made.vectors.shape[1]} features, "
    f"moved by {by} on {made.words:,} words (relative error {made.error:.3f})"
  )


def _rows(path: str, ids: np.ndarray, setting: str) -> np.ndarray:
  """Read the embeddings of some ids, [N, H] float32."""
  table = _embeddings(path)
  if ids.max() >= len(table):
    raise ValueError(
      f"The vocabulary has a word with id {ids.max()}, but {path} has "
      f"{len(table)} rows. Set {setting} to the vocabulary of that model."
    )
  rows: np.ndarray = table[ids]
  return rows


def _embeddings(path: str) -> np.ndarray:
  """Read a model's embedding table, [V, H] float32."""
  checkpoint = restore.open_checkpoint(path)
  leaf = checkpoint.params.get(_EMBEDDING)
  if leaf is None:
    raise ValueError(
      f"{path} has no {_EMBEDDING}; expected the checkpoint of a T5."
    )
  return leaf.read(np.dtype(np.float32))


def _least_squares(source: np.ndarray, target: np.ndarray) -> Map:
  wide = np.asarray(source, np.float64)
  matrix, *_ = np.linalg.lstsq(wide, np.asarray(target, np.float64))
  return lambda vectors: np.asarray(vectors, np.float64) @ matrix


class _Mlp(nn.Module):
  """Two layers with ReLU between them."""

  hidden: int
  output: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    hidden = nn.relu(nn.Dense(self.hidden)(x))
    result: jax.Array = nn.Dense(self.output)(hidden)
    return result


def _mlp(source: np.ndarray, target: np.ndarray) -> Map:
  module = _Mlp(_WIDER * target.shape[1], target.shape[1])
  params = module.init(jax.random.key(0), jnp.asarray(source[:1]))
  optimizer = optax.adam(_RATE)

  @jax.jit
  def step(params: Any, state: Any, x: Any, y: Any) -> Any:
    def loss(params: Any) -> jax.Array:
      return 0.5 * jnp.square(module.apply(params, x) - y).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
      updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, value

  state = optimizer.init(params)
  rng = np.random.default_rng(0)
  size = min(_BATCH, len(source))
  for epoch in range(_EPOCHS):
    order = rng.permutation(len(source))
    # Rows that do not fill a batch wait for the next order.
    for start in range(0, len(order) - size + 1, size):
      rows = order[start : start + size]
      params, state, value = step(params, state, source[rows], target[rows])
    logger.debug("epoch %d: loss %s", epoch, value)
  return lambda vectors: np.asarray(
    module.apply(params, jnp.asarray(vectors, jnp.float32))
  )
