"""The best of every run of a training: the bundles that its record names."""

import logging
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from prompt_tuning.checkpoints import bundle, json_files
from prompt_tuning.checkpoints.bundle import Bundle
from prompt_tuning.checkpoints.errors import CheckpointError, Mismatch
from prompt_tuning.core.schema import Fault
from prompt_tuning.jobs import run_schema

logger = logging.getLogger(__name__)

_RUN_FOLDER = re.compile(r"run_(0|[1-9]\d{0,8})")
_HINT = (
  "Put it back, or give the path of what you want: {bundles} for the last "
  f"step of all runs, {bundle.BEST}/run_<number>/step_<step> for the best "
  "step of one run."
)


class Saved(NamedTuple):
  """A bundle and its path.

  Attributes:
    path: its folder.
    bundle: its contents.
  """

  path: pathlib.Path
  bundle: Bundle


def read(folder: pathlib.Path) -> list[Saved]:
  """Read the best bundle of every run, or the last one if it has no scores.

  Args:
    folder: MODEL_DIR of a training.

  Returns:
    One bundle of all runs, or one per run, by number; empty if the folder holds
    no training.

  Raises:
    CheckpointError: a best bundle that the record names is missing or belongs
      to another training; or a bundle is damaged.
  """
  latest = bundle.read_latest(folder / bundle.BUNDLES)
  if latest is None:
    return _without_record(folder)
  step, last = latest
  path = bundle.step_path(folder / bundle.BUNDLES, step)
  described = _checked(path, last)
  records = last.manifest.get("progress", {}).get("best", [])
  if not any(records) or not _keeps_best(folder, described):
    return [Saved(path, last)]
  saved, mismatches = [], []
  for run, record in enumerate(records):
    if record is None:
      saved.append(Saved(path, _one(last, run)))
      continue
    place = bundle.step_path(_run_folder(folder, run), record["step"])
    name = str(place.relative_to(folder))
    if not place.is_dir():
      expected = f"the best of run {run}{_called(described, run)}"
      mismatches.append(Mismatch(name, expected, "nothing"))
      continue
    saved.append(Saved(place, bundle.read(place)))
    mismatches += _strangers(saved[-1], name, described, run)
  if mismatches:
    last_of_all = f"{bundle.BUNDLES}/{path.name}"
    raise CheckpointError(folder, mismatches, _HINT.format(bundles=last_of_all))
  return saved


def run_folders(folder: pathlib.Path) -> dict[int, pathlib.Path]:
  """Find the folders of the runs' best bundles; others are ignored.

  Args:
    folder: MODEL_DIR of a training.

  Returns:
    Number of the run -> folder of its `step_...` bundles, run 0 first.
  """
  runs: dict[int, pathlib.Path] = {}
  for path in (folder / bundle.BEST).glob("*"):
    match = _RUN_FOLDER.fullmatch(path.name)
    if match:
      runs[int(match.group(1))] = path
    else:
      logger.warning("Skipping %s: its name is not run_<number>.", path)
  return dict(sorted(runs.items()))


def _without_record(folder: pathlib.Path) -> list[Saved]:
  """Read best steps that were copied without the bundles of the training."""
  saved: dict[int, Saved] = {}
  for run, path in run_folders(folder).items():
    latest = bundle.read_latest(path)
    if latest is not None:
      saved[run] = Saved(bundle.step_path(path, latest[0]), latest[1])
  if not saved:
    return []
  described = _checked(*next(iter(saved.values())))
  mismatches = []
  for run in range(len(described["runs"])):
    name = str(_run_folder(folder, run).relative_to(folder))
    if run in saved:
      mismatches += _strangers(saved[run], name, described, run)
    else:
      expected = f"the best of run {run}{_called(described, run)}"
      mismatches.append(Mismatch(name, expected, "nothing"))
  if mismatches:
    raise CheckpointError(
      folder, mismatches, _HINT.format(bundles=bundle.BUNDLES)
    )
  return [saved[run] for run in sorted(saved)]


def _checked(path: pathlib.Path, saved: Bundle) -> Mapping[str, Any]:
  """Return a manifest's description of its training, after checking it."""
  faults = run_schema.faults(saved.manifest)
  records = saved.manifest.get("progress", {}).get("best", [])
  if not faults:
    runs = len(saved.manifest["run"]["runs"])
    if records and len(records) != runs:
      expected = f"{runs}, one for each run"
      faults = [Fault("progress.best", expected, str(len(records)))]
  json_files.refuse(path / bundle.MANIFEST, faults)
  described: Mapping[str, Any] = saved.manifest["run"]
  return described


def _keeps_best(folder: pathlib.Path, described: Mapping[str, Any]) -> bool:
  """Say whether a training keeps best steps; old versions did not record it."""
  evaluation = described.get("evaluation")
  if evaluation is not None:
    return bool(evaluation.get("keep_best", True))
  if (folder / bundle.BEST).is_dir():
    return True
  logger.warning(
    "%s has no %s: using the last step of all runs.", folder, bundle.BEST
  )
  return False


def _strangers(
  saved: Saved, name: str, described: Mapping[str, Any], run: int
) -> list[Mismatch]:
  """Say how a bundle differs from what a training wrote under its name."""
  manifest = saved.bundle.manifest
  if manifest.get("run_index") != run:
    found = f"that of run {manifest.get('run_index')}"
    return [Mismatch(name, f"the best of run {run}", found)]
  return [
    Mismatch(f"{name}: {key}", f"{ours}, as the others", f"{theirs}")
    for key, theirs, ours in saved.bundle.differences_to(described)
  ]


def _one(saved: Bundle, run: int) -> Bundle:
  """Take one run out of a bundle of all."""
  return Bundle(
    {**saved.manifest, "run_index": run},
    {path: a[run : run + 1] for path, a in saved.trainable.items()},
    fixed={path: a[run : run + 1] for path, a in saved.fixed.items()},
  )


def _run_folder(folder: pathlib.Path, run: int) -> pathlib.Path:
  return folder / bundle.BEST / f"run_{run}"


def _called(described: Mapping[str, Any], run: int) -> str:
  name = described["runs"][run]["name"]
  return f" ({name})" if name else ""
