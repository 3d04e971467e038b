"""Export what was tuned, for use elsewhere.

The delta is always written. A NumPy file in the format of T5X's prompt-tuning
and a PEFT adapter are views; they are written if they can hold the same.
"""

import math
import os
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_tuning.checkpoints import delta as deltas
from prompt_tuning.checkpoints import peft, prompts, vocabulary_mark
from prompt_tuning.checkpoints.delta import SavedDelta
from prompt_tuning.checkpoints.vocabulary_mark import VocabularyMark
from prompt_tuning.core import algebra, files, finite
from prompt_tuning.core.adapter import Adapter
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import card, identity, load
from prompt_tuning.jobs.load import Tuned, vectors
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.tuners.method import Method, name_of, noun_of

NPY, PEFT = "npy", "peft"
VIEWS = (NPY, PEFT)


class Exported(NamedTuple):
  """What was written.

  Attributes:
    paths: paths of files and folders.
    notes: notes on what could not be written, and for users of the export.
  """

  paths: tuple[pathlib.Path, ...]
  notes: tuple[str, ...]


class Origin(NamedTuple):
  """The origin of a run, for the description in its export.

  Attributes:
    method: method of the run; None if it is not known.
    task: its task or mixture.
    step: step at which it was saved, as T5X counts.
    backbone: fingerprint of the model in training.
    base_model: name by which transformers loads that model.
    vocabulary: the vocabulary in training.
    scores: scores of its best evaluation, by metric.
    soft_tokens: whether its task's template places the virtual tokens.
    licence: licence of an earlier export, in the hubs' abbreviation.
  """

  method: Method | None = None
  task: str | None = None
  step: int | None = None
  backbone: str | None = None
  base_model: str | None = None
  vocabulary: VocabularyMark | None = None
  scores: Mapping[str, float] = types.MappingProxyType({})
  soft_tokens: bool = False
  licence: str | None = None

  @property
  def noun(self) -> str:
    """The word of reports for what was learned."""
    return noun_of(type(self.method)) if self.method else "delta"

  @property
  def about(self) -> dict[str, Any]:
    """The same as JSON values."""
    about: dict[str, Any] = {
      "task": self.task,
      "step": self.step,
      "backbone": self.backbone,
      "base_model": self.base_model,
      "scores": {
        name: float(value)
        for name, value in self.scores.items()
        if math.isfinite(value)
      }
      or None,
      "soft_tokens": self.soft_tokens or None,
      "licence": self.licence,
    }
    if self.vocabulary is not None:
      about[vocabulary_mark.KEY] = self.vocabulary.described
    if self.method is not None:
      about["method"] = identity.describe_method(self.method)
      about["title"] = name_of(type(self.method))
      about["answers"] = list(self.method.answers) or None
    return {name: value for name, value in about.items() if value is not None}


def export(
  runs: Runs,
  run: int,
  folder: str | os.PathLike[str],
  origin: Origin,
  model: T5Config | None = None,
  views: Sequence[str] = VIEWS,
  licence: str | None = None,
) -> Exported:
  """Export one run.

  Args:
    runs: any runs.
    run: number of the run.
    folder: where to: the folder `delta`; `prompt.npy` (`prompt_decoder.npy` for
      virtual tokens in the decoder), which T5X's prompt-tuning loads; the
      folder `peft`; a card for hubs, README.md. What is there is replaced;
      views of another delta that stood there are removed.
    origin: where the run comes from.
    model: the backbone, for what PEFT records about it.
    views: which of `VIEWS` to write.
    licence: for the card; None for that of an earlier export: the one that it
      comes from, or one of the same delta in this folder.

  Returns:
    What was written: nothing of a run that diverged.

  Raises:
    CheckpointError: the run changes nothing, or there is no place to write to.
  """
  folder = files.path(folder)
  one = runs.one(run)
  (placement,) = one.placements
  unfit = _not_finite(one)
  if unfit:
    return Exported(
      (), (f"not exported, because its training diverged: {unfit}",)
    )
  target = folder / deltas.FOLDER
  before = deltas.digest(target)
  licence = licence or origin.licence or deltas.licence_of(target, one.delta)
  origin = origin._replace(licence=licence)
  deltas.write(target, SavedDelta(one.delta, placement, origin.about))
  paths = [target]
  notes: list[str] = []
  if NPY in views:
    paths += _write_arrays(one, folder, notes)
  if PEFT in views:
    paths += _write_adapter(one, folder, origin, model, notes)
  if origin.soft_tokens and paths[1:]:
    notes.append(card.IN_TEMPLATE)
  if before not in (None, deltas.digest(target)):
    _remove_others(folder, paths)
  if note := card.write(folder, _facts(one, origin)):
    notes.append(note)
  return Exported(tuple(paths), tuple(notes))


def _facts(one: Runs, origin: Origin) -> card.Facts:
  """Collect what the card says."""
  about = origin.about
  leaves = algebra.named_leaves(one.delta).values()
  return card.Facts(
    about.get("title", "A delta"),
    about.get("method", {}),
    origin.task,
    origin.step,
    origin.backbone,
    origin.base_model,
    sum(leaf.size for leaf in leaves),
    origin.scores,
    origin.licence or card.NO_LICENCE,
    origin.soft_tokens,
  )


def _not_finite(one: Runs) -> str:
  """Name a number of a run that is not finite; empty if all are finite."""
  for name, array in algebra.named_leaves(one.delta).items():
    is_floating = jax.numpy.issubdtype(array.dtype, np.floating)
    if is_floating and (unfit := finite.fault(array)):
      return f"{name} has {unfit}"
  return ""


def _remove_others(
  folder: pathlib.Path, written: Sequence[pathlib.Path]
) -> None:
  """Remove views of the previous delta here: they hold other numbers."""
  arrays = [folder / "prompt.npy", folder / "prompt_decoder.npy"]
  stale = [path for path in arrays if prompts.is_npy(str(path))]
  if peft.is_peft(str(folder / PEFT)):
    stale.append(folder / PEFT)
  for path in stale:
    if path not in written:
      files.remove(path, peft.CONFIG)


def clear(folder: pathlib.Path) -> None:
  """Remove an export that lies directly in a folder; nothing else there."""
  _remove_others(folder, ())
  if deltas.is_delta(folder / deltas.FOLDER):
    files.remove(folder / deltas.FOLDER, deltas.MANIFEST)
    card.remove(folder)


def _write_arrays(
  one: Runs, folder: pathlib.Path, notes: list[str]
) -> list[pathlib.Path]:
  """Write the vectors of virtual tokens, if nothing else was learned."""
  stacks = vectors(one, 0)
  if not stacks:
    return []
  if not is_only_virtual(one):
    notes.append("no NumPy file, because more than virtual tokens was learned")
    return []
  (placement,) = one.placements
  if placement.encoder_rows != placement.encoder_prefix:
    notes.append(
      "the virtual tokens do not stand before the input text, where readers "
      "of NumPy files put them"
    )
  paths = []
  for stack, values in stacks.items():
    name = "prompt.npy" if stack == "encoder" else f"prompt_{stack}.npy"
    prompts.write_npy(folder / name, values, overwrite=True)
    paths.append(folder / name)
  return paths


def is_only_virtual(runs: Runs) -> bool:
  """Say whether nothing but virtual tokens was learned."""
  return set(algebra.named_leaves(runs.delta)) == {"virtual"}


def export_all(
  src: str,
  dst: str,
  views: Sequence[str] = VIEWS,
  size: str | None = None,
  licence: str | None = None,
) -> list[str]:
  """Export every run of a folder or bundle.

  Args:
    src: see `load.load`.
    dst: where to; runs that have names get a folder each.
    views: see `export`.
    size: name of the backbone's, where adapters shall say it.
    licence: see `export`.

  Returns:
    Lines that say what was written.

  Raises:
    CheckpointError: nothing that was tuned, or no place to write to.
    ValueError: a tuned model, or names that cannot be those of folders; then
      nothing has been written.
  """
  model = t5_config.get(size) if size else None
  tuned = load.load(src, model.shape if model else None)
  if tuned.weights:
    raise ValueError(
      f"{src} holds a tuned model: there is no delta to export. Convert its "
      "checkpoint instead."
    )
  names = tuned.names
  folders = [files.below(dst, name, f"A run of {src}") for name in names]
  if len(set(folders)) < len(folders):
    raise ValueError(
      f"{src} has several runs with the same name: {', '.join(names)}. Export "
      "their bundles one by one."
    )
  lines = []
  for run, folder in enumerate(folders):
    origin = _origin(tuned, run)
    done = export(tuned.runs, run, folder, origin, model, views, licence)
    lines += [f"{path}: written" for path in done.paths]
    lines += [f"note, {folder}: {note}" for note in done.notes]
  return lines


def _origin(tuned: Tuned, run: int) -> Origin:
  return Origin(
    tuned.methods[run] if tuned.methods else None,
    tuned.tasks[run] if tuned.tasks else None,
    tuned.steps[run],
    tuned.fingerprint,
    tuned.base_model,
    tuned.vocabulary,
    tuned.scores[run],
    tuned.runs.is_in_template(run),
    tuned.licence,
  )


def _write_adapter(
  one: Runs,
  folder: pathlib.Path,
  origin: Origin,
  model: T5Config | None,
  notes: list[str],
) -> list[pathlib.Path]:
  """Write a PEFT adapter, if PEFT can express the method."""
  adapter: Adapter | str = "its method is not known"
  if origin.method is not None:
    adapter = origin.method.to_peft(one.delta)
  if isinstance(adapter, str):
    notes.append(f"no adapter: {adapter}")
    return []
  peft.write_adapter(
    folder / PEFT,
    adapter,
    model=model,
    base_model=origin.base_model,
    overwrite=True,
  )
  return [folder / PEFT]
