"""One run's delta on disk, for use without the tuning method.

A folder:

  delta.json          a description; where virtual tokens stand; the backbone
                      that it belongs to; sha256 of the arrays
  delta.safetensors   {name: array}, see `core.algebra.named_leaves`
  README.md           the same for people

A delta never has the parts that a method needs for training only, such as a
reparameterisation.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from prompt_tuning.checkpoints import json_files, paths, vocabulary_mark
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  Mismatch,
  describe,
  parsing,
  unreadable,
)
from prompt_tuning.core import embedded, files
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.schema import (
  NUMBER,
  TEXT,
  WHOLE,
  Each,
  Maybe,
  one_of,
)

if TYPE_CHECKING:
  from prompt_tuning.core.delta import Delta

FORMAT, VERSION = "prompt-tuning-delta", 1
FOLDER = "delta"  # its name inside a run's export
MANIFEST, _ARRAYS, _CARD = "delta.json", "delta.safetensors", "README.md"
_LIMIT = 16 << 30  # bytes of arrays

_KIND = {"format": one_of(FORMAT), "version": one_of(VERSION)}
_SCHEMA = {
  "sha256": TEXT,
  "placement": Each([WHOLE]),
  "about": {
    "method?": {"class": TEXT},
    "title?": Maybe(TEXT),
    "answers?": [TEXT],
    "task?": Maybe(TEXT),
    "step?": Maybe(WHOLE),
    "backbone?": Maybe(TEXT),
    "base_model?": Maybe(TEXT),
    "vocabulary?": Maybe(vocabulary_mark.SCHEMA),
    "scores?": Each(NUMBER),
    "settings?": Each(TEXT),
    "soft_tokens?": one_of(True),
    "licence?": Maybe(TEXT),
  },
}


@dataclasses.dataclass(frozen=True, eq=False)
class SavedDelta:
  """One run.

  Attributes:
    delta: with a run axis of size 1.
    placement: where its virtual tokens stand.
    about: JSON values: `method` (as bundles describe it), `title`, `answers`
      (texts that learned output rows stand for), `task`, `step`, `backbone`
      (its fingerprint), `base_model` (transformers' name of it), `vocabulary`
      (see `vocabulary_mark`), `scores` (name of a score -> percent), `settings`
      (setting of its training -> text), `soft_tokens` (whether the task's
      template says where virtual tokens stand) and `licence` (as hubs
      abbreviate it); each may be missing.
  """

  delta: "Delta"
  placement: Placement
  about: Mapping[str, Any]


def write(path: str | os.PathLike[str], saved: SavedDelta) -> None:
  """Write the folder of a delta; replaces an old one.

  Args:
    path: the folder.
    saved: the delta, and what is known about it.

  Raises:
    CheckpointError: the delta is empty, or the folder cannot be written.
  """
  arrays = _arrays(saved.delta)
  if not arrays:
    raise unreadable(path, "a delta to write", "one that changes nothing")
  data = safetensors.numpy.save(arrays)
  manifest = {
    "format": FORMAT,
    "version": VERSION,
    "placement": saved.placement.described(),
    "about": dict(saved.about),
    "sha256": files.sha256(data),
  }
  with paths.replacing(path, True, is_delta, MANIFEST) as temporary:
    folder = pathlib.Path(temporary)
    folder.mkdir()
    (folder / _ARRAYS).write_bytes(data)
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    (folder / _CARD).write_text(_card(saved, arrays), encoding="utf-8")


def _arrays(delta: "Delta") -> dict[str, np.ndarray]:
  """Take a delta apart into what is saved."""
  from prompt_tuning.core import algebra  # imports JAX

  return {
    name: np.ascontiguousarray(array)
    for name, array in algebra.named_leaves(delta).items()
  }


def read(path: str | os.PathLike[str]) -> SavedDelta:
  """Read a folder that `write` made.

  Args:
    path: the folder.

  Returns:
    Its contents.

  Raises:
    CheckpointError: no such folder, a later version, or a damaged one.
  """
  from prompt_tuning.core import algebra  # imports JAX

  file = files.path(path) / _ARRAYS
  arrays, placement, about = read_arrays(path)
  with parsing(file, "the arrays of a delta"):
    delta = algebra.from_named_leaves(arrays)
  json_files.refuse(file, algebra.faults(delta, 1))
  return SavedDelta(delta, placement, about)


class SavedArrays(NamedTuple):
  """The parts of a `SavedDelta`.

  Attributes:
    arrays: {name: array} of the delta.
    placement: see `SavedDelta`.
    about: see `SavedDelta`.
  """

  arrays: Mapping[str, np.ndarray]
  placement: Placement
  about: Mapping[str, Any]


def read_arrays(path: str | os.PathLike[str]) -> SavedArrays:
  """Read a folder without a check that its arrays make a delta, see `read`.

  This is enough to show it.
  """
  folder = files.path(path)
  manifest = _manifest(folder)
  try:
    data = files.read_bytes(folder / _ARRAYS, _LIMIT)
  except OSError as error:
    raise unreadable(folder, _ARRAYS, describe(error)) from error
  digest = files.sha256(data)
  if digest != manifest["sha256"]:
    mismatch = Mismatch(_ARRAYS, f"sha256 {manifest['sha256']}", digest)
    raise CheckpointError(folder, [mismatch], "The delta is damaged.")
  rows = {name: tuple(rows) for name, rows in manifest["placement"].items()}
  known = [field.name for field in dataclasses.fields(Placement)]
  unknown = sorted(rows.keys() - set(known))
  if unknown:
    raise unreadable(
      folder / MANIFEST, f"placement: some of {known}", f"{unknown}"
    )
  with parsing(folder / _ARRAYS, "the arrays of a delta"):
    arrays = safetensors.numpy.load(data)
  return SavedArrays(arrays, Placement(**rows), manifest["about"])


def is_delta(path: str | os.PathLike[str]) -> bool:
  """Say whether a folder's `delta.json` calls it a delta."""
  try:
    _manifest(files.path(path))
  except CheckpointError:
    return False
  return True


def digest(path: str | os.PathLike[str]) -> str | None:
  """Return the sha256 of a delta's arrays; None if there is no delta."""
  if not is_delta(path):
    return None
  sha256: str | None = _manifest(files.path(path)).get("sha256")
  return sha256


def licence_of(path: str | os.PathLike[str], delta: "Delta") -> str | None:
  """Return the licence that a folder gives for a delta.

  Args:
    path: the folder, which need not exist.
    delta: the delta; a licence counts only if the folder holds this delta.

  Returns:
    The licence; None if this delta is not there, or has none.
  """
  if digest(path) != files.sha256(safetensors.numpy.save(_arrays(delta))):
    return None
  licence: str | None = _manifest(files.path(path))["about"].get("licence")
  return licence


def _manifest(folder: pathlib.Path) -> dict[str, Any]:
  file = folder / MANIFEST
  manifest: dict[str, Any] = json_files.read(file, "a delta")
  json_files.check(file, manifest, _KIND)
  json_files.check(file, manifest, _SCHEMA)
  return manifest


def card_facts(about: Mapping[str, Any]) -> dict[str, str]:
  """Write scores and settings for people.

  Args:
    about: see `SavedDelta`.

  Returns:
    Name -> text, such as `score, test` -> `98.4`.
  """
  # In JSON's order, so that a continued run writes the same card.
  scores = sorted(about.get("scores", {}).items())
  return {
    **{f"score, {name}": f"{number:.1f}" for name, number in scores},
    **about.get("settings", {}),
  }


def _card(saved: SavedDelta, arrays: Mapping[str, np.ndarray]) -> str:
  """Write a card for people: what this is and how to use it."""
  about = saved.about
  count = sum(array.size for array in arrays.values())
  facts = {
    "method": about.get("title"),
    "task": about.get("task"),
    "step": about.get("step"),
    "backbone": about.get("backbone"),
    "numbers": f"{count:,} in {len(arrays)} arrays",
    **card_facts(about),
  }
  lines = [f"- {name}: {fact}" for name, fact in facts.items() if fact]
  return "\n".join(
    [
      f"# {about.get('title') or 'A delta'}, trained for a frozen T5",
      "",
      *lines,
      "",
      "Use it with the model that it was trained with. Any other model refuses",
      "it, because its fingerprint differs.",
      "",
      "```python",
      "import prompt_tuning as pt",
      "",
      embedded.loading(about.get("backbone")),
      'model = model.with_tuned({"name": "THIS FOLDER"})',
      'model.predict(["..."], "name")',
      "```",
      "",
    ]
  )
