"""Which vocabulary something was trained with, as bundles, exports say it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from prompt_tuning.core.schema import TEXT, WHOLE, Maybe

KEY = "vocabulary"  # in manifests
SCHEMA = {
  "sha256": TEXT,
  "ids_sha256?": Maybe(TEXT),
  "size?": Maybe(WHOLE),
  "file?": Maybe(TEXT),
}


class VocabularyMark(NamedTuple):
  """What tells a vocabulary from others.

  Attributes:
    sha256: of its file.
    ids_sha256: of what decides which ids a text has, the same for other forms
      of the file; None where an older version did not write it down.
    size: ids in all.
    file: as the user named it.
  """

  sha256: str
  ids_sha256: str | None = None
  size: int | None = None
  file: str | None = None

  @classmethod
  def of_manifest(cls, described: Mapping[str, Any]) -> "VocabularyMark":
    """Read what `SCHEMA` describes; keys of later versions are left out."""
    return cls(**{k: v for k, v in described.items() if k in cls._fields})

  @property
  def described(self) -> dict[str, Any]:
    """The same as JSON values."""
    return {k: v for k, v in self._asdict().items() if v is not None}

  def __str__(self) -> str:
    name = repr(self.file) if self.file else "a file that is not named"
    size = f"{self.size:,} ids, " if self.size is not None else ""
    return f"{name} ({size}sha256 {self.sha256[:12]})"
