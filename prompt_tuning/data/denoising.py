"""Pre-training examples from a text's tokens, by noise or by a cut.

Every random choice depends only on a key, through `permutation`, so that the
same corpus gives the same examples on any machine.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from prompt_tuning.data.permutation import permutation

# Token rows of one example: (inputs, targets), without EOS.
Pair = tuple[np.ndarray, np.ndarray]

SPAN_CORRUPTION, PREFIX_LM = "span_corruption", "prefix_lm"
OBJECTIVES = (SPAN_CORRUPTION, PREFIX_LM)


def span_lengths(
  length: int, density: float, mean_span: float
) -> tuple[int, int]:
  """Compute the numbers of noise tokens and spans of a text.

  Args:
    length: tokens of the text, at least 2.
    density: share of the tokens that is noise.
    mean_span: mean tokens of a noise span.

  Returns:
    (noise tokens, noise spans), both at least 1; at least one token of the text
    stays.

  Source: T5, Raffel et al. 2020, section 3.1.4, `random_spans_noise_mask`.
  """
  noise = min(max(round(length * density), 1), length - 1)
  spans = min(max(round(noise / mean_span), 1), noise, length - noise)
  return noise, spans


def corrupt_spans(
  tokens: np.ndarray,
  sentinel: Callable[[int], int],
  density: float,
  mean_span: float,
  *key: int,
) -> Pair:
  """Remove spans from a text and replace each by its own sentinel.

  The text begins with kept tokens and ends with noise, as in T5.

  Args:
    tokens: [n] ids, n at least 2.
    sentinel: index of a span, from 0 -> id of its sentinel.
    density: share of the tokens that is noise.
    mean_span: mean tokens of a span.
    *key: key for the choice of spans.

  Returns:
    Inputs, with a sentinel in place of every span, and targets, with every span
    after its sentinel.

  Raises:
    ValueError: fewer than two tokens, or more spans than there are sentinels.

  Source: T5, Raffel et al. 2020, section 3.1.4.
  """
  if len(tokens) < 2:
    raise ValueError(f"A text of {len(tokens)} tokens cannot be corrupted.")
  noise, spans = span_lengths(len(tokens), density, mean_span)
  text_lengths = _segments(len(tokens) - noise, spans, *key, 0)
  noise_lengths = _segments(noise, spans, *key, 1)
  ends = np.cumsum(np.stack([text_lengths, noise_lengths], axis=1).reshape(-1))
  pieces = np.split(tokens, ends[:-1])
  marks = [np.asarray([sentinel(i)], tokens.dtype) for i in range(spans)]
  texts, noises = pieces[::2], pieces[1::2]
  inputs = itertools.chain(*zip(texts, marks, strict=True))
  targets = itertools.chain(*zip(marks, noises, strict=True))
  return np.concatenate(list(inputs)), np.concatenate(list(targets))


def delete(tokens: np.ndarray, density: float, *key: int) -> np.ndarray:
  """Delete tokens of a text, each with the same probability.

  Args:
    tokens: [n] ids.
    density: probability that a token is deleted.
    *key: key for the choice.

  Returns:
    The tokens that stay; the first token if none would.

  Source: BART's token deletion (Lewis et al. 2020), as in
    google-research/prompt-tuning.
  """
  stays = np.random.default_rng(key).random(len(tokens)) >= density
  stays[0] |= not stays.any()
  return tokens[stays]


def cut(tokens: np.ndarray, *key: int) -> Pair:
  """Cut a text at a random place into inputs and their continuation.

  Args:
    tokens: [n] ids, n at least 2.
    *key: key for the choice of the place.

  Returns:
    Inputs and targets, each with at least one token.

  Raises:
    ValueError: fewer than two tokens.

  Source: the "LM" objective of Raffel et al. 2020, section 3.2.3, which Lester
    et al. 2021, section 3.1, use to adapt models.
  """
  if len(tokens) < 2:
    raise ValueError(f"A text of {len(tokens)} tokens cannot be cut in two.")
  place = int(permutation(len(tokens) - 1, *key)[0]) + 1
  return tokens[:place], tokens[place:]


def blank(
  tokens: np.ndarray, answer: np.ndarray, sentinel: Callable[[int], int]
) -> Pair:
  """Make an answer the only missing span, after its question.

  Args:
    tokens: [n] ids of the question.
    answer: [m] ids.
    sentinel: see `corrupt_spans`.

  Returns:
    The question followed by a sentinel, and the sentinel followed by the
    answer.
  """
  mark = np.asarray([sentinel(0)], tokens.dtype)
  return np.concatenate([tokens, mark]), np.concatenate([mark, answer])


def chunks(tokens: np.ndarray, length: int) -> Iterator[np.ndarray]:
  """Cut a document into pieces of one length; the last one may be shorter.

  Args:
    tokens: [n] ids.
    length: tokens per piece.

  Yields:
    The pieces with at least two tokens: a single token makes no example.
  """
  for start in range(0, len(tokens), length):
    piece = tokens[start : start + length]
    if len(piece) >= 2:
      yield piece


def _segments(items: int, count: int, *key: int) -> np.ndarray:
  """Divide items into `count` non-empty parts, all ways equally likely.

  Returns:
    [count] int64 that adds up to `items`.
  """
  borders = np.sort(permutation(items - 1, *key)[: count - 1]) + 1
  return np.diff(np.concatenate([[0], borders, [items]]))
