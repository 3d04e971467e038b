"""Sweeps: many trainings; cells share banks if they can, or train in turn.

  MODEL_DIR/sweep.json     identifies the sweep: what every cell trains
  MODEL_DIR/banks/<bank>   banks in training, and the names of their cells
  MODEL_DIR/cells/<cell>   finished cells, as `train` would have left them
  MODEL_DIR/failures       reasons why cells failed

A cell is finished when its `cell.json` exists, which is written last. After
that its files never change. A sweep that was killed at any moment continues
with the same banks.
"""

import contextlib
import functools
import json
import logging
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from prompt_tuning.checkpoints import bundle, json_files
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import files, sole_writer
from prompt_tuning.core.schema import ANY, TEXT, Each, one_of
from prompt_tuning.jobs import (
  feed,
  identity,
  model_dir,
  sweep_banks,
  sweep_cell,
  train,
)
from prompt_tuning.jobs.conclusion import Outcome
from prompt_tuning.jobs.sweep_banks import Bank, Size
from prompt_tuning.jobs.sweep_job import BANKS, CELLS, FAILURES, Cell, SweepJob
from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.machine import processes
from prompt_tuning.train.errors import StoppedError

FILE, MEMBERS = "sweep.json", "cells.json"
_FORMAT = "prompt-tuning-sweep"
_SCHEMA = {
  "format": one_of(_FORMAT),
  "axes": [TEXT],
  "cells": Each({"values": Each(TEXT), "trains": Each(ANY)}),
}
# What the description of a cell takes from its model and vocabulary.
_OF_MODEL = {"vocabulary", "start_step", "steps"}
_WRITER = re.compile(r"writer_of_\d+_of_(\d+)\.json")
_MINUTE = 60

logger = logging.getLogger(__name__)


class Plan(NamedTuple):
  """The work of a sweep.

  Attributes:
    banks: the banks to train, first those that were started before.
    sizes: sizes of the banks.
    done: names of finished cells.
  """

  banks: tuple[Bank, ...]
  sizes: tuple[Size, ...]
  done: tuple[str, ...]


def plan(job: SweepJob, shard: tuple[int, int] = (0, 1)) -> Plan:
  """Plan the work of a sweep, and refuse work that cannot be done.

  Args:
    job: the sweep.
    shard: number of the part of its cells, and number of parts.

  Returns:
    The banks of the shard's cells.

  Raises:
    ValueError: MODEL_DIR holds another sweep, or a cell cannot train.
    CheckpointError: MODEL_DIR, or a cell's model, cannot be read.
  """
  if _read(job) is not None:
    _insist_on_same(job)
  share = functools.partial(
    sweep_banks.share, folder=job.model_dir, most_runs=job.most_runs
  )
  ordered = [cell.name for bank in share(job.cells) for cell in bank.cells]
  start, end = (n * len(ordered) // shard[1] for n in (shard[0], shard[0] + 1))
  ours = ordered[start:end]
  cells = {cell.name: cell for cell in job.cells}
  done = [n for n in ours if sweep_cell.is_whole(_folder(job, n))]
  banks, taken = [], set(done)
  for members in _begun(job, cells):
    taken.update(members)
    # If shards share a bank, the shard with its first cell trains it.
    if members[0] in ours and _open(job, members):
      of_bank = [cells[name] for name in members]
      banks.append(sweep_banks.together(of_bank, job.model_dir))
  banks += share([cells[name] for name in ours if name not in taken])
  return Plan(tuple(banks), tuple(map(sweep_banks.size, banks)), tuple(done))


def sweep(
  job: SweepJob,
  data_dir: str | None = None,
  shard: tuple[int, int] = (0, 1),
  *,
  say: Callable[[str], None] = logger.info,
) -> None:
  """Train every cell that is not finished.

  Args:
    job: the sweep.
    data_dir: TFDS's data directory.
    shard: see `plan`.
    say: prints the progress for people.

  Raises:
    StoppedError: something asked it to stop; the same call continues.
    ValueError: the sweep cannot be done; or cells failed, and all others are
      finished.
    CheckpointError: MODEL_DIR cannot be read.
    OSError: MODEL_DIR cannot be written to.
  """
  files.ensure_writable(job.model_dir, "MODEL_DIR")
  with _held(job.model_dir, shard):
    planned = plan(job, shard)
    for bank in planned.banks:
      sweep_banks.insist_on_rows(bank)
    content = _insist_on_same(job)  # if one process refuses, all refuse
    if jax.process_index() == 0:
      _write_sweep(job, content)
      _clear(job)
    _Sweep(job, data_dir, say, planned).run()


class _Sweep:
  """The banks of a sweep, one after the other."""

  def __init__(
    self,
    job: SweepJob,
    data_dir: str | None,
    say: Callable[[str], None],
    planned: Plan,
  ):
    self._job, self._data_dir, self._say = job, data_dir, say
    self._banks = list(planned.banks)
    self._done = len(planned.done)
    self._count = self._done + sum(
      len(_open(job, [cell.name for cell in bank.cells]))
      for bank in self._banks
    )
    self._model: tuple[str, Backbone] | None = None  # the last that was read
    self._failures: dict[str, str] = {}
    self._clock = _Clock.of(planned)

  def run(self) -> None:
    """Train all banks, and report at the end what failed."""
    while self._banks:
      bank = self._banks.pop(0)
      left = self._clock.left([bank, *self._banks])
      self._say(
        f"\n{self._done} of {self._count} cells are done"
        + (f", about {left} left" if left else "")
        + f". Next: {_listed([cell.name for cell in bank.cells])}"
      )
      started = time.perf_counter()
      if self._train(bank):
        self._clock.passed(bank, time.perf_counter() - started)
    self._say(f"\n{self._done} of {self._count} cells are done.")
    if self._failures:
      lines = [f"{name}: {why}" for name, why in self._failures.items()]
      folder = files.path(self._job.model_dir) / FAILURES
      raise ValueError(
        f"{len(lines)} of {self._count} cells failed; the others are done. To "
        f"try them again, run the same command. {folder} has these errors "
        "too:\n  " + "\n  ".join(lines)
      )

  def _train(self, bank: Bank) -> bool:
    """Train one bank, or note why it cannot be.

    Args:
      bank: the bank.

    Returns:
      Whether all of it was trained now: it did not fail, nor go on.
    """
    folder = files.path(bank.job.output.model_dir)
    names = [cell.name for cell in bank.cells]
    is_main = jax.process_index() == 0
    if is_main:
      files.make_folder(folder)
    with model_dir.held(str(folder)):
      if is_main:
        text = json.dumps({"cells": names}, indent=2) + "\n"
        files.write_text(folder / MEMBERS, text)
      goes_on = bool(bundle.steps(folder / bundle.BUNDLES))
      try:
        outcome = train.train(
          bank.job, self._data_dir, self._read(bank.job), say=self._say
        )
      except StoppedError:
        raise
      except Exception as error:  # whatever the error, other cells may work
        _insist_on_all(bank.name, error)
        self._failed(bank, error)
        return False
      outcome.insist_on_an_end()
      self._model = _model_of(bank.job), outcome.model
      written = [
        self._write(cell, outcome, runs)
        for cell, runs in zip(bank.cells, bank.runs, strict=True)
        if not sweep_cell.is_whole(_folder(self._job, cell.name))
      ]
    if is_main and all(written):
      files.remove(folder)
    return not goes_on

  def _read(self, job: TrainJob) -> Backbone | None:
    """Return the model of the last bank, if a job needs the same one."""
    if self._model is None or self._model[0] != _model_of(job):
      return None
    return self._model[1]

  def _write(self, cell: Cell, outcome: Outcome, runs: Sequence[int]) -> bool:
    """Write a cell; return whether that worked."""
    try:
      sweep_cell.write(cell, outcome, runs)
    except Exception as error:
      _insist_on_all(cell.name, error)
      self._note(cell, error)
      return False
    self._done += 1
    if jax.process_index() == 0:
      files.remove(_failure(self._job, cell.name))
    return True

  def _failed(self, bank: Bank, error: Exception) -> None:
    """Note a bank's failure; before its first step, try its cells alone."""
    folder = files.path(bank.job.output.model_dir)
    has_begun = bool(bundle.steps(folder / bundle.BUNDLES))
    if len(bank.cells) == 1 or has_begun:
      for cell in bank.cells:
        self._note(cell, error)
      return
    logger.warning(
      "A bank failed; now each of its cells is tried alone. %s", error
    )
    self._banks = [
      *(
        sweep_banks.together([cell], self._job.model_dir) for cell in bank.cells
      ),
      *self._banks,
    ]
    if jax.process_index() == 0:
      files.remove(folder)

  def _note(self, cell: Cell, error: Exception) -> None:
    """Record why a cell failed."""
    logger.debug("%s", cell.name, exc_info=error)
    why = str(error) or type(error).__name__
    self._failures[cell.name] = why
    logger.warning("%s failed: %s", cell.name, why)
    if jax.process_index() == 0:
      path = _failure(self._job, cell.name)
      files.make_folder(path.parent)
      content = {"cell": cell.name, "kind": type(error).__name__, "error": why}
      files.write_text(path, json.dumps(content, indent=2) + "\n")


class _Clock:
  """Estimates the remaining time from the banks that were trained so far.

  Neither work nor time counts of banks that failed, or of which a part was
  trained before.
  """

  def __init__(self, work: Mapping[str, float]):
    """Start with the work of every cell, in any unit."""
    self._work = work
    self._done, self._spent = 0.0, 0.0

  @classmethod
  def of(cls, planned: Plan) -> "_Clock":
    """Count operations, or cells if operations are not known of all banks."""
    work = {}
    is_known = all(size.flops is not None for size in planned.sizes)
    for bank, size in zip(planned.banks, planned.sizes, strict=True):
      flops = size.flops if is_known else None
      for cell in bank.cells:
        work[cell.name] = 1.0 if flops is None else flops / len(bank.cells)
    return cls(work)

  def passed(self, bank: Bank, seconds: float) -> None:
    """Note that a bank was trained."""
    self._done += self._of([bank])
    self._spent += seconds

  def _of(self, banks: Sequence[Bank]) -> float:
    return sum(self._work[cell.name] for bank in banks for cell in bank.cells)

  def left(self, banks: Sequence[Bank]) -> str:
    """Estimate the time for some banks; empty if it is not known."""
    if not self._done:
      return ""
    seconds = self._spent / self._done * self._of(banks)
    if seconds < 2 * _MINUTE:
      return f"{seconds:.0f} seconds"
    return f"{seconds / _MINUTE:.0f} minutes"


def lines(
  planned: Plan, costs: Callable[[float], Mapping[str, float]]
) -> list[str]:
  """Describe the work for people.

  Args:
    planned: the plan.
    costs: floating-point operations -> {kind of chip: hours that one such chip
      needs at least}.

  Returns:
    Lines of text.
  """
  count = sum(len(bank.cells) for bank in planned.banks)
  text = [
    f"Cells to train: {count}, in banks: {len(planned.banks)}. Cells that are "
    f"done: {len(planned.done)}."
  ]
  total = 0.0
  for bank, size in zip(planned.banks, planned.sizes, strict=True):
    text.append(f"bank {bank.name}: {_size_line(bank, size)}")
    numbers = size.parameters or ()
    for cell, runs in zip(bank.cells, bank.runs, strict=True):
      trained = f"  {numbers[runs[0]]:,} parameters" if numbers else ""
      text.append(f"  {cell.name}{trained}")
    total += size.flops or 0.0
  if total:
    hours = ", ".join(f"{n} {_hours(h)}" for n, h in costs(total).items())
    text.append(
      "With all rows at the longest lengths, the sweep takes at least these "
      f"chip-hours: {hours}."
    )
  if any(size.flops is None for size in planned.sizes):
    text.append(
      "The costs of banks without TRAIN_STEPS_RELATIVE, or without limits in "
      "TASK_FEATURE_LENGTHS, are not known."
    )
  return text


def _size_line(bank: Bank, size: Size) -> str:
  runs = len(bank.job.experiment.runs)
  rows = bank.job.experiment.dataset.batch_size
  line = f"{runs} runs x {rows} rows"
  if size.steps is not None:
    line += f" x {size.steps:,} steps"
  if size.flops is not None:
    line += f", {size.flops / 1e12:,.3g} TFLOP"
  return line


def _hours(hours: float) -> str:
  return f"{hours:.2g}" if hours < 100 else f"{hours:,.0f}"


def failures(job: SweepJob) -> dict[str, str]:
  """Read why cells failed.

  Args:
    job: the sweep.

  Returns:
    Name of a cell -> reason, for cells that are not finished.
  """
  found = {}
  for cell in job.cells:
    path = _failure(job, cell.name)
    if path.is_file() and not sweep_cell.is_whole(_folder(job, cell.name)):
      content = json_files.read(path, "why a cell failed")
      json_files.check(path, content, {"error": TEXT})
      found[cell.name] = content["error"]
  return found


def _folder(job: SweepJob, name: str) -> pathlib.Path:
  return files.below(files.path(job.model_dir) / CELLS, name, "A cell")


def _failure(job: SweepJob, name: str) -> pathlib.Path:
  root = files.path(job.model_dir) / FAILURES
  return files.below(root, f"{name}.json", "A cell")


def _model_of(job: TrainJob) -> str:
  """Name the model that a job reads: equal names, equal weights in memory."""
  experiment = job.experiment
  described = identity.describe(
    {
      "of": job.source,
      "as": experiment.model,
      # A model that is read is compared with the vocabulary; a model that is
      # reused is not.
      "vocabulary": experiment.dataset.vocabulary_file,
    }
  )
  return json.dumps(described, sort_keys=True)


def _listed(names: Sequence[str]) -> str:
  first = ", ".join(names[:2])
  more = len(names) - 2
  return f"{first} and {more} more, side by side" if more > 0 else first


def _insist_on_all(what: str, error: Exception) -> None:
  """Insist that a failure in this process happened in every process of the job.

  If it did, all of them continue with other cells. If only some failed, the
  others wait for them in a step that never finishes. So those that failed end,
  and `machine.watch` ends the others.

  Args:
    what: name of the bank or the cell that failed.
    error: the failure in this process.

  Raises:
    Exception: `error`, if another process did not fail.
  """
  if not processes.all_come(f"failed/{what}"):
    raise error


@contextlib.contextmanager
def _held(folder: str, shard: tuple[int, int]) -> Iterator[None]:
  """Be the only process that does a shard of the sweep in a folder."""
  with contextlib.ExitStack() as stack:
    if jax.process_index() == 0:
      name = f"writer_of_{shard[0]}_of_{shard[1]}.json"
      stack.enter_context(sole_writer.hold(folder, "MODEL_DIR", name))
      _insist_on_parts(folder, shard[1])
    yield


def _insist_on_parts(folder: str, count: int) -> None:
  """Insist that no process divides the sweep into another number of parts."""
  for path in sorted(files.path(folder).iterdir()):
    divided = _WRITER.fullmatch(path.name)
    if divided is None or int(divided[1]) == count:
      continue
    try:
      with sole_writer.hold(folder, "MODEL_DIR", path.name):
        pass  # its writer is dead
    except ValueError as error:
      raise ValueError(
        f"{error} That process divides the sweep into {divided[1]} parts, but "
        f"this one into {count}: both would train the same cells. Wait for "
        f"it, or give --shard=i/{divided[1]}."
      ) from error


def _begun(job: SweepJob, cells: Mapping[str, Cell]) -> Iterator[list[str]]:
  """Yield the cells of every bank that has begun."""
  root = files.path(job.model_dir) / BANKS
  for folder in sorted(root.iterdir()) if root.is_dir() else ():
    path = folder / MEMBERS
    if not path.is_file():  # killed before it was written
      continue
    try:
      content = json_files.read(path, "the cells of a bank")
    except CheckpointError:
      if path.is_file():
        raise
      continue  # another shard has just deleted it
    json_files.check(path, content, {"cells": [TEXT]})
    names = content["cells"]
    is_whole = folder.name == sweep_banks.name_of(names)  # not half deleted
    if is_whole and set(names) <= cells.keys():
      yield names


def _open(job: SweepJob, names: Sequence[str]) -> list[str]:
  """List the cells that are not done."""
  return [n for n in names if not sweep_cell.is_whole(_folder(job, n))]


def _clear(job: SweepJob) -> None:
  """Delete banks whose cells are all done."""
  for members in _begun(job, {cell.name: cell for cell in job.cells}):
    if not _open(job, members):
      name = sweep_banks.name_of(members)
      files.remove(files.path(job.model_dir) / BANKS / name)
  files.remove_abandoned(files.path(job.model_dir) / BANKS)


def insist_on_settings(job: SweepJob) -> None:
  """Insist that what MODEL_DIR holds of a sweep is of this one.

  Args:
    job: the sweep. Neither its model nor its vocabulary is read, so what
      depends on them is not compared.

  Raises:
    ValueError: another sweep, or a cell that trains something else.
    CheckpointError: the sweep in MODEL_DIR cannot be read.
  """
  saved = _read(job)
  if saved is not None:
    _insist_on_cells(job, saved, lambda cell: _settings(cell.job))


def _read(job: SweepJob) -> dict[str, Any] | None:
  """Read what MODEL_DIR holds of a sweep.

  Args:
    job: the sweep.

  Returns:
    The sweep as it was written; None where there is none.

  Raises:
    ValueError: MODEL_DIR holds a sweep over other axes, or cells of which it
      does not say what they were trained on.
    CheckpointError: the sweep in MODEL_DIR cannot be read.
  """
  path = files.path(job.model_dir) / FILE
  if not path.is_file():
    if len(_open(job, [cell.name for cell in job.cells])) < len(job.cells):
      raise ValueError(
        f"{job.model_dir} has cells that are done, but no {FILE} that says "
        "what they were trained on. Put this file back, or choose another "
        "MODEL_DIR."
      )
    return None
  saved = json_files.read(path, "the description of a sweep")
  json_files.check(path, saved, _SCHEMA)
  if saved["axes"] != list(job.axes):
    raise ValueError(
      f"{job.model_dir} holds another sweep, over {', '.join(saved['axes'])}; "
      f"this one is over {', '.join(job.axes)}. Choose another MODEL_DIR."
    )
  return saved


def _insist_on_same(job: SweepJob) -> dict[str, Any]:
  """Compare the sweep with the one in MODEL_DIR.

  Args:
    job: the sweep.

  Returns:
    What MODEL_DIR holds, and this sweep.

  Raises:
    ValueError: another sweep, or a cell that trains something else.
  """
  described, saved = _described(job), _read(job)
  if saved is None:
    return described
  cells = described["cells"]
  _insist_on_cells(job, saved, lambda cell: cells[cell.name]["trains"])
  # Cells with values that are not in the axes any more stay.
  return {**described, "cells": {**saved["cells"], **cells}}


def _insist_on_cells(
  job: SweepJob,
  saved: Mapping[str, Any],
  trains: Callable[[Cell], Mapping[str, Any]],
) -> None:
  """Insist that cells train what a sweep in MODEL_DIR says.

  Args:
    job: the sweep.
    saved: what MODEL_DIR holds.
    trains: describes a cell; what needs its model may be left out.
  """
  for cell in job.cells:
    if cell.name not in saved["cells"]:
      continue
    ours = trains(cell)
    theirs = dict(saved["cells"][cell.name]["trains"])
    for key in _OF_MODEL - ours.keys():
      theirs.pop(key, None)
    ran = bundle.Bundle({"run": theirs}, {})
    ran.insist_run(ours, f"{job.model_dir}, {cell.name},")


def _write_sweep(job: SweepJob, content: Mapping[str, Any]) -> None:
  text = json.dumps(content, indent=1, sort_keys=True) + "\n"
  path = files.path(job.model_dir) / FILE
  if not path.is_file() or path.read_text(encoding="utf-8") != text:
    files.write_text(path, text)


def _described(job: SweepJob) -> dict[str, Any]:
  """Describe what every cell trains, and for how long."""
  cells = {
    cell.name: {"values": dict(cell.values), "trains": _trains(cell.job)}
    for cell in job.cells
  }
  return {"format": _FORMAT, "axes": list(job.axes), "cells": cells}


def _trains(job: TrainJob) -> dict[str, Any]:
  """Describe what a cell trains, and for how long."""
  experiment = job.experiment
  vocabulary = feed.open_vocabulary(
    experiment.dataset, experiment.model.vocab_size
  )
  start = _start(job)
  of_model = {
    "vocabulary": vocabulary.sha256,
    "start_step": start,
    "steps": job.duration.num_steps(start),
  }
  assert of_model.keys() == _OF_MODEL
  return {**_settings(job), **of_model}


def _settings(job: TrainJob) -> dict[str, Any]:
  """Describe what is known of a cell before its model is read."""
  settings = identity.settings(
    job.experiment,
    job.experiment.tuners,
    "",
    0,
    job.evaluations.evaluation,
    job.output.keep_best,
  )
  settings["model"] = job.source.initial_checkpoint_path
  return {k: v for k, v in settings.items() if k not in _OF_MODEL}


def _start(job: TrainJob) -> int:
  """Find the step from which a cell's optimizer continues."""
  source = _opened_once(job.source.initial_checkpoint_path)
  return train.find_start(job.duration, source)


# Many cells start from a few models.
_opened_once = functools.lru_cache(maxsize=64)(train.open_model)
