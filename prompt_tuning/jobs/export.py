"""Writing prompts where others can use them: NumPy files, PEFT adapters."""

import os
import pathlib
from typing import NamedTuple

from prompt_tuning.checkpoints import peft, prompts
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import load
from prompt_tuning.jobs.load import prompt_vectors
from prompt_tuning.models.t5.config import T5Config

NPY, PEFT = "npy", "peft"
FORMATS = (NPY, PEFT)


class Exported(NamedTuple):
  """What was written.

  Attributes:
    paths: of files and folders.
    notes: what could not be written, or what its user must know.
  """

  paths: tuple[pathlib.Path, ...]
  notes: tuple[str, ...]


def export(
  runs: Runs,
  run: int,
  folder: str | os.PathLike[str],
  model: T5Config | None = None,
  formats: tuple[str, ...] = FORMATS,
) -> Exported:
  """Export the prompt of one run.

  Args:
    runs: any runs.
    run: number of the run.
    folder: where files go: `prompt.npy` (`prompt_decoder.npy` for one in the
      decoder), which T5X's prompt tuning loads, and the folder `peft`. What is
      there is replaced.
    model: the backbone, for what PEFT records about it.
    formats: which of `FORMATS` to write.

  Returns:
    What was written.

  Raises:
    CheckpointError: it cannot be written.
  """
  folder = pathlib.Path(folder)
  vectors = prompt_vectors(runs, run)
  placement = runs.placements[run]
  paths: list[pathlib.Path] = []
  notes = []
  if not vectors:
    notes.append("no prompt to export")
  if placement.encoder_suffix:
    notes.append("the prompt stands after the input text")
  for stack, values in vectors.items():
    if NPY in formats:
      name = "prompt.npy" if stack == "encoder" else f"prompt_{stack}.npy"
      prompts.write_npy(folder / name, values, overwrite=True)
      paths.append(folder / name)
  if PEFT in formats and vectors:
    if placement.encoder_suffix or "decoder" in vectors:
      notes.append("PEFT has no prompt there: no adapter")
    else:
      peft.write_peft(
        folder / PEFT, vectors["encoder"], model=model, overwrite=True
      )
      paths.append(folder / PEFT)
  return Exported(tuple(paths), tuple(notes))


def export_all(
  src: str,
  dst: str,
  formats: tuple[str, ...] = FORMATS,
  model: T5Config | None = None,
) -> list[str]:
  """Export every run of a folder or bundle.

  Args:
    src: see `load.load`.
    dst: where to; runs that have names get a folder each.
    formats: see `export`.
    model: the backbone.

  Returns:
    Lines that say what was written.

  Raises:
    CheckpointError: nothing that was tuned, or no place to write to.
    ValueError: a tuned model, or no prompt.
  """
  found = load.load(src)
  if found.weights:
    raise ValueError(
      f"{src} holds a tuned model: there is no prompt to export."
    )
  lines = []
  for run, name in enumerate(found.names):
    folder = os.path.join(dst, name)
    done = export(found.runs, run, folder, model, formats)
    lines += [f"{path}: written" for path in done.paths]
    lines += [f"note, {folder}: {note}" for note in done.notes]
  return lines
