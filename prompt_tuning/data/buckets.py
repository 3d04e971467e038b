"""A small set of batch lengths that needs little padding."""

import numpy as np


def round_up(length: int, multiple: int) -> int:
  """Return the next multiple at or above a length."""
  return -(-length // multiple) * multiple


def choose_boundaries(
  lengths: np.ndarray, max_buckets: int, multiple: int = 8
) -> tuple[int, ...]:
  """Choose the bucket lengths that minimise padding.

  Every example is padded to the smallest boundary that is long enough. Of all
  sets of at most `max_buckets` multiples of `multiple`, dynamic programming
  over the histogram finds exactly the one with the fewest padded positions.

  Args:
    lengths: [n] integers, one per example, n >= 1.
    max_buckets: maximum number of boundaries; each is a compiled shape.
    multiple: boundaries are multiples of this.

  Returns:
    Increasing boundaries; the last is at least the longest length.

  Raises:
    ValueError: no lengths, or no buckets.
  """
  if not len(lengths) or max_buckets < 1:
    raise ValueError(
      f"Got {len(lengths)} lengths and max_buckets={max_buckets}; expected at "
      "least one of each."
    )
  rounded = -(-np.asarray(lengths) // multiple) * multiple
  edges, counts = np.unique(rounded, return_counts=True)
  below = np.concatenate([[0], np.cumsum(counts)])  # examples before edge i
  n = len(edges)
  # cost[j]: padded positions when the first j edges are covered; choice[b][j]:
  # where the last bucket starts. The positions that hold tokens are the same
  # for every choice, so boundary x count is what to minimise.
  cost = np.full(n + 1, np.inf)
  cost[0] = 0
  choices = []
  for _ in range(min(max_buckets, n)):
    starts = np.arange(n)
    options = np.full((n, n + 1), np.inf)  # [start, end)
    for end in range(1, n + 1):
      examples = below[end] - below[starts[:end]]
      options[:end, end] = cost[:end] + edges[end - 1] * examples
    choices.append(options.argmin(axis=0))
    cost = np.append(np.inf, options.min(axis=0)[1:])
    cost[0] = 0  # no edges, no cost
  return tuple(int(edge) for edge in _trace(edges, choices))


def _trace(edges: np.ndarray, choices: list[np.ndarray]) -> list[np.int64]:
  """Follow the choices back from the last edge to the first."""
  boundaries = []
  end = len(edges)
  for choice in reversed(choices):
    if end == 0:
      break
    boundaries.append(edges[end - 1])
    end = int(choice[end])
  return boundaries[::-1]


def cut(
  lengths: np.ndarray, boundaries: tuple[int, ...], batch_size: int
) -> list[tuple[int, np.ndarray]]:
  """Cut one window of examples into batches of similar length.

  Examples that do not fill a bucket's last batch move to the next bucket,
  longest first, so that every batch is full. Within a bucket the examples keep
  the order of the window.

  Args:
    lengths: [W] lengths in the window's order; W is a multiple of batch_size.
    boundaries: increasing boundaries; the last is at least every length.
    batch_size: examples per batch.

  Returns:
    (boundary, positions in the window [batch_size]) per batch, shortest bucket
    first; every position occurs exactly once.
  """
  order = np.argsort(lengths, kind="stable")
  ends = np.searchsorted(lengths[order], boundaries, side="right")
  stops = ends // batch_size * batch_size
  batches = []
  start = 0
  for boundary, stop in zip(boundaries, stops, strict=True):
    pool = np.sort(order[start:stop])
    batches += [
      (boundary, pool[i : i + batch_size])
      for i in range(0, len(pool), batch_size)
    ]
    start = int(stop)
  return batches
