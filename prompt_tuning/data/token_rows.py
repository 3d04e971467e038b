"""What tokenising gives, and a token cache holds."""

import dataclasses
from collections.abc import Mapping

from prompt_tuning.data.ragged import Ragged

FEATURES = ("inputs", "targets")


@dataclasses.dataclass(frozen=True)
class TokenRows:
  """The rows of a split that was just tokenised.

  Attributes:
    arrays: those of `FEATURES`, and `columns`: one JSON object per example.
    truncated: examples that the limits shortened, per feature.
  """

  arrays: Mapping[str, Ragged]
  truncated: Mapping[str, int]

  @property
  def count(self) -> int:
    """Number of examples."""
    return len(self.arrays["inputs"])
