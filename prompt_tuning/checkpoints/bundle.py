"""The trained part of a run on disk: megabytes, for any size of backbone.

A bundle is a folder:

  manifest.json           a description; sha256 of itself and every other file
  trainable.safetensors   {path: array} with a leading run axis
  fixed.safetensors       the same for a method's parameters that do not train;
                          only if there are any
  resume.safetensors      step, optimizer state and keys; only if training may
                          continue from here

A folder is written under a temporary name, flushed and renamed, so a folder
with its final name is whole. In a bucket it exists once its manifest exists.
The same state gives the same bytes: a bundle does not depend on time, host or
path, except for the configuration's text, which has the user's paths. No pickle
is read or written.
"""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import re
import types
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from prompt_tuning.checkpoints import json_files, paths, vocabulary_mark
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  Mismatch,
  describe,
  unreadable,
)
from prompt_tuning.core import files
from prompt_tuning.core.schema import (
  ANY,
  NUMBER,
  TEXT,
  WHOLE,
  Each,
  Maybe,
  one_of,
)

FORMAT = "prompt-tuning-bundle"
VERSION = 1
BUNDLES, BEST = "bundles", "best"  # folders of a training's MODEL_DIR

MANIFEST = "manifest.json"
_TRAINABLE = "trainable.safetensors"
_FIXED = "fixed.safetensors"
_RESUME = "resume.safetensors"
_ARRAYS = (_TRAINABLE, _FIXED, _RESUME)
_STEP_FOLDER = re.compile(r"step_(\d{1,15})")

_BEST = {"step": WHOLE, "score": NUMBER, "metrics": Each(NUMBER)}
_KIND = {"format": one_of(FORMAT), "version": one_of(VERSION)}
# The keys of a manifest that this package reads; for `run` see `jobs.identity`.
_SCHEMA = {
  "files": Each(TEXT),
  "digest": TEXT,
  "run": Each(ANY),
  "step": WHOLE,
  "run_index?": WHOLE,
  "best?": Maybe(_BEST),
  "data?": Each(ANY),
  "base_model?": Maybe(TEXT),
  "vocabulary?": Maybe(vocabulary_mark.SCHEMA),
  "progress?": {
    "best": [Maybe(_BEST)],
    "stale": WHOLE,
    "tokens": [WHOLE],
    "diverged?": [Maybe(WHOLE)],
  },
}

logger = logging.getLogger(__name__)

_NO_NOTES: Mapping[str, str] = types.MappingProxyType({})

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Bundle:
  """The contents of one folder.

  Attributes:
    manifest: JSON values: method, placement, backbone fingerprint, vocabulary,
      gin text, versions, metrics, data-iterator state, ...
    trainable: {path: array}.
    resume: {name: array}; empty if training cannot continue from here.
    fixed: {path: array} of the method's parameters that do not train.
  """

  manifest: Mapping[str, Any]
  trainable: Arrays
  resume: Arrays = dataclasses.field(default_factory=dict)
  fixed: Arrays = dataclasses.field(default_factory=dict)

  @property
  def parameters(self) -> Arrays:
    """All arrays by which the runs differ from the backbone: {path: array}."""
    return {**self.trainable, **self.fixed}

  def insist_run(
    self,
    ours: Mapping[str, Any],
    folder: str | os.PathLike[str],
    notes: Mapping[str, str] = _NO_NOTES,
  ) -> None:
    """Insist that the bundle belongs to the run that continues from it.

    Args:
      ours: the expected value of `run` in the manifest.
      folder: of the run, for the message.
      notes: key of a hash below `run` -> what to say if it differs.

    Raises:
      ValueError: lists everything that differs.
    """
    differing = [
      f"{key}: {notes[key]}"
      if key in notes
      else f"{key}: the bundle has {old}, this run {new}"
      for key, old, new in self.differences_to(ours)
    ]
    if differing:
      raise ValueError(
        f"{folder} holds another run; choose another MODEL_DIR, or restore its "
        "settings:\n  " + "\n  ".join(differing)
      )

  def is_run(self, ours: Mapping[str, Any]) -> bool:
    """Say whether `insist_run` would raise nothing."""
    return not self.differences_to(ours)

  def differences_to(
    self, ours: Mapping[str, Any]
  ) -> list[tuple[str, str, str]]:
    """List the differences of `run`: (key, the bundle's value, ours)."""
    theirs = self.manifest["run"]
    # An older version's bundle may lack keys; that is no difference.
    known = {name: ours.get(name) for name in theirs}
    differing = list(_differences(theirs, known))
    if any("tuners" in key for key, _, _ in differing):
      # The places of a method's virtual tokens follow from the method.
      differing = [d for d in differing if "placements" not in d[0]]
    return differing


def write(path: str | os.PathLike[str], bundle: Bundle) -> None:
  """Write a bundle; replace the old one once the new one is whole.

  Args:
    path: the folder.
    bundle: its contents.

  Raises:
    CheckpointError: the folder cannot be written, for instance because no space
      is left, or something other than a bundle is there. The old contents stay.
  """
  with paths.replacing(path, True, _may_be_replaced, MANIFEST) as temporary:
    folder = pathlib.Path(temporary)
    folder.mkdir()
    arrays = {_TRAINABLE: bundle.trainable}
    if bundle.fixed:
      arrays[_FIXED] = bundle.fixed
    if bundle.resume:
      arrays[_RESUME] = bundle.resume
    digests = {name: _save(folder / name, a) for name, a in arrays.items()}
    manifest = dict(bundle.manifest)
    manifest |= {"format": FORMAT, "version": VERSION, "files": digests}
    manifest["digest"] = _manifest_digest(manifest)
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_bytes(text.encode())


def read(path: str | os.PathLike[str]) -> Bundle:
  """Read a bundle and check it against its own digests.

  Args:
    path: the folder.

  Returns:
    Its contents.

  Raises:
    CheckpointError: no bundle, a newer version, or a damaged or missing file.
  """
  folder = files.path(path)
  manifest = _read_manifest(folder)
  try:
    with files.as_local(folder) as local:
      return _read(folder, local, manifest)
  except FileNotFoundError as error:  # it is just being deleted
    raise unreadable(folder, "a bundle", describe(error)) from error


def _read(
  folder: pathlib.Path, local: pathlib.Path, manifest: dict[str, Any]
) -> Bundle:
  """Read the arrays of a bundle from a file on this machine."""
  digests = manifest["files"]
  hashes = {name: _digest(local / name) for name in digests}
  damaged = [
    Mismatch(name, f"sha256 {digests[name]}", str(hashes[name]))
    for name in digests
    if digests[name] != hashes[name]
  ]
  if damaged:
    raise CheckpointError(folder, damaged, "The bundle is damaged.")
  arrays = {name: _load(local / name) for name in digests}
  if _TRAINABLE not in arrays:
    raise unreadable(folder, _TRAINABLE, f"only {sorted(arrays)}")
  return Bundle(
    manifest,
    arrays[_TRAINABLE],
    arrays.get(_RESUME, {}),
    arrays.get(_FIXED, {}),
  )


def looks_like_one(path: str | os.PathLike[str]) -> bool:
  """Say whether a folder has a bundle's files, whole or damaged."""
  folder = files.path(path)
  return (folder / MANIFEST).is_file() and (folder / _TRAINABLE).is_file()


def _may_be_replaced(path: str) -> bool:
  """Say whether a bundle may replace a folder, such as a damaged bundle."""
  names = set(files.names(path)) if files.is_dir(path) else set()
  known = {MANIFEST, *_ARRAYS}
  return bool(names & {MANIFEST, _TRAINABLE}) and names <= known


def step_path(folder: str | os.PathLike[str], step: int) -> pathlib.Path:
  """Name the bundle of one step below a folder of bundles."""
  return files.path(folder) / f"step_{step:08d}"


def steps(folder: str | os.PathLike[str]) -> list[int]:
  """List the steps of a folder's bundles, ascending."""
  return [
    step
    for step in _steps_begun(folder)
    if files.is_committed(step_path(folder, step), MANIFEST)
  ]


def _steps_begun(folder: str | os.PathLike[str]) -> list[int]:
  """List the steps of `steps`, and in a bucket those of incomplete bundles."""
  root = files.path(folder)
  if not root.is_dir():
    return []
  matches = [_STEP_FOLDER.fullmatch(entry.name) for entry in root.iterdir()]
  return sorted(int(match.group(1)) for match in matches if match)


def read_latest(folder: str | os.PathLike[str]) -> tuple[int, Bundle] | None:
  """Read the newest bundle that is whole.

  Args:
    folder: of `step_...` bundles.

  Returns:
    (step, bundle), or None if there is none. A damaged newer bundle is skipped
    with a warning.

  Raises:
    CheckpointError: there are bundles, but every one is damaged.
  """
  problem = None
  for step in reversed(steps(folder)):
    try:
      return step, read(step_path(folder, step))
    except CheckpointError as error:
      problem = error
      logger.warning("Skipping a damaged bundle. %s", error)
  if problem is not None:
    raise problem
  return None


def latest_manifest(folder: str | os.PathLike[str]) -> Mapping[str, Any] | None:
  """Read the newest manifest, without its arrays.

  Args:
    folder: of `step_...` bundles.

  Returns:
    The manifest; None if none can be read. The bundle's arrays may be damaged,
    which `read_latest` would find.
  """
  for step in reversed(steps(folder)):
    with contextlib.suppress(CheckpointError):
      return _read_manifest(step_path(folder, step))
  return None


def manifests(folder: str | os.PathLike[str]) -> list[Mapping[str, Any]]:
  """Read the manifests that can be read, oldest first, without arrays.

  Args:
    folder: of `step_...` bundles.
  """
  readable: list[Mapping[str, Any]] = []
  for step in steps(folder):
    with contextlib.suppress(CheckpointError):
      readable.append(_read_manifest(step_path(folder, step)))
  return readable


def keep_only(folder: str | os.PathLike[str], spared: Collection[int]) -> None:
  """Delete all bundles but some, and files of interrupted writes.

  Args:
    folder: of `step_...` bundles.
    spared: the steps whose bundles stay.
  """
  root = files.path(folder)
  for step in _steps_begun(root):
    if step not in spared:
      files.remove(step_path(root, step), MANIFEST)
  files.remove_leftovers(root)


def to_host(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Copy arrays to host memory, whole, on every host.

  Args:
    arrays: {name: array}; split ones are gathered, on all hosts together.

  Returns:
    {name: array}.
  """
  return {name: _whole(array) for name, array in arrays.items()}


def _differences(
  theirs: Any, ours: Any, key: str = ""
) -> Iterator[tuple[str, str, str]]:
  """List where JSON values differ: (key, theirs, ours), as deep as it goes."""
  if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
    for name in sorted(theirs.keys() | ours.keys()):
      below = f"{key}.{name}" if key else name
      old, new = (part.get(name, _NOTHING) for part in (theirs, ours))
      yield from _differences(old, new, below)
  elif isinstance(theirs, list) and isinstance(ours, list):
    if len(theirs) != len(ours):
      yield f"number of {key}", f"{len(theirs)}", f"{len(ours)}"
    for number, (old, new) in enumerate(zip(theirs, ours, strict=False)):
      yield from _differences(old, new, f"{key}[{number}]")
  elif theirs != ours:
    yield key, f"{theirs!r:.200}", f"{ours!r:.200}"


class _Nothing:
  """Stands for an absent setting."""

  def __repr__(self) -> str:
    return "nothing"


_NOTHING = _Nothing()


def _whole(array: Any) -> np.ndarray:
  import jax  # here, since a look at a bundle needs none

  if not isinstance(array, jax.Array):
    return np.asarray(array)
  if array.is_fully_replicated:
    return np.asarray(array.addressable_data(0))
  if array.is_fully_addressable:
    return np.asarray(array)
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def _save(path: pathlib.Path, arrays: Arrays) -> str:
  contiguous = {
    name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()
  }
  data = safetensors.numpy.save(contiguous)
  path.write_bytes(data)
  return files.sha256(data)


def _load(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load_file(str(path))
  except (OSError, ValueError, safetensors.SafetensorError) as error:
    raise unreadable(path, "a safetensors file", describe(error)) from error


def _read_manifest(folder: pathlib.Path) -> dict[str, Any]:
  file = folder / MANIFEST
  manifest: dict[str, Any] = json_files.read(file, "a bundle")
  json_files.check(file, manifest, _KIND)
  if manifest.get("digest") != _manifest_digest(manifest):
    raise unreadable(file, "the digest it names", "another one")
  json_files.check(file, manifest, _SCHEMA)
  names = [name for name in manifest["files"] if name not in _ARRAYS]
  if names:
    raise unreadable(file, "known files", str(sorted(names)))
  return manifest


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
  rest = {name: value for name, value in manifest.items() if name != "digest"}
  return files.sha256(json.dumps(rest, sort_keys=True).encode())


def _digest(path: pathlib.Path) -> str | None:
  try:
    with files.open_file(path) as file:
      return files.open_file_sha256(file)
  except OSError:
    return None
