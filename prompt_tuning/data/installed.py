"""The content of a TFDS directory, read without TensorFlow."""

import contextlib
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from prompt_tuning.core import files, schema
from prompt_tuning.core.schema import ANY, TEXT, Each, Kind

# A file next to TFDS's own: the origin of the rows.
RECORD = "prepared.json"
INFO = "dataset_info.json"  # TFDS's own, without which nothing is there
_COUNT = Kind(
  "a number of rows",
  lambda value: type(value) in (int, str) and str(value).isdecimal(),
)
_INFO = {"splits": [{"name": TEXT, "shardLengths": [_COUNT]}]}


def directory(data_dir: str | pathlib.Path, source: str) -> pathlib.Path:
  """Return the directory of one dataset version.

  Args:
    data_dir: TFDS's data directory.
    source: TFDS name with version, such as `super_glue/boolq:1.0.2`.
  """
  name, _, version = source.partition(":")
  return files.path(data_dir) / name / version


@contextlib.contextmanager
def on_this_machine(
  data_dir: str | pathlib.Path, source: str
) -> Iterator[pathlib.Path]:
  """Copy one dataset version to this machine if TFDS needs that to read it.

  Args:
    data_dir: TFDS's data directory, perhaps in a bucket.
    source: TFDS name with version; empty if the rows are not TFDS's.

  Yields:
    A data directory that has it: the same one, or a temporary one.
  """
  if not (files.is_url(data_dir) and source):
    yield pathlib.Path(data_dir)
    return
  folder = directory(data_dir, source)
  with (
    files.as_local(folder) as copy,
    tempfile.TemporaryDirectory() as scratch,
  ):
    place = directory(scratch, source)
    files.make_folder(place.parent)
    place.symlink_to(copy)
    yield pathlib.Path(scratch)


def splits(data_dir: str | pathlib.Path, source: str) -> dict[str, int]:
  """Count the rows of every existing split.

  Args:
    data_dir: TFDS's data directory.
    source: TFDS name with version.

  Returns:
    TFDS split -> rows; empty if the dataset is not there.
  """
  info = directory(data_dir, source) / INFO
  if not info.is_file():
    return {}
  content = schema.read(info, _INFO)
  return {
    split["name"]: sum(map(int, split["shardLengths"]))
    for split in content["splits"]
  }


def record(data_dir: str | pathlib.Path, source: str) -> Mapping[str, Any]:
  """Return the record of `prepare` for a dataset; empty if TFDS made it."""
  path = directory(data_dir, source) / RECORD
  if not path.is_file():
    return {}
  noted: Mapping[str, Any] = schema.read(path, Each(ANY))
  return noted


def fingerprint(
  data_dir: str | pathlib.Path, source: str, split: str
) -> str | None:
  """Hash everything that decides the rows of a split, for a cache key.

  Args:
    data_dir: TFDS's data directory.
    source: TFDS name with version.
    split: TFDS split, also a slice of one (`train[:10%]`).

  Returns:
    A hash of the split's records, its shard lengths and the features, or None
    if the split does not exist.
  """
  name = split.split("[")[0]
  if name not in splits(data_dir, source):
    return None
  root = directory(data_dir, source)
  info = schema.read(root / INFO, _INFO)
  sizes = [split for split in info["splits"] if split["name"] == name]
  digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode())
  digest.update((root / "features.json").read_bytes())
  for path in _shards(root, name):
    digest.update(bytes.fromhex(files.file_sha256(path)))
  return digest.hexdigest()


def written_state(
  data_dir: str | pathlib.Path, source: str, split: str
) -> list[Any]:
  """Describe the files of a split, to see whether they have changed.

  Args:
    data_dir: TFDS's data directory.
    source: see `fingerprint`.
    split: see `fingerprint`.

  Returns:
    JSON values that stay the same only while no file is written.
  """
  root, name = directory(data_dir, source), split.split("[")[0]
  paths = [root / INFO, root / "features.json", *_shards(root, name)]
  return [
    [path.name, *files.written_state(path)] for path in paths if path.is_file()
  ]


def _shards(root: pathlib.Path, name: str) -> list[pathlib.Path]:
  return sorted(root.glob(f"*-{name}.*"))
