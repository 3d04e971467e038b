"""Read a learned prompt through the frozen vocabulary.

Source: Lester et al. 2021, section 7: the nearest tokens of a prompt vector, by
cosine, form tight clusters; those of random vectors (the control) do not.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.core.types import Array

TOP = 5  # neighbours that the paper lists
_CHUNK = 4_096  # rows of the table compared at once


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
  """The nearest tokens of each vector.

  Attributes:
    ids: [P, k] token ids, nearest first.
    cosines: [P, k] their cosines.
    norms: [P] Euclidean norms of the vectors.
  """

  ids: np.ndarray
  cosines: np.ndarray
  norms: np.ndarray

  def rows(self, part: slice) -> "Neighbours":
    """Take the neighbours of some of the vectors."""
    return Neighbours(self.ids[part], self.cosines[part], self.norms[part])


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
  """The tokens nearest to a prompt; prints as `report`.

  Attributes:
    words: the nearest tokens of every position, nearest first.
    neighbours: the same as numbers.
    control: neighbours of random vectors of the same norms.
  """

  words: Sequence[Sequence[str]]
  neighbours: Neighbours
  control: Neighbours
  piece: Callable[[int], str] = dataclasses.field(repr=False)

  def __str__(self) -> str:
    return report(self.neighbours, self.control, self.piece)


def nearest_tokens(
  vectors: Array | np.ndarray,
  embeddings: Array | np.ndarray,
  *,
  top: int = TOP,
  num_tokens: int | None = None,
) -> Neighbours:
  """Find the tokens whose embeddings have the most similar directions.

  The table is compared in slices, so that no [P, V] array is made.

  Args:
    vectors: [P, H].
    embeddings: [V, H] table of the frozen model.
    top: k, neighbours per vector.
    num_tokens: number of the first rows that stand for tokens (T5's table has
      32,128 rows for 32,100 tokens); None for all rows.

  Returns:
    The neighbours. Among equally near tokens, the lowest ids come first. A
    vector or row of zeros has cosine 0 with everything.

  Raises:
    ValueError: widths differ, or there are fewer tokens than `top`.
  """
  rows = embeddings.shape[0] if num_tokens is None else num_tokens
  if vectors.shape[-1] != embeddings.shape[-1]:
    raise ValueError(
      f"The prompt has {vectors.shape[-1]} features, but the embedding table "
      f"has {embeddings.shape[-1]}; both must come from the same model."
    )
  if not 0 < top <= rows <= embeddings.shape[0]:
    raise ValueError(
      f"Cannot list {top} neighbours among {rows} tokens in a table of "
      f"{embeddings.shape[0]} rows; change top or num_tokens."
    )
  values = jnp.asarray(vectors, jnp.float32)
  best = jnp.full((values.shape[0], top), -jnp.inf)
  ids = jnp.zeros((values.shape[0], top), jnp.int32)
  for start in range(0, rows, _CHUNK):
    stop = min(start + _CHUNK, rows)
    slice_ = jnp.asarray(embeddings[start:stop], jnp.float32)
    best, ids = _merge(best, ids, values, slice_, jnp.int32(start))
  norms = jnp.linalg.norm(values, axis=-1)
  return Neighbours(np.asarray(ids), np.asarray(best), np.asarray(norms))


def random_control(rng: Array, vectors: Array | np.ndarray) -> Array:
  """Draw vectors with random directions and the same norms, as a control.

  Args:
    rng: random key.
    vectors: [P, H], whose norms to copy, such as the initial prompt.

  Returns:
    [P, H] float32.
  """
  norms = jnp.linalg.norm(
    jnp.asarray(vectors, jnp.float32), axis=-1, keepdims=True
  )
  noise = jax.random.normal(rng, np.shape(vectors))
  return noise * (norms / jnp.linalg.norm(noise, axis=-1, keepdims=True))


def read(
  vectors: Mapping[str, Array | np.ndarray],
  embeddings: Array | np.ndarray,
  num_tokens: int,
) -> dict[str, tuple[Neighbours, Neighbours]]:
  """Find the nearest tokens of several prompts, and of random vectors.

  Args:
    vectors: name -> [P, H].
    embeddings: [V, H] table of the frozen model.
    num_tokens: rows of the table that stand for tokens.

  Returns:
    Name -> the neighbours of the prompt, and those of random vectors of the
    same norms.
  """
  rows = np.concatenate([np.asarray(v, np.float32) for v in vectors.values()])
  noise = np.random.default_rng(0).normal(size=rows.shape)
  norms = [np.linalg.norm(a, axis=-1, keepdims=True) for a in (rows, noise)]
  control = (noise * (norms[0] / norms[1])).astype(np.float32)
  learned, random = (
    nearest_tokens(values, embeddings, num_tokens=num_tokens)
    for values in (rows, control)
  )
  by_run, start = {}, 0
  for name, values in vectors.items():
    part = slice(start, start + len(values))
    by_run[name] = (learned.rows(part), random.rows(part))
    start += len(values)
  return by_run


def reading(
  vectors: Array | np.ndarray,
  embeddings: Array | np.ndarray,
  num_tokens: int,
  piece: Callable[[int], str],
) -> Reading:
  """Find the nearest tokens of one prompt, see `read`.

  Args:
    vectors: [P, H].
    embeddings: [V, H] table of the frozen model.
    num_tokens: rows of the table that stand for tokens.
    piece: token id -> text.
  """
  found, control = read({"": vectors}, embeddings, num_tokens)[""]
  words = [[piece(int(i)) for i in row] for row in found.ids]
  return Reading(words, found, control, piece)


def line(
  learned: Neighbours, control: Neighbours, piece: Callable[[int], str]
) -> str:
  """Write the nearest token of every position in one line.

  Args:
    learned: neighbours of a prompt.
    control: neighbours of random vectors.
    piece: token id -> text.

  Returns:
    The mean cosines of both, and the tokens.
  """
  words = " ".join(piece(int(i)) for i in learned.ids[:, 0])
  ours, theirs = (of.cosines[:, 0].mean() for of in (learned, control))
  return f"{ours:.2f} ({theirs:.2f})  {words}"


def report(
  neighbours: Neighbours,
  control: Neighbours,
  piece: Callable[[int], str],
  label_ids: Sequence[int] = (),
) -> str:
  """Format the neighbours of a prompt as a table.

  Args:
    neighbours: neighbours of the learned prompt.
    control: neighbours of random vectors.
    piece: token id -> text.
    label_ids: tokens of the class labels, whose occurrences are counted.

  Returns:
    One line per prompt position. Then three numbers, as in the paper: how near
    the nearest tokens are, compared with the control; how many positions share
    their nearest token with another; and how many have a label among their
    neighbours.
  """
  lines = ["position  norm      nearest tokens (cosine)"]
  for position, norm in enumerate(neighbours.norms):
    pairs = zip(
      neighbours.ids[position], neighbours.cosines[position], strict=True
    )
    words = "  ".join(f"{piece(int(i))} ({cosine:.2f})" for i, cosine in pairs)
    lines.append(f"{position:<8}  {norm:<8.2f}  {words}")
  nearest = neighbours.ids[:, 0].tolist()
  shared = sum(nearest.count(i) > 1 for i in nearest)
  lines.append(
    f"mean cosine of the nearest token: {neighbours.cosines[:, 0].mean():.3f} "
    f"(random vectors: {control.cosines[:, 0].mean():.3f})"
  )
  lines.append(
    f"norm: {neighbours.norms.mean():.2f} ± {neighbours.norms.std():.2f} "
    f"(random vectors: {control.norms.mean():.2f})"
  )
  lines.append(f"positions that share their nearest token: {shared}")
  if label_ids:
    hits = int(np.isin(neighbours.ids, list(label_ids)).any(-1).sum())
    chance = int(np.isin(control.ids, list(label_ids)).any(-1).sum())
    lines.append(
      f"positions with a class label among their neighbours: {hits} "
      f"(random vectors: {chance})"
    )
  return "\n".join(lines)


@jax.jit
def _merge(
  best: Array, ids: Array, vectors: Array, rows: Array, start: Array
) -> tuple[Array, Array]:
  """Merge one slice of the table into the best neighbours so far."""
  highest = jax.lax.Precision.HIGHEST
  cosines = jnp.matmul(_unit(vectors), _unit(rows).T, precision=highest)
  new, columns = jax.lax.top_k(cosines, min(best.shape[1], rows.shape[0]))
  # Earlier slices come first: of equal values top_k keeps the first one, which
  # has the lowest id.
  candidates = jnp.concatenate([best, new], axis=1)
  candidate_ids = jnp.concatenate([ids, columns + start], axis=1)
  best, indices = jax.lax.top_k(candidates, best.shape[1])
  return best, jnp.take_along_axis(candidate_ids, indices, axis=1)


def _unit(x: Array) -> Array:
  norms = jnp.linalg.norm(x, axis=-1, keepdims=True)
  return x / jnp.where(norms > 0, norms, 1)
