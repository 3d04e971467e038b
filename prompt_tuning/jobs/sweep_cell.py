"""Write the folder of a cell from the bank in which its runs trained.

The folder has all that `train` would have written for the cell alone, with
bundles from which it can resume. `cell.json`, which marks it as complete, is
written last.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_tuning.checkpoints import bundle, json_files
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import axes, files, tree
from prompt_tuning.core.schema import ANY, NUMBER, TEXT, WHOLE, Each, Maybe
from prompt_tuning.core.types import Params
from prompt_tuning.infer import reports
from prompt_tuning.jobs import conclusion, identity, setup, train
from prompt_tuning.jobs.conclusion import Outcome
from prompt_tuning.jobs.run_scores import RunEvaluator
from prompt_tuning.jobs.setup import Setup
from prompt_tuning.jobs.sweep_job import Cell
from prompt_tuning.jobs.train_job import Experiment
from prompt_tuning.train import logs, loop, row_groups
from prompt_tuning.train import state as train_state
from prompt_tuning.train.errors import DivergedError
from prompt_tuning.train.state import TrainState
from prompt_tuning.tuners.bank import Bank

FILE = "cell.json"
TENSORBOARD = "tensorboard"
_SCORE, _MODEL = "selection/score", "model"

_SCHEMA = {
  "cell": TEXT,
  "values": Each(TEXT),
  "ending": TEXT,
  "parameters": WHOLE,
  "runs": [
    {
      "name?": TEXT,
      "task": TEXT,
      "seed": WHOLE,
      "learning_rate": NUMBER,
      "step": Maybe(WHOLE),
      "score": Maybe(NUMBER),
      "metrics": Each(ANY),
    }
  ],
}


def is_whole(folder: str | os.PathLike[str]) -> bool:
  """Say whether a cell's folder is complete."""
  return (files.path(folder) / FILE).is_file()


def read(folder: str | os.PathLike[str]) -> dict[str, Any]:
  """Read the results of a cell.

  Args:
    folder: of the cell.

  Returns:
    JSON values: its axes' values, and of every run step, score and metrics.

  Raises:
    CheckpointError: it is not there, or damaged.
  """
  path = files.path(folder) / FILE
  try:
    content: dict[str, Any] = json_files.read(path, "a cell of a sweep")
    json_files.check(path, content, _SCHEMA)
  except CheckpointError as error:
    remedy = "Remove the cell's folder; the sweep then trains it again."
    raise CheckpointError(error.path, error.mismatches, remedy) from error
  return content


def write(cell: Cell, outcome: Outcome, runs: Sequence[int]) -> None:
  """Write a cell's folder.

  Args:
    cell: whose.
    outcome: of the training of its bank, which has ended.
    runs: numbers that the cell's runs have in the bank.

  Raises:
    DivergedError: the cell alone would have diverged, see `loop.train`.
    CheckpointError: a bundle cannot be read or written.
    OSError: another file cannot.
  """
  diverged = [outcome.result.diverged[run] for run in runs]
  lost = [step for step in diverged if step is not None]
  if len(lost) == len(runs):
    raise DivergedError(
      f"The loss is not finite after {max(lost):,} steps. Lower the learning "
      "rate."
    )
  alone = _alone(cell, outcome, runs)
  if jax.process_index() == 0:
    _write_run(cell, outcome, alone, runs)
  conclusion.finish(alone)
  if jax.process_index() == 0:
    content = json.dumps(_content(cell, alone), indent=2) + "\n"
    files.write_text(files.path(alone.output.model_dir) / FILE, content)


def _alone(cell: Cell, outcome: Outcome, runs: Sequence[int]) -> Outcome:
  """Make the outcome of a training of this cell alone."""
  job, model = cell.job, outcome.model
  experiment = _suited(cell, model)
  result, program = outcome.result, outcome.setup.program
  group = row_groups.Group(tuple(runs), _rows(outcome, runs[0]))
  fixed, shared = _fixed(outcome), outcome.setup.frozen.get(_MODEL)
  frozen = dict(group.take(fixed))
  if shared is not None:
    frozen[_MODEL] = shared
  built = _describe(experiment, outcome, job.source.mesh.rules)
  taken = TrainState(
    step=result.state.step,
    trainable=group.take(result.state.trainable),
    opt_state=program.optimizer.take(result.state.opt_state, runs),
    dropout_keys=result.state.dropout_keys[np.asarray(runs)],
  )
  # It must be the state from which a training of this cell alone continues.
  state = train_state.from_arrays(
    built.state,
    bundle.to_host(tree.flatten(taken.trainable)),
    bundle.to_host(train_state.resume_arrays(taken)),
  )
  built = built._replace(frozen=frozen, state=state)
  share = len(runs) / len(outcome.runs)
  encoder, decoder = (round(count * share) for count in result.tokens)
  return outcome._replace(
    result=result._replace(
      state=state,
      best=[result.best[run] for run in runs],
      diverged=[result.diverged[run] for run in runs],
      tokens=(encoder, decoder),
    ),
    runs=experiment.runs,
    output=job.output,
    setup=built,
    run_evaluator=_run_evaluator(cell, outcome, built),
    checksum=None if fixed else outcome.checksum,
  )


def _rows(outcome: Outcome, run: int) -> row_groups.Rows:
  """Say which rows of parameters belong to a run."""
  if not outcome.setup.tuners:
    return {}
  rows = outcome.setup.tuners[run].rows
  return {f"tuner/{path}": count for path, count in rows.items()}


def _fixed(outcome: Outcome) -> Params:
  """Take the frozen arrays that are not part of the model."""
  frozen = outcome.setup.frozen.items()
  return {name: part for name, part in frozen if name != _MODEL}


def _suited(cell: Cell, model: Backbone) -> Experiment:
  return dataclasses.replace(cell.job.experiment, model=model.config)


def _describe(
  experiment: Experiment, outcome: Outcome, rules: axes.AxisRules
) -> Setup:
  """Describe the state a training of this cell alone starts from."""

  def described(params: Params) -> Any:
    return jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
      params,
    )

  model = outcome.model
  methods = setup.initialise(
    experiment, model, outcome.vocabulary, outcome.mesh
  )
  if methods is not None:
    methods = Bank(described(methods.params), methods.axes)
  return setup.build(
    experiment,
    described(model.params),
    methods,
    outcome.start_step,
    outcome.mesh,
    rules,
  )


def _run_evaluator(
  cell: Cell, outcome: Outcome, built: Setup
) -> RunEvaluator | None:
  if outcome.run_evaluator is None or cell.job.evaluations.evaluation is None:
    return None
  runs = cell.job.experiment.runs
  tasks = {run.task for run in runs}
  return RunEvaluator(
    cell.job.evaluations.evaluation,
    runs,
    built,
    outcome.model,
    outcome.vocabulary,
    {
      task: s for task, s in outcome.run_evaluator.sets.items() if task in tasks
    },
    outcome.mesh,
  )


def _write_run(
  cell: Cell, outcome: Outcome, alone: Outcome, runs: Sequence[int]
) -> None:
  """Write the files that a training writes before its end."""
  bank = files.path(outcome.output.model_dir)
  folder = files.path(alone.output.model_dir)
  files.write_texts(folder, cell.configuration)
  manifest = {
    **train.about(cell.configuration, alone.model, alone.vocabulary),
    "run": identity.identity(
      _suited(cell, alone.model),
      alone.setup.tuners,
      alone.model,
      alone.vocabulary.sha256,
      alone.start_step,
      cell.job.evaluations.evaluation,
      alone.output.keep_best,
    ),
  }
  fixed = bundle.to_host(tree.flatten(_fixed(alone)))
  entries = _entries(bank, runs)
  _write_last(folder, bank, alone, runs, manifest, fixed, entries)
  if alone.run_evaluator is not None and alone.output.keep_best:
    _write_best(folder, outcome, alone, runs, manifest)
  lines = "".join(f"{json.dumps(entry)}\n" for entry in entries)
  files.write_text(folder / logs.FILE, lines)
  for number, (run, own) in enumerate(zip(runs, alone.runs, strict=True)):
    _copy(
      bank / TENSORBOARD / f"run_{run}", folder / TENSORBOARD / f"run_{number}"
    )
    answers = files.below(
      bank / reports.FOLDER, outcome.runs[run].name, "A run"
    )
    _copy(answers, files.below(folder / reports.FOLDER, own.name, "A run"))


def _entries(bank: pathlib.Path, runs: Sequence[int]) -> list[dict[str, Any]]:
  """Take the lines of some runs from a bank's log."""
  numbers = {run: number for number, run in enumerate(runs)}
  return [
    {**entry, "run": numbers[entry["run"]]}
    for entry in logs.read(bank)
    if entry["run"] in numbers
  ]


def _write_last(
  folder: pathlib.Path,
  bank: pathlib.Path,
  alone: Outcome,
  runs: Sequence[int],
  manifest: Mapping[str, Any],
  fixed: bundle.Arrays,
  entries: Sequence[Mapping[str, Any]],
) -> None:
  """Write the bundle of the last step."""
  latest = bundle.read_latest(bank / loop.BUNDLES)
  assert latest is not None, "a training that has ended has one"
  step, saved = latest
  result = alone.result
  positions = saved.manifest["data"]
  if len(saved.manifest["run"]["runs"]) > len(runs):
    own = [positions["runs"][run] for run in runs]
    positions = own[0] if len(own) == 1 else {"runs": own}
  state_arrays = bundle.to_host(train_state.resume_arrays(result.state))
  rest = {
    name: array[np.asarray(runs)] if array.ndim else array
    for name, array in saved.resume.items()
    if name.startswith("window")
  }
  contents = bundle.Bundle(
    manifest={
      **manifest,
      "step": step,
      "data": positions,
      "progress": {
        "best": list(result.best),
        "stale": _stale(alone, entries),
        "tokens": list(result.tokens),
        "diverged": list(result.diverged),
      },
    },
    trainable=bundle.to_host(tree.flatten(result.state.trainable)),
    resume={**state_arrays, **rest},
    fixed=fixed,
  )
  files.make_folder(folder / loop.BUNDLES)
  bundle.write(bundle.step_path(folder / loop.BUNDLES, step), contents)


def _stale(alone: Outcome, entries: Sequence[Mapping[str, Any]]) -> int:
  """Count the evaluations since any run of the cell improved."""
  steps = [r["step"] for r in alone.result.best if r is not None]
  last = alone.start_step + max(steps, default=-1)
  return len({e["step"] for e in entries if _SCORE in e and e["step"] > last})


def _write_best(
  folder: pathlib.Path,
  outcome: Outcome,
  alone: Outcome,
  runs: Sequence[int],
  manifest: Mapping[str, Any],
) -> None:
  """Write the best of every run, see `loop`."""
  best = files.path(outcome.output.model_dir) / loop.BEST
  for number, record in enumerate(alone.result.best):
    if record is None:
      continue
    run, step = runs[number], record["step"]
    saved = bundle.read(bundle.step_path(best / f"run_{run}", step))
    group = row_groups.Group((0,), _rows(outcome, run))
    contents = bundle.Bundle(
      manifest={
        **manifest,
        "step": step,
        "run_index": number,
        "best": record,
      },
      trainable=_taken(group, saved.trainable),
      fixed=_taken(group, saved.fixed),
    )
    target = folder / loop.BEST / f"run_{number}"
    files.make_folder(target)
    bundle.write(bundle.step_path(target, step), contents)


def _taken(group: row_groups.Group, arrays: bundle.Arrays) -> bundle.Arrays:
  return tree.flatten(group.take(tree.unflatten(arrays)))


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copy the files of a folder, if it is there."""
  if not source.is_dir():
    return
  files.make_folder(target)
  for path in sorted(source.iterdir()):
    if path.is_file():
      files.write_bytes(target / path.name, path.read_bytes())


def _content(cell: Cell, alone: Outcome) -> dict[str, Any]:
  """Describe the results of a cell."""
  runs = []
  for run, record in zip(alone.runs, alone.result.best, strict=True):
    runs.append(
      {
        "name": run.name,
        "task": run.task,
        "seed": run.seed,
        "learning_rate": run.learning_rate,
        "step": None if record is None else record["step"],
        "score": None if record is None else record["score"],
        "metrics": {} if record is None else record["metrics"],
      }
    )
  leaves = jax.tree.leaves(alone.result.state.trainable)
  return {
    "cell": cell.name,
    "values": dict(cell.values),
    "ending": alone.ending,
    "parameters": sum(leaf.size // leaf.shape[0] for leaf in leaves),
    "runs": runs,
  }
