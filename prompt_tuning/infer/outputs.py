"""JSONL outputs that a killed job can continue, with the same bytes.

  <task>-<mode>.jsonl-00000-of-00001            the lines; complete or absent
  <task>-<mode>.jsonl-00000-of-00001.COMPLETED  their settings and input digest

Every file, also a complete one, is compared with its input, so that it is never
used for another input. Before the file is complete, the two are called
`.partial` and `.settings`; in a bucket, every chunk is an object below
`.partial`. Lines are computed and written in chunks; a chunk that a kill
interrupted is removed and computed again, since a batch of fewer rows may round
differently.
Source: names and lines are those of T5X's infer.py (whose marker is empty).
"""

import dataclasses
import hashlib
import itertools
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from prompt_tuning.core import files, schema, sole_writer
from prompt_tuning.core.growing import Growing

Example = Mapping[str, Any]
# Examples with their numbers in the whole input.
Chunk = list[tuple[int, Example]]
# (numbers of some examples in the whole input, these examples) -> for each one
# what its line holds besides `inputs`.
Compute = Callable[[Sequence[int], Sequence[Example]], Sequence[Example]]

_SETTINGS_BYTES = 16 << 20

_INPUTS = "inputs"  # key of a marker: the digest of what the file answers

logger = logging.getLogger(__name__)


class InputsDigest:
  """A digest of inputs in their order."""

  def __init__(self, examples: Iterable[Example] = ()):
    """Begin with some examples; they are JSON values."""
    self._count, self._hash = 0, hashlib.sha256()
    for example in examples:
      self.add(example)

  def add(self, example: Example) -> None:
    """Add an example."""
    self._count += 1
    self._hash.update(json.dumps(dict(example)).encode() + b"\n")

  @property
  def value(self) -> dict[str, Any]:
    """Number of examples, and the hash of their lines."""
    return {"count": self._count, "sha256": self._hash.hexdigest()}


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
    folder: the folder, created if missing.
    task: first part of the name.
    mode: second part: `predict`, `score` or `predict_with_aux`.
    settings: JSON values that decide the lines (model, runs, decoding, input).
      A file that was started with other settings is refused.
    shard: this job's part.
    chunk_size: number of lines that are computed, then written, at once.
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
    """Write the missing part of the file.

    Args:
      examples: the whole input, of all shards; JSON values, which become the
        lines' `inputs`.
      compute: computes the other values of the lines.

    Returns:
      The file's path.

    Raises:
      ValueError: the file was started, or completed, with other settings or
        other input.
      OSError: the file cannot be written; the lines written so far stay.
    """
    files.make_folder(self.path.parent)
    writer = self._beside("writer.json").name
    with sole_writer.hold(self.path.parent, "INFER_OUTPUT_DIR", writer):
      files.remove_abandoned(self.path.parent)
      self._write(examples, compute)
    return self.path

  def _write(self, examples: Iterable[Example], compute: Compute) -> None:
    settings, partial = self._beside("settings"), self._beside("partial")
    counted = _Counted(
      itertools.islice(
        enumerate(examples), self.shard.index, None, self.shard.count
      )
    )
    if self.completed.exists():
      self._check_settings(self.completed)
      self._check_answers(counted)
      files.remove(settings)  # a kill may have come before that
      logger.info("%s is complete already.", self.path)
      return
    if settings.exists() and (
      self.path.exists() or Growing(partial).is_begun()
    ):
      self._check_settings(settings)
    else:
      self._check_absent(self.path, partial)
    # The job may have been killed after the renaming.
    if self.path.exists():
      self._check_answers(counted)
    else:
      growing = Growing(partial)
      self._fill(growing, settings, counted, compute)
      growing.move(self.path)
    files.write_text(self.completed, self._describe(counted.digest))
    files.remove(settings)

  def _check_answers(self, examples: Iterator[tuple[int, Example]]) -> None:
    """Check that the complete file answers this input, and all of it."""
    one_by_one = ([example] for example in examples)
    with files.open_file(self.path) as file:
      _, missing = self._skip_written(file, one_by_one)
    if missing:
      raise self._refusal(
        f"it has no answer, or a damaged one, to input number {missing[0][0]}"
      )

  def _fill(
    self,
    growing: Growing,
    settings: pathlib.Path,
    examples: Iterator[tuple[int, Example]],
    compute: Compute,
  ) -> None:
    """Skip the complete chunks, then compute the others."""
    chunks = iter(lambda: list(itertools.islice(examples, self.chunk_size)), [])
    with growing.open() as file:
      size, chunk = self._skip_written(file, chunks)
    if chunk and size:
      logger.info("Continuing %s after %d bytes.", self.path, size)
    # A job that fails before its first lines leaves no file.
    lines = _lines(chunk, compute) if chunk else b""
    if not size:
      files.write_text(settings, self._describe())
    growing.truncate(size)
    while chunk:
      growing.append(lines)
      chunk = next(chunks, [])
      lines = _lines(chunk, compute) if chunk else b""

  def _skip_written(
    self, file: BinaryIO, chunks: Iterator[Chunk]
  ) -> tuple[int, Chunk]:
    """Read the complete chunks.

    Returns:
      Their bytes, and the first missing chunk, empty if none is missing.
    """
    for chunk in chunks:
      start = file.tell()
      if not self._is_written(file, chunk):
        return start, chunk
    if file.read(1):
      raise self._refusal(f"{file.name} has more lines than the input")
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
          f"{file.name} has another input at number {number}: {inputs!r}, not "
          f"{example!r}"
        )
    return True

  def _beside(self, what: str) -> pathlib.Path:
    return self.path.with_name(f"{self.path.name}.{what}")

  def _describe(self, inputs: Mapping[str, Any] | None = None) -> str:
    whole = {**self.settings, "chunk_size": self.chunk_size}
    if inputs is not None:
      whole[_INPUTS] = inputs
    return json.dumps(whole, indent=2, sort_keys=True) + "\n"

  def _check_settings(self, path: pathlib.Path) -> None:
    """Compare the settings of a started file with those of this job."""
    ours = json.loads(self._describe())
    try:
      theirs = dict(schema.parse(files.read_bytes(path, _SETTINGS_BYTES)))
    except (ValueError, TypeError):
      theirs = {}
    theirs.pop(_INPUTS, None)  # of which the lines say more
    differing = [
      f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} here"
      for key in sorted(ours.keys() | theirs.keys())
      if ours.get(key) != theirs.get(key)
    ]
    if differing:
      raise self._refusal(
        f"{path} has other settings:\n  " + "\n  ".join(differing)
      )

  def _check_absent(self, *paths: pathlib.Path) -> None:
    for path in paths:
      if Growing(path).is_begun():
        raise self._refusal(
          f"{path} exists, but no file says with which settings it was made"
        )

  def _refusal(self, why: str) -> ValueError:
    return ValueError(
      f"{self.path} cannot be continued; delete it and the files beside it, "
      f"or choose another INFER_OUTPUT_DIR: {why}"
    )


class _Counted:
  """Iterates over numbered examples, and digests those it has yielded."""

  def __init__(self, examples: Iterator[tuple[int, Example]]):
    self._examples = examples
    self._inputs = InputsDigest()

  def __iter__(self) -> Iterator[tuple[int, Example]]:
    return self

  def __next__(self) -> tuple[int, Example]:
    number, example = next(self._examples)
    self._inputs.add(example)
    return number, example

  @property
  def digest(self) -> dict[str, Any]:
    """See `InputsDigest.value`."""
    return self._inputs.value


def _lines(chunk: Chunk, compute: Compute) -> bytes:
  """Compute one chunk's lines."""
  numbers, examples = zip(*chunk, strict=True)
  made = compute(numbers, examples)
  lines = [
    json.dumps({"inputs": dict(example), **fields}) + "\n"
    for example, fields in zip(examples, made, strict=True)
  ]
  return "".join(lines).encode()
