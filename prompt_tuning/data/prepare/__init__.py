"""Conversion of official data files to the directories of `tfds.load`.

The same seqio tasks then run without a network. Names, versions, features,
label orders, keys and file formats are TFDS's own, since its builders write
them.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from prompt_tuning.core import files, tree
from prompt_tuning.data import installed, quiet
from prompt_tuning.data.prepare import sources


@dataclasses.dataclass(frozen=True)
class DatasetVersion:
  """One dataset version in the TFDS directory.

  Attributes:
    source: TFDS name with version.
    rows: split -> number of examples.
    official: split -> number of examples of the complete split, if known.
    is_new: False if it already existed, from the same files.
  """

  source: str
  rows: dict[str, int]
  official: dict[str, int]
  is_new: bool


def prepare(
  directories: Iterable[str | pathlib.Path],
  data_dir: str | pathlib.Path,
  only: Sequence[str] = (),
  overwrite: bool = False,
) -> list[DatasetVersion]:
  """Turn official files into TFDS directories.

  Every file of a dataset is read through before anything is written, and each
  version directory appears complete or not at all.

  Args:
    directories: directories to search for official files, see
      `sources.all_sources`.
    data_dir: TFDS's data directory.
    only: dataset names such as `super_glue/boolq` or `glue`; empty: all that
      are found.
    overwrite: replace versions that were made from other files.

  Returns:
    The versions in the directory, in a fixed order.

  Raises:
    ValueError, FileNotFoundError: see `prepare_each`.
  """
  return list(prepare_each(directories, data_dir, only, overwrite))


def prepare_each(
  directories: Iterable[str | pathlib.Path],
  data_dir: str | pathlib.Path,
  only: Sequence[str] = (),
  overwrite: bool = False,
) -> Iterator[DatasetVersion]:
  """Turn official files into TFDS directories, one dataset after the other.

  Args:
    directories: see `prepare`.
    data_dir: see `prepare`.
    only: see `prepare`.
    overwrite: see `prepare`.

  Yields:
    Every version when it is complete.

  Raises:
    FileNotFoundError: a directory does not exist, or holds no known file.
    ValueError: a bad file, with file, line and what was expected; an unknown
      name in `only`; a version that exists already from other files.
  """
  with contextlib.ExitStack() as stack:
    folders = [stack.enter_context(files.as_local(p)) for p in directories]
    yield from _prepare(folders, files.path(data_dir), only, overwrite)


def _prepare(
  folders: Sequence[pathlib.Path],
  data_dir: pathlib.Path,
  only: Sequence[str],
  overwrite: bool,
) -> Iterator[DatasetVersion]:
  """Prepare files in folders of this machine, see `prepare_each`."""
  datasets = sources.discover(folders)
  names = _select([source.name for source, _ in datasets], only)
  for source, splits in datasets:
    if source.name in names:
      yield from _prepare_one(source, splits, data_dir, overwrite)


def _select(names: Sequence[str], only: Sequence[str]) -> set[str]:
  if not only:
    return set(names)
  subset: set[str] = set()
  for name in only:
    matches = {n for n in names if n == name or n.startswith(f"{name}/")}
    if not matches:
      raise ValueError(
        f"No files of a dataset {name!r} found.{tree.nearest(name, names)} "
        f"Found: {', '.join(names)}."
      )
    subset |= matches
  return subset


def _prepare_one(
  source: sources.Source,
  splits: dict[str, list[sources.File]],
  data_dir: pathlib.Path,
  overwrite: bool,
) -> list[DatasetVersion]:
  # TensorFlow is imported only here, when there are files to write.
  quiet.import_tensorflow()
  from prompt_tuning.data.prepare import writing

  with writing.staging(data_dir) as stage:
    builder = writing.make_builder(source, stage)
    sound = writing.check(source, splits, builder, stage)
    origin = writing.describe(source, sound)
    names = [f"{source.name}:{version}" for version in source.versions]
    stale = [
      name
      for name in names
      if installed.record(data_dir, name).get("files") != origin["files"]
    ]
    for name in stale:
      target = installed.directory(data_dir, name)
      if target.exists() and not overwrite:
        raise ValueError(
          f"{target} exists already, made from other files. Use --overwrite to "
          "replace it, or another --tfds_data_dir."
        )
    if stale:
      writing.write(source, sound, builder)
      for name in stale:
        target = installed.directory(data_dir, name)
        files.make_folder(target.parent)
        files.move(installed.directory(stage, name), target, installed.INFO)
  return [
    DatasetVersion(
      name,
      installed.splits(data_dir, name),
      dict(source.official),
      name in stale,
    )
    for name in names
  ]
