"""The identity of a training's vocabulary, in bundles and exports."""

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
  """The facts that tell a vocabulary from others.

  Attributes:
    sha256: of its file.
    ids_sha256: of the parts that decide a text's ids, equal for other forms of
      the file; None if an older version did not write it.
    size: number of ids.
    file: its path, as the user gave it.
  """

  sha256: str
  ids_sha256: str | None = None
  size: int | None = None
  file: str | None = None

  @classmethod
  def of_manifest(cls, described: Mapping[str, Any]) -> "VocabularyMark":
    """Read the keys of `SCHEMA`; leave out keys of later versions."""
    return cls(**{k: v for k, v in described.items() if k in cls._fields})

  @property
  def described(self) -> dict[str, Any]:
    """The same as JSON values."""
    return {k: v for k, v in self._asdict().items() if v is not None}

  def __str__(self) -> str:
    name = repr(self.file) if self.file else "a file that is not named"
    size = f"{self.size:,} ids, " if self.size is not None else ""
    return f"{name} ({size}sha256 {self.sha256[:12]})"
