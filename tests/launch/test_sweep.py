"""`prompt-tuning sweep`: cells, banks, kills, failures, reports."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from prompt_tuning.checkpoints import bundle, json_files
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import sole_writer
from prompt_tuning.jobs import (
  sweep,
  sweep_banks,
  sweep_cell,
  sweep_job,
  sweep_report,
  train,
  train_job,
)
from prompt_tuning.launch import flags, main
from prompt_tuning.launch import sweep as command
from prompt_tuning.machine import processes
from prompt_tuning.train import logs, row_groups
from prompt_tuning.train.classes import Classes
from prompt_tuning.train.objectives import CrossEntropy
from tests.failing_files import Disk, Killed
from tests.jobs.short_run import without_pictures

AXES = ("--axis=PROMPT_LENGTH=100, 3", "--axis=SEEDS=(0, 1)")
OF_THE_PROCESS = ("train/timing", "train/memory")
NAMES = [f"PROMPT_LENGTH={p},SEEDS={s}" for p in (100, 3) for s in (0, 1)]


def job_of(argv):
  own, rest = command.split(argv)
  return command.configure(flags.parse("sweep", rest, ""), own.axis)


def failing(capsys, *argv):
  assert main.main(["sweep", *argv]) == 2
  return capsys.readouterr().err


@pytest.fixture(scope="module")
def swept(tmp_path_factory, train_flags):
  """A sweep over two lengths and two seeds, in one bank."""
  folder = tmp_path_factory.mktemp("swept") / "sweep"
  kept = {}
  with pytest.MonkeyPatch.context() as patch, without_pictures():
    original = train.train

    def kept_train(job, *rest, **settings):
      outcome = original(job, *rest, **settings)
      copy = folder.parent / "bank"
      shutil.copytree(job.output.model_dir, copy)
      kept[job.output.model_dir] = outcome, copy
      return outcome

    patch.setattr(train, "train", kept_train)
    assert main.main(["sweep", *train_flags(folder), *AXES]) == 0
  return folder, kept


def content(folder):
  """Read every file, but for writers' own."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and not path.name.startswith("writer")
  }


def test_all_cells_share_one_bank(swept):
  folder, kept = swept
  assert sorted(p.name for p in (folder / "cells").iterdir()) == sorted(NAMES)
  assert len(kept) == 1
  assert not list((folder / "banks").iterdir())


def test_a_cell_is_the_folder_that_train_would_have_made(
  swept, train_flags, tmp_path, tolerance
):
  """Of another length than the longest, whose rows it had."""
  cell = swept[0] / "cells" / NAMES[2]
  more = ("--gin.PROMPT_LENGTH=3", "--gin.SEEDS=0")
  with without_pictures():
    assert main.main(["train", *train_flags(tmp_path / "run", *more)]) == 0
  alone = tmp_path / "run"
  assert content(cell).keys() - content(alone).keys() == {"cell.json"}
  step, ours = bundle.read_latest(cell / "bundles")
  last, theirs = bundle.read_latest(alone / "bundles")
  assert step == last == 4
  assert ours.manifest["run"] == theirs.manifest["run"]
  assert ours.manifest["data"] == theirs.manifest["data"]
  for mine, others in (
    (ours.trainable, theirs.trainable),
    (ours.resume, theirs.resume),
  ):
    assert mine.keys() == others.keys()
    for name, array in mine.items():
      np.testing.assert_allclose(array, others[name], **tolerance["same"])
  for line, other in zip(*map(logs.read, (cell, alone)), strict=True):
    assert line.keys() == other.keys()
    tags = [tag for tag in line if not tag.startswith(OF_THE_PROCESS)]
    np.testing.assert_allclose(
      [line[tag] for tag in tags],
      [other[tag] for tag in tags],
      **tolerance["order"],
    )
  # It goes on as the run that it would have been: there is nothing to do.
  resumed = train_flags(cell, *more)
  with without_pictures():
    assert main.main(["train", *resumed]) == 0
  assert bundle.read_latest(cell / "bundles")[0] == 4


def test_a_killed_sweep_ends_as_an_undisturbed_one(
  swept, train_flags, tmp_path
):
  """Kills while cells are written; those in training are tested elsewhere."""
  folder, kept = swept
  ((path, (outcome, copy)),) = kept.items()
  expected = {
    name: data
    for name, data in content(folder).items()
    if not name.startswith("report")
  }

  def again(job, *_, **__):
    there = pathlib.Path(job.output.model_dir)
    if not (there / "bundles").is_dir():
      shutil.copytree(copy, there, dirs_exist_ok=True)
    return outcome

  job = job_of([*train_flags(folder), *AXES])
  with pytest.MonkeyPatch.context() as patch, without_pictures():
    patch.setattr(os, "fsync", lambda descriptor: None)
    patch.setattr(train, "train", again)
    away = tmp_path / "away"
    folder.rename(away)
    try:
      disk = None
      for part in (0.1, 0.35, 0.6, 0.85, 0.97):
        with pytest.MonkeyPatch.context() as inner:
          operations = len(disk.calls) if disk else 500

          def fails(number, *_, at=int(part * operations)):
            return Killed() if number == at else None

          disk = Disk(inner, fails)
          with contextlib.suppress(Killed):
            sweep.sweep(job)
      sweep.sweep(job)
      found = content(folder)
    finally:
      shutil.rmtree(folder)
      away.rename(folder)
  assert found.keys() == expected.keys()
  assert [n for n in found if found[n] != expected[n]] == []
  assert path not in map(str, folder.rglob("*"))


def test_what_is_done_is_not_done_again(swept, train_flags, monkeypatch):
  folder, _ = swept
  monkeypatch.setattr(train, "train", None)
  job = job_of([*train_flags(folder), *AXES])
  before = content(folder)
  sweep.sweep(job)
  assert content(folder) == before
  more = job_of([*train_flags(folder), AXES[0], "--axis=SEEDS=0, 1, 2"])
  planned = sweep.plan(more)
  (bank,) = planned.banks
  assert [c.name for c in bank.cells] == [
    "PROMPT_LENGTH=100,SEEDS=2",
    "PROMPT_LENGTH=3,SEEDS=2",
  ]
  assert sorted(planned.done) == sorted(NAMES)


def test_the_report_can_be_made_again(swept, train_flags, capsys):
  folder, _ = swept
  argv = ["sweep", *train_flags(folder), *AXES, "--report"]
  assert main.main(argv) == 0
  said = capsys.readouterr().out
  report = folder / "report"
  table = (report / "table.md").read_text()
  assert "| PROMPT_LENGTH | score | runs |" in table
  assert table.count("±") == 2
  assert "results.csv" in said
  data = json.loads((report / "results.json").read_text())
  points, mean_over = sweep_report.from_json(data)
  assert mean_over == ["SEEDS"]
  assert [point.cell for point in points] == NAMES
  assert {point.parameters for point in points} == {100 * 4, 3 * 4}
  assert sweep_report.as_csv(points) == (report / "results.csv").read_text()
  grouped = sweep_report.groups(points, mean_over)
  assert sweep_report.markdown(grouped) in table
  pictures = [path.name for path in report.glob("*.png")]
  assert pictures == ["score_over_PROMPT_LENGTH.png"]


def test_an_interrupted_report_is_made_again(swept, train_flags):
  folder, _ = swept
  job = job_of([*train_flags(folder), *AXES])
  with without_pictures():
    sweep_report.write(job)
    expected = content(folder)
    for moment in (1, 4, 8):
      with pytest.MonkeyPatch.context() as patch:

        def fails(number, *_, at=moment):
          return Killed() if number == at else None

        Disk(patch, fails)
        with pytest.raises(Killed):
          sweep_report.write(job)
      sweep_report.write(job)
      assert content(folder) == expected


def test_another_sweep_is_refused(swept, train_flags, capsys):
  folder, _ = swept
  error = failing(capsys, *train_flags(folder), "--axis=BATCH_SIZE=4")
  assert "holds another sweep, over PROMPT_LENGTH, SEEDS" in error
  report = (*train_flags(folder), "--axis=SEEDS=0, 1", "--report")
  assert "this one is over SEEDS. Choose another" in failing(capsys, *report)
  slower = train_flags(folder, "--gin.LEARNING_RATE=0.1")
  for more in ((), ("--report",)):
    error = failing(capsys, *slower, *AXES, *more)
    assert "runs[0].learning_rate: the bundle has 0.3, this run 0.1" in error
  longer = train_flags(folder, "--gin.TRAIN_STEPS_RELATIVE=5")
  error = failing(capsys, *longer, *AXES)
  assert "steps: the bundle has 4, this run 5" in error


def test_cells_of_nobody_knows_what_are_refused(train_flags, tmp_path, capsys):
  cell = tmp_path / "cells" / "SEEDS=0"
  cell.mkdir(parents=True)
  (cell / sweep_cell.FILE).write_text("{}")
  for more in ((), ("--dry_run",), ("--report",)):
    error = failing(capsys, *train_flags(tmp_path), "--axis=SEEDS=0,1", *more)
    assert "has cells that are done, but no sweep.json" in error


def test_a_cell_in_the_place_of_another_is_refused(
  swept, train_flags, tmp_path, capsys
):
  folder = tmp_path / "sweep"
  shutil.copytree(swept[0], folder)
  cells = [folder / "cells" / name / sweep_cell.FILE for name in NAMES[:2]]
  shutil.copy(*cells)
  error = failing(capsys, *train_flags(folder), *AXES, "--report")
  assert f"is of cell {NAMES[0]}; expected {NAMES[1]}. Put the right" in error
  cells[1].write_text("{")
  error = failing(capsys, *train_flags(folder), *AXES, "--report")
  assert "Remove the cell's folder; the sweep then trains it again." in error


def test_a_failing_cell_leaves_the_others(
  train_flags, tmp_path, monkeypatch, capsys
):
  """A bank that cannot begin is tried cell by cell."""
  trained, now = [], [0.0]

  def some_train(job, *_, **__):
    runs = job.experiment.runs
    if any(run.seed == 1 for run in runs):
      now[0] += 1_000
      raise OSError("no such row")
    now[0] += 50
    trained.append([run.seed for run in runs])
    return _Ended()

  def written(cell, outcome, runs):
    del outcome, runs
    folder = pathlib.Path(cell.job.output.model_dir)
    folder.mkdir(parents=True)
    (folder / sweep_cell.FILE).write_text("{}")

  monkeypatch.setattr(train, "train", some_train)
  monkeypatch.setattr(sweep_cell, "write", written)
  clock = types.SimpleNamespace(perf_counter=lambda: now[0])
  monkeypatch.setattr(sweep, "time", clock)
  argv = [*train_flags(tmp_path / "sweep"), "--axis=SEEDS=0,1,2"]
  assert main.main(["sweep", *argv]) == 2
  said, error = capsys.readouterr()
  assert trained == [[0], [2]]
  # What failed, took its time, but says nothing of the others'.
  assert [line for line in said.splitlines() if " done" in line] == [
    "0 of 3 cells are done. Next: SEEDS=0, SEEDS=1 and 1 more, side by side",
    "0 of 3 cells are done. Next: SEEDS=0",
    "1 of 3 cells are done, about 100 seconds left. Next: SEEDS=1",
    "1 of 3 cells are done, about 50 seconds left. Next: SEEDS=2",
    "2 of 3 cells are done.",
  ]
  assert "1 of 3 cells failed; the others are done" in error
  assert "SEEDS=1: no such row" in error
  job = job_of(argv)
  assert sweep.failures(job) == {"SEEDS=1": "no such row"}
  assert [c.name for b in sweep.plan(job).banks for c in b.cells] == ["SEEDS=1"]


def test_a_cell_whose_loss_is_not_finite_has_failed(
  swept, train_flags, tmp_path, monkeypatch, capsys
):
  """As alone, whatever its parameters are; the rest of its bank is done."""
  _, kept = swept
  ((outcome, bank),) = kept.values()
  lost = outcome._replace(
    result=outcome.result._replace(diverged=[None, None, 2, None])
  )

  def again(job, *_, **__):
    shutil.copytree(bank, job.output.model_dir, dirs_exist_ok=True)
    output = dataclasses.replace(outcome.output, model_dir=job.output.model_dir)
    return lost._replace(output=output)

  monkeypatch.setattr(train, "train", again)
  argv = [*train_flags(tmp_path), *AXES]
  with without_pictures():
    error = failing(capsys, *argv)
  assert "1 of 4 cells failed" in error
  assert f"{NAMES[2]}: The loss is not finite after 2 steps. Lower" in error
  cells = sorted(path.name for path in (tmp_path / "cells").iterdir())
  assert cells == sorted({*NAMES} - {NAMES[2]})
  assert main.main(["sweep", *argv, "--report"]) == 0
  assert f"{NAMES[2]}: The loss is not" in capsys.readouterr().out


def test_an_error_of_one_process_ends_it(train_flags, tmp_path, monkeypatch):
  """Others wait for it: going on with other cells would hang all of them."""

  def fails(*_, **__):
    raise OSError("no such row")

  monkeypatch.setattr(train, "train", fails)
  monkeypatch.setattr(processes, "all_come", lambda what: False)
  job = job_of([*train_flags(tmp_path / "sweep"), "--axis=SEEDS=0,1"])
  with pytest.raises(OSError, match="no such row"):
    sweep.sweep(job)
  assert not sweep.failures(job)


# Trainings that only pretend, so that two processes are cheap.
_PRETENDS = """
import json, pathlib, sys
from prompt_tuning.jobs import sweep_cell, train
from prompt_tuning.launch import main

class Ended:
  model = None
  def insist_on_an_end(self):
    pass

def pretend(job, *_, **__):
  if any(run.seed == 1 for run in job.experiment.runs):
    raise OSError("no such row")
  return Ended()

def write(cell, outcome, runs):
  folder = pathlib.Path(cell.job.output.model_dir)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / sweep_cell.FILE).write_text("{}")

train.train, sweep_cell.write = pretend, write
sys.exit(main.main(["sweep", *json.loads(sys.argv[1])]))
"""


def in_two_processes(argv):
  """Run a sweep as one training of two processes; return their errors."""
  with socket.create_server(("", 0)) as server:
    port = server.getsockname()[1]
  joined = (f"--coordinator_address=localhost:{port}", "--process_count=2")
  both = [
    subprocess.Popen(
      [
        *(sys.executable, "-c", _PRETENDS),
        json.dumps([*argv, *joined, f"--process_index={index}"]),
      ],
      stderr=subprocess.PIPE,
      text=True,
      env=os.environ | {"XLA_FLAGS": ""},
    )
    for index in (0, 1)
  ]
  errors = [process.communicate(timeout=300)[1] for process in both]
  assert [process.returncode for process in both] == [2, 2], errors
  return errors


@pytest.mark.slow
def test_a_failing_cell_of_two_processes_leaves_the_others(
  train_flags, tmp_path
):
  """All come to the same failure, and go on with the next cell."""
  folder = tmp_path / "sweep"
  argv = [
    *train_flags(folder, "--gin_file=meshes/data.gin"),
    "--axis=SEEDS=0,1,2",
  ]
  for error in in_two_processes(argv):
    assert "1 of 3 cells failed; the others are done" in error
    assert error.count("SEEDS=1: no such row") == 1
  job = job_of(argv)
  assert sweep.failures(job) == {"SEEDS=1": "no such row"}
  assert sorted(sweep.plan(job).done) == ["SEEDS=0", "SEEDS=2"]


@pytest.mark.slow
def test_what_two_processes_cannot_do_is_said_by_both(train_flags, tmp_path):
  """One alone would end the other while it waits, with a stack trace."""
  missing = tmp_path / "missing" / "checkpoint_1"
  more = ("--gin_file=meshes/data.gin", "--axis=SEEDS=0,1")
  argv = train_flags(tmp_path / "sweep", *more)
  argv.append(f"--gin.INITIAL_CHECKPOINT_PATH='{missing}'")
  for error in in_two_processes(argv):
    assert f"{missing}: expected a checkpoint" in error
  assert not (tmp_path / "sweep" / sweep.FILE).exists()


def test_one_division_at_a_time(train_flags, tmp_path, capsys):
  """Two thirds and a half would train some cells twice."""
  argv = [*train_flags(tmp_path), "--axis=SEEDS=0,1"]
  name = "writer_of_1_of_3.json"
  (tmp_path / name).write_text("{}")  # of one that is dead
  is_held, is_said = threading.Event(), threading.Event()

  def hold():
    with sole_writer.hold(tmp_path, "MODEL_DIR", name):
      is_held.set()
      is_said.wait(60)

  other = threading.Thread(target=hold)
  other.start()
  try:
    assert is_held.wait(60)
    error = failing(capsys, *argv, "--shard=0/2")
  finally:
    is_said.set()
    other.join()
  assert f"MODEL_DIR {tmp_path} is in use" in error
  assert "into 3 parts, but this one into 2" in error
  assert "give --shard=i/3" in error
  assert not (tmp_path / "cells").exists()


class _Ended:
  """Stands for the outcome of a training."""

  model = None

  def insist_on_an_end(self):
    """It has ended."""


def test_dry_run_lists_cells_and_costs(train_flags, tmp_path, capsys):
  more = ("--gin.TRAIN_STEPS_RELATIVE=4", "--gin.INITIAL_CHECKPOINT_PATH=''")
  argv = [*train_flags(tmp_path / "sweep", *more), *AXES, "--dry_run"]
  assert main.main(["sweep", *argv]) == 0
  said = capsys.readouterr().out
  assert said.startswith(
    "Cells to train: 4, in banks: 1. Cells that are done: 0"
  )
  assert "4 runs x 4 rows x 4 steps" in said
  assert f"{NAMES[0]}  400 parameters" in said
  assert f"{NAMES[3]}  12 parameters" in said
  assert "at least these chip-hours: v4 " in said
  assert not (tmp_path / "sweep").exists()


def test_shards_divide_the_cells(train_flags, tmp_path):
  argv = [*train_flags(tmp_path / "sweep"), AXES[0], "--axis=SEEDS=0,1,2"]
  job = job_of(argv)
  shares = [sweep.plan(job, (i, 4)).banks for i in range(4)]
  names = [[c.name for bank in banks for c in bank.cells] for banks in shares]
  dealt = [name for of_shard in names for name in of_shard]
  assert sorted(dealt) == sorted(cell.name for cell in job.cells)
  assert {len(n) for n in names} == {1, 2}


def test_a_bank_that_was_begun_stays_together(train_flags, tmp_path):
  argv = [*train_flags(tmp_path), "--axis=SEEDS=0,1,2"]
  job = job_of(argv)
  began = sweep_banks.together(job.cells[1:], str(tmp_path))
  folder = pathlib.Path(began.job.output.model_dir)
  folder.mkdir(parents=True)
  names = [cell.name for cell in began.cells]
  (folder / sweep.MEMBERS).write_text(json.dumps({"cells": names}))
  banks = sweep.plan(job).banks
  assert [bank.name for bank in banks] == [
    began.name,
    sweep_banks.name_of(["SEEDS=0"]),
  ]


@pytest.mark.parametrize(
  ("axis", "banks"),
  [
    ("LEARNING_RATE=0.1,0.3", 1),
    ("@init=prompts/uniform_paper.gin,prompts/from_sampled_vocab.gin", 1),
    ("PROMPT_LENGTH=1,127,128", 1),
    ("BATCH_SIZE=2,4", 2),
    ("PATIENCE=3,5", 2),
    ("DROPOUT_RATE=0.0,0.1", 2),
    ("tuners.Prompt.decoder_length=0,2", 2),
  ],
)
def test_what_shares_a_bank(train_flags, tmp_path, axis, banks):
  job = job_of([*train_flags(tmp_path), f"--axis={axis}"])
  shared = sweep_banks.share(job.cells, job.model_dir)
  assert len(shared) == banks
  assert sum(len(bank.cells) for bank in shared) == len(job.cells)


def test_runs_with_patience_end_by_themselves(train_flags, tmp_path):
  argv = [*train_flags(tmp_path, "--gin.PATIENCE=2"), "--axis=SEEDS=0,1"]
  assert len(sweep_banks.share(job_of(argv).cells, str(tmp_path))) == 2


def test_runs_with_stages_train_alone(train_flags, tmp_path):
  """A bank's runs have rates of their own, which a stage's would not change."""
  stage = train_job.TrainingStage("first", 2, ((".*", "freeze"),))
  cells = [
    cell._replace(
      job=dataclasses.replace(
        cell.job,
        experiment=dataclasses.replace(cell.job.experiment, stages=(stage,)),
      )
    )
    for cell in job_of([*train_flags(tmp_path), "--axis=SEEDS=0,1"]).cells
  ]
  assert len(sweep_banks.share(cells, str(tmp_path))) == 2


@pytest.mark.parametrize(
  ("objective", "tasks", "banks"),
  [
    (Classes(), ("sst2", "rte"), 2),
    (Classes(), ("sst2", "sst2"), 1),
    (Classes(label_words=("a", "b")), ("rte", "qnli"), 1),
    (CrossEntropy(), ("sst2", "rte"), 1),
  ],
)
def test_what_an_objective_takes_from_tasks_is_shared(
  train_flags, tmp_path, objective, tasks, banks
):
  """Cells whose label words differ have banks of their own."""
  cells = []
  job = job_of([*train_flags(tmp_path), "--axis=SEEDS=0,1"])
  for cell, task in zip(job.cells, tasks, strict=True):
    old = cell.job.experiment
    name = f"taskless_glue_{task}_v200"
    dataset = dataclasses.replace(old.dataset, mixture_or_task_name=name)
    new = dataclasses.replace(old, objective=objective, dataset=dataset)
    cells.append(
      cell._replace(job=dataclasses.replace(cell.job, experiment=new))
    )
  assert len(sweep_banks.share(cells, str(tmp_path))) == banks


def test_banks_that_are_being_deleted_are_none(
  train_flags, tmp_path, monkeypatch
):
  """Half deleted by a killed process, or just gone: another shard's doing."""
  job = job_of([*train_flags(tmp_path), "--axis=SEEDS=0,1"])
  cells = {cell.name: cell for cell in job.cells}
  folder = tmp_path / sweep.BANKS / sweep_banks.name_of(list(cells))
  folder.mkdir(parents=True)
  (folder / sweep.MEMBERS).write_text(json.dumps({"cells": list(cells)}))
  assert list(sweep._begun(job, cells)) == [list(cells)]
  half = folder.rename(f"{folder}.old.tmp-0123456789abcdef")
  assert not list(sweep._begun(job, cells))
  for path in (half / sweep.MEMBERS, half):
    os.utime(path, (0, 0))
  sweep._clear(job)
  assert not half.exists()

  folder.mkdir()
  (folder / sweep.MEMBERS).write_text("{")
  with pytest.raises(CheckpointError):
    list(sweep._begun(job, cells))
  read = json_files.read

  def late(path, expected):
    shutil.rmtree(folder)
    return read(path, expected)

  monkeypatch.setattr(json_files, "read", late)
  assert not list(sweep._begun(job, cells))


def test_a_model_is_reused_with_its_vocabulary_only(train_flags, tmp_path):
  job = job_of([*train_flags(tmp_path), "--axis=SEEDS=0"]).cells[0].job
  dataset = dataclasses.replace(
    job.experiment.dataset, vocabulary_file="another.model"
  )
  other = dataclasses.replace(
    job, experiment=dataclasses.replace(job.experiment, dataset=dataset)
  )
  assert sweep._model_of(job) == sweep._model_of(job)
  assert sweep._model_of(job) != sweep._model_of(other)


def test_a_limit_of_runs(train_flags, tmp_path):
  more = ("--gin.sweep.most_runs=2",)
  job = job_of([*train_flags(tmp_path, *more), "--axis=SEEDS=0,1,2"])
  shared = sweep_banks.share(job.cells, str(tmp_path), job.most_runs)
  assert [len(bank.cells) for bank in shared] == [2, 1]


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    ((), "A sweep needs axes"),
    (("--axis=PROMPT_LENGHT=1",), "Did you mean 'PROMPT_LENGTH'?"),
    (("--axis=PROMPT_LENGHT=1",), "axis PROMPT_LENGHT=1: no parsed file"),
    (("--axis=REMAT=full,none",), "such as --axis REMAT=\"'full','none'\"."),
    (("--axis=SEEDS=",), "The axis SEEDS has no values"),
    (("--gin.sweep.axes={'SEEDS': ()}",), "The axis SEEDS has no values"),
    (("--gin.sweep.axes=3",), "sweep.axes is 3; expected a mapping"),
    (("--axis=SEEDS=1,1",), "their cells would share a folder"),
    (("--axis=MODEL_DIR='a','b'",), "MODEL_DIR cannot be an axis"),
    (("--axis=sweep.most_runs=1,2",), "sweep.most_runs cannot be an axis"),
    (("--axis=TASK_FEATURE_LENGTHS=[",), "--axis TASK_FEATURE_LENGTHS"),
    (("--axis=@init=prompts/none.gin",), "No gin file 'prompts/none.gin'"),
    (("--axis=SEEDS=0", "--gin.sweep.most_runs=0"), "most_runs must be"),
    (
      ("--axis=SEEDS=0", "--gin.sweep.mean_over=('X',)"),
      "which is not an axis",
    ),
    (("--axis=SEEDS=0", "--gin.sweep.mean_over='X'"), "names X, which is no"),
    (("--axis=SEEDS=0", "--report"), "there is nothing to report"),
    (("--axis=SEEDS=0", "--shard=2/2"), "expected i/n"),
    (("--axis=SEEDS=0", "--topology=v5e:9"), "along 2 dimensions"),
    (("--axis=PROMPT_LENGTH=0,1",), "The prompt has no vectors"),
    (("--axis=SEEDS=0", "--axis=SEEDS=1"), "SEEDS is given twice, as 0 and as"),
    (
      ("--axis=LEARNING_RATE=.3,-1",),
      "Cell LEARNING_RATE=-1: LEARNING_RATE is",
    ),
    (("--axis=LEARNING_RATE='x'",), "expected a finite number above 0"),
    (("--axis=lora.rank=1",), "Did you mean 'tuners.LoRA'?"),
    (("--axis=nobody.rank=1",), "such as compare.NAME."),
  ],
)
def test_what_cannot_be_is_said_first(
  train_flags, tmp_path, capsys, argv, message
):
  error = failing(capsys, *train_flags(tmp_path / "sweep"), *argv)
  assert message in error
  assert not (tmp_path / "sweep").exists()


def test_what_fits_on_no_slice_is_said_first(train_flags, tmp_path, capsys):
  """XXL's weights in float32, on one chip of 16 GiB."""
  more = ("--axis=@size=models/sizes/xxl.gin", "--topology=v5e:1x1")
  error = failing(capsys, *train_flags(tmp_path / "sweep"), *more)
  assert "size=xxl fits on no mesh of v5e:1x1: weights take" in error
  assert error.rstrip().endswith("or a RESTORE_DTYPE with fewer bytes.")
  # Of tuned models, the gradients count too, and both are in float32.
  trained = (
    *("--gin.TUNER=None", "--gin.LEARNING_RATE=0.001"),
    "--gin.PARTITION_RULES=%partition.EVERYTHING",
  )
  error = failing(capsys, *train_flags(tmp_path / "sweep"), *more, *trained)
  assert "v5e:1x1: weights and gradients take" in error
  assert error.rstrip().endswith("Use a larger slice.")


def test_what_devices_cannot_share_is_said_first(train_flags, tmp_path, capsys):
  """A dry run does not ask which devices are here."""
  argv = [*train_flags(tmp_path / "sweep", "--gin_file=meshes/data.gin")]
  argv.append("--axis=BATCH_SIZE=8,3")
  error = failing(capsys, *argv)
  assert (
    "No bank can hold BATCH_SIZE=3: BATCH_SIZE 3 x 1 runs cannot be" in error
  )
  assert not (tmp_path / "sweep" / sweep.FILE).exists()
  assert main.main(["sweep", *argv, "--dry_run"]) == 0


def test_labels_are_names():
  assert sweep_job.label("'skill_first'") == "skill_first"
  assert sweep_job.label("@a/tuners.Uniform()") == "a_tuners.Uniform"
  assert sweep_job.label("prompts/from_file.gin") == "from_file"
  assert sweep_job.label("('a', 'b')") == "a_b"
  assert sweep_job.label("-0.5") == "-0.5"


def test_groups_of_rows():
  groups = row_groups.groups([{}, {"p": 1}, {}, {"p": 1}])
  assert groups == (
    row_groups.Group((0, 2), {}),
    row_groups.Group((1, 3), {"p": 1}),
  )
  shapes = {"p": np.zeros((4, 3)), "b": np.zeros(2)}
  assert row_groups.sizes(shapes, [{}, {"p": 1}]) == (14.0, 5.0)
