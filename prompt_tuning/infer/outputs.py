"""JSONL outputs that a killed job continues, byte for byte.

  <task>-<mode>.jsonl-00000-of-00001            the lines, complete or absent
  <task>-<mode>.jsonl-00000-of-00001.COMPLETED  how they were made

Until then they are called `.partial` and `.settings`. Lines are computed and
written in chunks; what a kill left of a chunk is cut off and computed again,
since a batch of fewer rows may round otherwise.
Source: names and lines are those of T5X's infer.py (whose marker is empty).
"""

import dataclasses
import itertools
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from prompt_tuning.core import files, schema

Example = Mapping[str, Any]
# Examples with their numbers in the whole input.
Chunk = list[tuple[int, Example]]
# (numbers of some examples in the whole input, these examples) -> for each one
# what its line holds besides `inputs`.
Compute = Callable[[Sequence[int], Sequence[Example]], Sequence[Example]]

_SETTINGS_BYTES = 16 << 20

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Shard:
  """One job's part of the input: every `count`-th example from `index` on.

  Raises:
    ValueError: no such shard.
  """

  index: int = 0
  count: int = 1

  def __post_init__(self) -> None:
    if not 0 <= self.index < self.count:
      raise ValueError(
        f"Shard {self.index} of {self.count} does not exist; shard_id counts "
        "from 0 to num_shards - 1."
      )


@dataclasses.dataclass(frozen=True)
class Output:
  """One output file.

  Attributes:
    folder: created if missing.
    task: first part of the name.
    mode: second part: `predict`, `score` or `predict_with_aux`.
    settings: JSON values that decide the lines (model, runs, decoding, input).
      A file that was begun with others is refused.
    shard: this job's part.
    chunk_size: lines computed, and then written, at once.
  """

  folder: str | os.PathLike[str]
  task: str
  mode: str
  settings: Mapping[str, Any]
  shard: Shard = dataclasses.field(default_factory=Shard)
  chunk_size: int = 3_200

  def __post_init__(self) -> None:
    if self.chunk_size < 1:
      raise ValueError(
        f"A chunk of {self.chunk_size} lines; expected 1 or more."
      )

  @property
  def path(self) -> pathlib.Path:
    """The complete file."""
    part = f"{self.shard.index:05}-of-{self.shard.count:05}"
    name = f"{self.task}-{self.mode}.jsonl-{part}"
    return files.below(self.folder, name, "A task, or INPUT_FILE")

  @property
  def completed(self) -> pathlib.Path:
    """The marker of a complete file."""
    return self._beside("COMPLETED")

  def write(
    self, examples: Iterable[Example], compute: Compute
  ) -> pathlib.Path:
    """Write what is missing of the file.

    Args:
      examples: all of the input, of every shard; JSON values, which become the
        lines' `inputs`.
      compute: makes the rest of the lines.

    Returns:
      The file's path.

    Raises:
      ValueError: the file was begun, or completed, with other settings or other
        input.
      OSError: it cannot be written; what was written stays.
    """
    files.make_folder(self.path.parent)
    files.remove_abandoned(self.path.parent)
    settings, partial = self._beside("settings"), self._beside("partial")
    if self.completed.exists():
      self._check_settings(self.completed)
      logger.info("%s is complete already.", self.path)
      return self.path
    if settings.exists():
      self._check_settings(settings)
    else:
      self._check_absent(self.path, partial)
      files.write_text(settings, self._describe())
    # A kill may have come between the two renames.
    if not self.path.exists():
      self._fill(partial, examples, compute)
      files.move(partial, self.path)
    files.move(settings, self.completed)
    return self.path

  def _fill(
    self, partial: pathlib.Path, examples: Iterable[Example], compute: Compute
  ) -> None:
    """Skip the chunks that are whole, then compute the others."""
    of_shard = itertools.islice(
      enumerate(examples), self.shard.index, None, self.shard.count
    )
    chunks = iter(lambda: list(itertools.islice(of_shard, self.chunk_size)), [])
    size, chunk = self._skip_written(partial, chunks)
    files.truncate(partial, size)
    if chunk:
      logger.info("Continuing %s behind %d bytes.", self.path, size)
    while chunk:
      files.append(partial, _lines(chunk, compute))
      files.flush(partial)
      chunk = next(chunks, [])

  def _skip_written(
    self, partial: pathlib.Path, chunks: Iterator[Chunk]
  ) -> tuple[int, Chunk]:
    """Read the chunks that are whole.

    Returns:
      Their bytes, and the first chunk that is not there, empty if all are.
    """
    if not partial.exists():
      return 0, next(chunks, [])
    with partial.open("rb") as file:
      for chunk in chunks:
        start = file.tell()
        if not self._is_written(file, chunk):
          return start, chunk
      if file.read(1):
        raise self._refusal(f"{partial} has more lines than the input")
      return file.tell(), []

  def _is_written(self, file: BinaryIO, chunk: Chunk) -> bool:
    """Read a chunk's lines; False if one is missing or damaged."""
    for number, example in chunk:
      line = file.readline()
      try:
        inputs = json.loads(line)["inputs"]
      except (ValueError, LookupError, TypeError, RecursionError):
        return False
      if not line.endswith(b"\n"):
        return False
      if json.dumps(inputs) != json.dumps(dict(example)):
        raise self._refusal(
          f"{file.name} has another input as number {number}: {inputs!r}, not "
          f"{example!r}"
        )
    return True

  def _beside(self, what: str) -> pathlib.Path:
    return self.path.with_name(f"{self.path.name}.{what}")

  def _describe(self) -> str:
    whole = {**self.settings, "chunk_size": self.chunk_size}
    return json.dumps(whole, indent=2, sort_keys=True) + "\n"

  def _check_settings(self, path: pathlib.Path) -> None:
    """Compare how a file was begun with how it would be continued."""
    ours = json.loads(self._describe())
    try:
      theirs = dict(schema.parse(files.read_bytes(path, _SETTINGS_BYTES)))
    except (ValueError, TypeError):
      theirs = {}
    differing = [
      f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} here"
      for key in sorted(ours.keys() | theirs.keys())
      if ours.get(key) != theirs.get(key)
    ]
    if differing:
      raise self._refusal(
        f"{path} says otherwise:\n  " + "\n  ".join(differing)
      )

  def _check_absent(self, *paths: pathlib.Path) -> None:
    for path in paths:
      if path.exists():
        raise self._refusal(f"{path} exists, and nothing says how it was made")

  def _refusal(self, why: str) -> ValueError:
    return ValueError(
      f"{self.path} cannot be continued; delete it and the files beside it, "
      f"or choose another INFER_OUTPUT_DIR: {why}"
    )


def _lines(chunk: Chunk, compute: Compute) -> bytes:
  """Compute one chunk's lines."""
  numbers, examples = zip(*chunk, strict=True)
  made = compute(numbers, examples)
  lines = [
    json.dumps({"inputs": dict(example), **fields}) + "\n"
    for example, fields in zip(examples, made, strict=True)
  ]
  return "".join(lines).encode()
