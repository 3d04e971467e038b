"""Conversion of checked files to TFDS directories, with TFDS's builders."""

import contextlib
import dataclasses
import gzip
import io
import json
import os
import pathlib
import shutil
import tempfile
import types
from collections.abc import Iterable, Iterator, Set
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from tqdm import auto as bars

from prompt_tuning.core.files import (
  file_sha256,
  is_url,
  make_folder,
  remove_abandoned,
  replacing,
)
from prompt_tuning.data import installed
from prompt_tuning.data.catalog import relation, text_classification
from prompt_tuning.data.prepare import layouts
from prompt_tuning.data.prepare.sources import COMPLETE, File, Source

with tfds.core.registered.skip_registration():

  class _TextClassification(tfds.core.GeneratorBasedBuilder):
    """A dataset that TFDS has no builder for."""

    VERSION = tfds.core.Version("1.0.0")
    name = ""
    dataset = ""

    def _info(self) -> Any:
      names = text_classification.CLASS_NAMES[self.dataset]
      texts = text_classification.TEXT_FEATURES[self.dataset]
      features = {name: tfds.features.Text() for name in texts}
      features["label"] = tfds.features.ClassLabel(names=list(names))
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager: Any) -> Any:
      raise NotImplementedError  # set by `_write`

    def _generate_examples(self) -> Any:
      raise NotImplementedError

  class _Relation(tfds.core.GeneratorBasedBuilder):
    """Relations, which TFDS has no builder for."""

    VERSION = tfds.core.Version("1.0.0")
    name = ""

    def _info(self) -> Any:
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(self._features())
      )

    def _features(self) -> dict[str, Any]:
      texts = relation.text_features(self.name)
      names = list(relation.CLASS_NAMES[self.name])
      features = {name: tfds.features.Text() for name in texts}
      features["label"] = tfds.features.ClassLabel(names=names)
      if relation.is_dialogue(self.name):
        for name in relation.LISTS:
          features[name] = tfds.features.Sequence(tfds.features.Text())
        for name in relation.NUMBERS:
          features[name] = tfds.features.Scalar(np.int64)
      return features

    def _split_generators(self, dl_manager: Any) -> Any:
      raise NotImplementedError  # set by `_write`

    def _generate_examples(self) -> Any:
      raise NotImplementedError


_Row = TypeVar("_Row")
_OWN_TEXTS = {
  source.partition(":")[0]: dataset
  for dataset, source in text_classification.SOURCES.items()
  if dataset not in text_classification.OF_TFDS
}
_OWN_BUILDERS = {
  **{
    name: type(f"_{name}", (_TextClassification,), {"name": name, "dataset": d})
    for name, d in _OWN_TEXTS.items()
  },
  **{
    name: type(f"_{name}", (_Relation,), {"name": name})
    for name in relation.SOURCES
  },
}


@dataclasses.dataclass(frozen=True)
class SoundFile:
  """A checked file.

  Attributes:
    origin: the file.
    plain: the same file, uncompressed.
    keys: keys of its TFDS examples.
    sha256: hash of the file.
  """

  origin: File
  plain: pathlib.Path
  keys: Set[int | str]
  sha256: str

  @property
  def rows(self) -> int:
    """Number of TFDS examples."""
    return len(self.keys)


@contextlib.contextmanager
def staging(data_dir: pathlib.Path) -> Iterator[pathlib.Path]:
  """Provide a temporary directory next to the final ones."""
  make_folder(data_dir)
  remove_abandoned(data_dir, ".prepare-*")
  beside = None if is_url(data_dir) else data_dir
  path = pathlib.Path(tempfile.mkdtemp(prefix=".prepare-", dir=beside))
  try:
    yield path
  finally:
    shutil.rmtree(path)


def make_builder(source: Source, data_dir: pathlib.Path) -> layouts.Builder:
  """Make the TFDS builder of a dataset's newest version."""
  builder_class = _OWN_BUILDERS.get(source.name)
  if builder_class:
    return builder_class(data_dir=os.fspath(data_dir))
  name = f"{source.name}:{source.versions[0]}"
  return tfds.builder(name, data_dir=os.fspath(data_dir))


def check(
  source: Source,
  splits: dict[str, list[File]],
  builder: layouts.Builder,
  stage: pathlib.Path,
) -> dict[str, list[SoundFile]]:
  """Read and check every file of a dataset.

  Args:
    source: the dataset.
    splits: its files.
    builder: builder of the dataset, which defines its features and labels.
    stage: directory for unpacking compressed files.

  Returns:
    The files with their row counts.

  Raises:
    ValueError: a bad row, or an id that occurs twice in a file, with file, line
      and what was expected.
  """
  sound_files: dict[str, list[SoundFile]] = {}
  for split, files in splits.items():
    for file in files:
      plain = _plain(file.path, stage)
      place_of_key: dict[Any, str] = {}
      rows = file.layout.check(plain, split, builder)
      for example in _counting(rows, f"{source.name}: reading {split}"):
        if example.key in place_of_key:
          raise ValueError(
            f"{example.place}: id {example.key!r} is already in "
            f"{place_of_key[example.key]}; expected a different id for each "
            "row."
          )
        place_of_key[example.key] = example.place
      if not place_of_key:
        raise ValueError(f"{file.path}: no rows; expected at least one.")
      sound_files.setdefault(split, []).append(
        SoundFile(file, plain, place_of_key.keys(), file_sha256(file.path))
      )
  return sound_files


def write(
  source: Source,
  splits: dict[str, list[SoundFile]],
  builder: layouts.Builder,
) -> list[pathlib.Path]:
  """Write every version of a dataset below the builder's directory.

  Args:
    source: the dataset.
    splits: its checked files.
    builder: builder whose data directory is a staging directory.

  Returns:
    The version directories.
  """
  # A builder's own part would be to find files on the network.
  builder._make_download_manager = lambda **_: types.SimpleNamespace(
    downloaded_size=0
  )
  builder._split_generators = lambda dl_manager: {
    split: _counting(
      _examples(files, split, builder), f"{source.name}: writing {split}"
    )
    for split, files in splits.items()
  }
  config = tfds.download.DownloadConfig(try_download_gcs=False)
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(download_config=config)
  newest = pathlib.Path(builder.data_dir)
  record = describe(source, splits)
  text = json.dumps(record, indent=2, sort_keys=True)
  (newest / installed.RECORD).write_text(text, encoding="utf-8")
  older = [add_version(newest, version) for version in source.versions[1:]]
  return [newest, *older]


def _counting(rows: Iterator[_Row], what: str) -> Iterable[_Row]:
  """Show the number of rows so far on a terminal."""
  counted: Iterable[_Row] = bars.tqdm(
    rows, what, unit=" rows", leave=False, disable=None
  )
  return counted


def _plain(path: pathlib.Path, stage: pathlib.Path) -> pathlib.Path:
  if path.suffix != ".gz":
    return path
  plain = pathlib.Path(tempfile.mkdtemp(dir=stage)) / path.stem
  try:
    with gzip.open(path) as packed, plain.open("wb") as unpacked:
      shutil.copyfileobj(packed, unpacked)
  except (OSError, EOFError) as error:
    raise ValueError(f"{path}: not a complete gzip file: {error}.") from error
  return plain


def _examples(
  files: list[SoundFile], split: str, builder: layouts.Builder
) -> Iterator[tuple[Any, dict[str, Any]]]:
  # Every part of a split may count from 0; a key must be unique in a split.
  distinct = set().union(*(file.keys for file in files))
  is_clear = len(distinct) == sum(file.rows for file in files)
  for file in files:
    examples = file.origin.layout.examples(file.plain, split, builder)
    for key, example in examples:
      yield (key if is_clear else f"{file.origin.path.name}:{key}"), example


def describe(
  source: Source, splits: dict[str, list[SoundFile]]
) -> dict[str, Any]:
  """Describe a dataset's origin, for a file next to it.

  Args:
    source: the dataset.
    splits: its checked files.

  Returns:
    JSON values: `files` with names, rows and hashes, `rows` per split,
    `official_rows`, and the `partial` splits.
  """
  return {
    "files": {
      split: [
        {
          "name": file.origin.path.name,
          "rows": file.rows,
          "sha256": file.sha256,
        }
        for file in files
      ]
      for split, files in splits.items()
    },
    "rows": {s: sum(file.rows for file in f) for s, f in splits.items()},
    "official_rows": dict(source.official),
    "partial": sorted(
      split
      for split, files in splits.items()
      if any(file.origin.extent != COMPLETE for file in files)
      or sum(file.rows for file in files) != source.official.get(split)
    ),
  }


def add_version(newest: pathlib.Path, version: str) -> pathlib.Path:
  """Make an older version, which TFDS still reads but no longer writes.

  The records are the same (hard links); only the version number differs.

  Args:
    newest: directory of the version that TFDS wrote.
    version: number of the older version.

  Returns:
    Its directory, which appears complete or not at all.
  """
  older = newest.parent / version
  with replacing(older) as temporary:
    shutil.copytree(newest, temporary, copy_function=os.link)
    info = pathlib.Path(temporary, "dataset_info.json")
    content = json.loads(info.read_text(encoding="utf-8"))
    content["version"] = version
    info.unlink()  # a link, too
    info.write_text(json.dumps(content, indent=2), encoding="utf-8")
  return older
