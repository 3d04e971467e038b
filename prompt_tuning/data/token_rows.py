"""The result of tokenising, which a token cache holds."""

import dataclasses
from collections.abc import Mapping

from prompt_tuning.data.ragged import Ragged

FEATURES = ("inputs", "targets")


@dataclasses.dataclass(frozen=True)
class TokenRows:
  """The token rows of a split.

  Attributes:
    arrays: those of `FEATURES`, and `columns`: one JSON object per example.
    truncated: number of examples that the limits shortened, per feature.
  """

  arrays: Mapping[str, Ragged]
  truncated: Mapping[str, int]

  @property
  def count(self) -> int:
    """Number of examples."""
    return len(self.arrays["inputs"])
