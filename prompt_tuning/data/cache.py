"""Tokenised examples on disk, written once and then memory-mapped.

One directory per split of a task:

  CACHE_DIR/<task>/<split>/<key>/
    manifest.json                       what the key is made of, counts, hashes
    inputs.values.npy   inputs.offsets.npy    token rows, trimmed, EOS included
    targets.values.npy  targets.offsets.npy
    columns.values.npy  columns.offsets.npy   one JSON object per example

Rows have no padding and no virtual tokens, so that one cache serves every
batching and every prompt. TensorFlow and seqio are imported only if a cache is
missing or damaged.
"""

import contextlib
import dataclasses
import errno
import functools
import json
import logging
import os
import pathlib
import re
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_tuning.core import files, schema
from prompt_tuning.core.schema import TEXT, WHOLE, Each, Maybe
from prompt_tuning.core.types import EOS_ID, UNK_ID
from prompt_tuning.data import installed, quiet, spec, vocabulary
from prompt_tuning.data.ragged import Ragged
from prompt_tuning.data.token_rows import FEATURES, TokenRows

# Raised when the format or the trimming changes.
FORMAT = 1
_ARRAYS = (*FEATURES, "columns")
# Errors of a damaged cache; a pipe or a huge file is no part of a cache.
_DAMAGE = (
  *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
  *(errno.EINVAL, errno.EFBIG),
)
# Files that killed processes of former versions left.
_OLD_LEFTOVERS = (f".{24 * '[0-9a-f]'}-*", ".damaged-*")
# Where hashes of rows in buckets are saved.
_NOTES, _SHA256 = ".in_buckets", re.compile("[0-9a-f]{64}")
_MANIFEST_BYTES = 16 << 20
_MANIFEST = {
  "fields": {
    "task": {"name": TEXT},
    "split": TEXT,
    "lengths": Each(Maybe(WHOLE)),
  },
  "key": TEXT,
  "truncated": Each(WHOLE),
  "files": Each(TEXT),
}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TokenCache:
  """The tokenised examples of one split of one task.

  Attributes:
    task: name of the task.
    split: name of the split.
    key: hash of everything that decides the rows.
    lengths: limits of `inputs` and `targets`, None for no limit.
    inputs: token rows, trimmed to the limit, with EOS.
    targets: the same.
    columns: the other features as JSON, see `example`.
    truncated: number of examples that the limits shortened, per feature.
  """

  task: str
  split: str
  key: str
  lengths: Mapping[str, int | None]
  inputs: Ragged
  targets: Ragged
  columns: Ragged
  truncated: Mapping[str, int]

  def __len__(self) -> int:
    return len(self.inputs)

  def example(self, index: int) -> dict[str, Any]:
    """Return the texts and evaluation features of one example.

    Args:
      index: index of the example.

    Returns:
      `inputs_pretokenized`, `targets_pretokenized` and the spec's
      `eval_features`, as Python values.
    """
    return dict(json.loads(self.columns[index].tobytes()))

  def examples(self) -> list[dict[str, Any]]:
    """Return `example` of every example, in order."""
    return [self.example(index) for index in range(len(self))]


def load(
  name: str,
  split: str,
  lengths: Mapping[str, int | None],
  cache_dir: str | os.PathLike[str],
  data_dir: str | os.PathLike[str] | None = None,
) -> list[tuple[TokenCache, float]]:
  """Open the tokenised examples of a task or mixture; write missing caches.

  Args:
    name: name of a task or mixture.
    split: split of the spec.
    lengths: limits of `inputs` and `targets` in tokens, with EOS and without
      virtual tokens; None for no limit.
    cache_dir: directory of the caches.
    data_dir: TFDS's data directory, by default TFDS's own choice.

  Returns:
    (examples, mixing rate) per task that has the split.

  Raises:
    ValueError: an unknown name, no task with that split, no vocabulary, or data
      that are missing and cannot be fetched.
  """
  entry = spec.get(name)
  members = entry.components(split)
  if not members:
    raise ValueError(
      f"{name!r} has no split {split!r} to train on or evaluate."
    )
  caches = [
    load_task(task, split, lengths, cache_dir, data_dir) for task, _ in members
  ]
  return [
    (tokens, entry.rate_of(rate, len(tokens)))
    for tokens, (_, rate) in zip(caches, members, strict=True)
  ]


def load_task(
  task: spec.TaskSpec,
  split: str,
  lengths: Mapping[str, int | None],
  cache_dir: str | os.PathLike[str],
  data_dir: str | os.PathLike[str] | None = None,
) -> TokenCache:
  """Open the tokenised examples of one task, see `load`."""
  try:
    cache = _load_task(task, split, lengths, cache_dir, data_dir)
  except PermissionError as error:
    if not _is_below(error.filename, cache_dir):
      raise
    raise ValueError(
      f"TOKEN_CACHE_DIR {cache_dir} belongs to another user: {error}. Its "
      "owner can share it (`chmod -R g+rwX`; later files get the folder's own "
      "permissions), or name a folder of your own."
    ) from error
  _warn_of_unknown(cache)
  return cache


def _is_below(name: Any, folder: str | os.PathLike[str]) -> bool:
  """Whether an error names a file in a folder."""
  path = pathlib.Path(os.path.abspath(str(name)))
  return path.is_relative_to(os.path.abspath(folder))


def _warn_of_unknown(cache: TokenCache) -> None:
  """Warn of targets that the vocabulary cannot write, with their number."""
  unlabelled = [*vocabulary.load().encode(spec.UNLABELLED), EOS_ID]
  positions = np.flatnonzero(cache.targets.values == UNK_ID)
  rows = np.unique(
    np.searchsorted(cache.targets.offsets, positions, "right") - 1
  )
  unknown = [
    int(row) for row in rows if cache.targets[row].tolist() != unlabelled
  ]
  if unknown:
    first = cache.example(unknown[0])["targets_pretokenized"]
    # A corpus keeps no texts, only ids.
    shown = first or vocabulary.load().decode(cache.targets[unknown[0]])
    _warn_once(
      f"{cache.task} {cache.split}: {len(unknown)} of {len(cache)} targets "
      f"have characters that the vocabulary lacks, such as {shown[:40]!r}. "
      "The model can neither learn nor write them: use other answers (for "
      "classes, set label_words), or a vocabulary that has them."
    )


@functools.cache
def _warn_once(text: str) -> None:
  logger.warning("%s", text)


def _load_task(
  task: spec.TaskSpec,
  split: str,
  lengths: Mapping[str, int | None],
  cache_dir: str | os.PathLike[str],
  data_dir: str | os.PathLike[str] | None,
) -> TokenCache:
  if split not in task.splits:
    raise ValueError(
      f"{task.name!r} has no split {split!r}; it has: {', '.join(task.splits)}."
    )
  files.insist_local(cache_dir, "TOKEN_CACHE_DIR")
  lengths = _check_lengths(lengths)
  vocabulary.insist_distinct(
    *(vocabulary.load(), task.label_words, lengths["targets"]),
    f"{task.name}: the label words",
  )
  name = task.name.replace("_examples", "")
  root = files.below(files.below(cache_dir, name, "A task"), split, "A split")
  files.remove_abandoned(root, *_OLD_LEFTOVERS)
  data_dir = files.path(data_dir or default_data_dir())
  fields = {
    "format": FORMAT,
    "task": task.identity(),
    "split": split,
    "lengths": lengths,
    "vocabulary": vocabulary.load().sha256,
    "rows": _fingerprint(task, split, data_dir, cache_dir),
  }
  if fields["rows"] is None:
    elsewhere = _find_copy(root, fields)
    if elsewhere is not None:
      return _open_only(elsewhere)
    if files.is_url(data_dir):
      raise ValueError(
        f"{data_dir} has no {task.source}, split {task.splits[split]!r}. TFDS "
        "can download only to a folder on this machine: write the data there "
        f"with `prompt-tuning data prepare --tfds_data_dir {data_dir}`, or "
        "copy it."
      )
    _tokenise().fetch(task, data_dir)
    fields["rows"] = _fingerprint(task, split, data_dir, cache_dir)
  path = root / _key(fields)
  if path.exists():
    try:
      return _open(path)
    except DamagedError as error:
      logger.warning("%s Making it again.", error)
      files.remove(path)
  # Checked before minutes of work, for all users that may write to `cache_dir`.
  files.make_shared(cache_dir, name, split)
  files.ensure_writable(root, "TOKEN_CACHE_DIR")
  source = task.source if task.is_from_tfds else ""
  with installed.on_this_machine(data_dir, source) as local:
    rows = _tokenise().tokenise(task, split, lengths, local)
  for feature, count in rows.truncated.items():
    if count:
      logger.warning(
        "%s %s: %d of %d examples have more than %s tokens in %s and were cut.",
        *(task.name, split, count, rows.count, lengths[feature], feature),
      )
  _write(path, fields, rows, cache_dir)
  return _open(path)


def _tokenise() -> types.ModuleType:
  """Import the tokenising module, and thus TensorFlow, only when needed."""
  quiet.import_tensorflow()
  from prompt_tuning.data import tokenise

  return tokenise


class DamagedError(Exception):
  """A cache directory differs from its manifest."""


def default_data_dir() -> str:
  """Return the default of TFDS's data directory."""
  home = os.path.join("~", "tensorflow_datasets")
  return os.path.expanduser(os.environ.get("TFDS_DATA_DIR", home))


def default_cache_dir() -> str:
  """Return the default directory of caches."""
  home = os.path.join("~", ".cache", "prompt_tuning", "tokens")
  return os.path.expanduser(os.environ.get("PROMPT_TUNING_CACHE_DIR", home))


def _check_lengths(lengths: Mapping[str, int | None]) -> dict[str, int | None]:
  if set(lengths) != set(FEATURES):
    raise ValueError(
      f"TASK_FEATURE_LENGTHS names {', '.join(lengths) or 'nothing'}; expected "
      f"{' and '.join(FEATURES)}."
    )
  for feature, length in lengths.items():
    if length is not None and length < 1:
      raise ValueError(
        f"TASK_FEATURE_LENGTHS: {feature} is {length}; expected at least 1, or "
        "None for no limit."
      )
  return {feature: lengths[feature] for feature in FEATURES}


def _fingerprint(
  task: spec.TaskSpec,
  split: str,
  data_dir: pathlib.Path,
  cache_dir: str | os.PathLike[str],
) -> str | None:
  """Hash the rows of the source; None if they are missing.

  Rows in a bucket are read once: their hash is saved in `cache_dir`, under a
  name that changes when the rows are written again.
  """
  if task.source == spec.SEQIO:
    return str(_tokenise().fingerprint(task, split))
  if not task.is_from_tfds:
    return "in the task's content"
  rows = (data_dir, task.source, task.splits[split])
  if not files.is_url(data_dir):
    return installed.fingerprint(*rows)
  state = json.dumps([str(data_dir), *rows[1:], installed.written_state(*rows)])
  name = files.sha256(state.encode())
  note = pathlib.Path(cache_dir, _NOTES, name)
  with contextlib.suppress(OSError):
    noted = files.read_bytes(note, 64).decode("ascii", "replace")
    if _SHA256.fullmatch(noted):
      return noted
  fingerprint = installed.fingerprint(*rows)
  if fingerprint is not None:
    files.make_shared(cache_dir, _NOTES)
    files.write_text(note, fingerprint)
  return fingerprint


def _key(fields: Mapping[str, Any]) -> str:
  text = json.dumps(fields, sort_keys=True)
  return files.sha256(text.encode())[:24]


def _find_copy(
  root: pathlib.Path, fields: Mapping[str, Any]
) -> pathlib.Path | None:
  """Find the cache to use if only caches were copied, not the data."""
  description = {
    name: value for name, value in fields.items() if name != "rows"
  }
  paths = []
  for path in sorted(root.glob("*/manifest.json")):
    try:
      stored_fields = _read_manifest(path.parent)["fields"]
    except DamagedError as error:
      logger.warning("Passing over a cache. %s", error)
      continue
    if {name: stored_fields.get(name) for name in description} == description:
      paths.append(path.parent)
  if len(paths) > 1:
    raise ValueError(
      f"{root} has {len(paths)} caches of different versions of the data, and "
      "without the data we cannot know which one you mean. Give "
      "--tfds_data_dir, or delete the other caches."
    )
  return paths[0] if paths else None


def _write(
  path: pathlib.Path,
  fields: Mapping[str, Any],
  rows: TokenRows,
  cache_dir: str | os.PathLike[str],
) -> None:
  # If another process was first: the same key means the same content.
  with (
    contextlib.suppress(FileExistsError),
    files.creating(path) as temporary,
  ):
    folder = pathlib.Path(temporary)
    folder.mkdir()
    for name, array in rows.arrays.items():
      np.save(folder / f"{name}.values.npy", array.values)
      np.save(folder / f"{name}.offsets.npy", array.offsets)
    manifest = {
      "fields": fields,
      "key": path.name,
      "examples": rows.count,
      "truncated": rows.truncated,
      "files": {p.name: files.file_sha256(p) for p in folder.iterdir()},
    }
    text = json.dumps(manifest, indent=2, sort_keys=True)
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    files.share(folder, cache_dir)


def _open_only(path: pathlib.Path) -> TokenCache:
  """Open a cache that could not be made again."""
  try:
    return _open(path)
  except DamagedError as error:
    raise ValueError(
      f"{error} The data that it was made from is not here, so it cannot be "
      "made again: copy the cache again, or give --tfds_data_dir."
    ) from error


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
  """Read a cache's manifest; it must name every file of the cache."""
  try:
    data = files.read_bytes(path / "manifest.json", _MANIFEST_BYTES)
    manifest: dict[str, Any] = schema.parse(data)
  except (OSError, ValueError) as error:
    _insist_on_damage(error)
    why = f"manifest.json cannot be read: {error!r}"
    raise DamagedError(f"Cache {path}: {why}.") from error
  faults = schema.faults(manifest, _MANIFEST)
  if faults:
    raise DamagedError(f"Cache {path}: manifest.json: {faults[0]}")
  names = {
    f"{name}.{kind}.npy" for name in _ARRAYS for kind in ("values", "offsets")
  }
  if manifest["files"].keys() != names:
    raise DamagedError(
      f"Cache {path}: manifest.json is not the manifest of a cache."
    )
  return manifest


def _open(path: pathlib.Path) -> TokenCache:
  manifest = _read_manifest(path)
  try:
    for name, expected in manifest["files"].items():
      if files.file_sha256(path / name) != expected:
        raise DamagedError(f"Cache {path}: {name} has changed.")
    rows = {name: _open_rows(path, name) for name in _ARRAYS}
  except (OSError, ValueError, KeyError, EOFError) as error:
    _insist_on_damage(error)
    raise DamagedError(f"Cache {path} cannot be read: {error!r}.") from error
  fields = manifest["fields"]
  return TokenCache(
    task=fields["task"]["name"],
    split=fields["split"],
    key=manifest["key"],
    lengths=fields["lengths"],
    truncated=manifest["truncated"],
    **rows,
  )


def _insist_on_damage(error: Exception) -> None:
  """Raise an error again if it does not show that the cache is damaged.

  Examples are another user's permissions, or too many open files: then the
  cache must not be deleted.
  """
  if isinstance(error, OSError) and error.errno not in _DAMAGE:
    raise error


def _open_rows(path: pathlib.Path, name: str) -> Ragged:
  values = np.load(path / f"{name}.values.npy", mmap_mode="r")
  return Ragged(values, np.load(path / f"{name}.offsets.npy"))
