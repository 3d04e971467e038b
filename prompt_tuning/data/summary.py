"""A summary of a tokenised split, for people."""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np

from prompt_tuning.data import spec
from prompt_tuning.data.cache import TokenCache
from prompt_tuning.data.token_rows import FEATURES

PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)
# If there are more distinct targets than this, they are not labels.
MOST_LABELS = 20


@dataclasses.dataclass(frozen=True)
class Summary:
  """Lengths and labels of a split.

  Attributes:
    count: number of examples.
    mean: feature -> mean length in tokens.
    percentiles: feature -> lengths at `PERCENTILES`.
    truncated: feature -> number of examples that the limit shortened.
    labels: target text -> share of the examples, the most frequent first; empty
      if there are too many to be labels.
  """

  count: int
  mean: Mapping[str, float]
  percentiles: Mapping[str, tuple[int, ...]]
  truncated: Mapping[str, int]
  labels: Mapping[str, float]


def summarise(tokens: TokenCache) -> Summary:
  """Describe a split.

  Args:
    tokens: the tokenised examples of the split.
  """
  lengths = {name: getattr(tokens, name).lengths for name in FEATURES}
  targets = collections.Counter(
    example[spec.TARGETS] for example in tokens.examples()
  )
  labels = {}
  if len(targets) <= MOST_LABELS:
    labels = {text: n / len(tokens) for text, n in targets.most_common()}
  return Summary(
    count=len(tokens),
    mean={name: float(rows.mean()) for name, rows in lengths.items()},
    percentiles={
      name: tuple(
        int(n) for n in np.percentile(rows, PERCENTILES, method="higher")
      )
      for name, rows in lengths.items()
    },
    truncated=tokens.truncated,
    labels=labels,
  )
