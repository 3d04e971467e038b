"""Distribute the cells of a sweep over banks, and estimate banks' costs."""

import collections
import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from prompt_tuning.core import axes, files
from prompt_tuning.core.partition import TRAIN
from prompt_tuning.jobs import abstract_setup, identity, setup
from prompt_tuning.jobs.identity import placements_of
from prompt_tuning.jobs.sweep_job import BANKS, Cell
from prompt_tuning.jobs.train_job import Experiment, Run, TrainJob, build_tuner
from prompt_tuning.models.t5 import cost
from prompt_tuning.tuners.method import Method, settings_of

_DIGITS = 16  # of a bank's name


@dataclasses.dataclass(frozen=True)
class SharedExperiment(Experiment):
  """An experiment with given runs and not all combinations.

  Attributes:
    members: the runs.
  """

  members: tuple[Run, ...] = ()

  @property
  def runs(self) -> tuple[Run, ...]:
    """The runs that were given."""
    return self.members


class Bank(NamedTuple):
  """Cells that train side by side.

  Attributes:
    cells: the cells in the order of their runs.
    job: the training of all cells; its MODEL_DIR is below that of the sweep.
  """

  cells: tuple[Cell, ...]
  job: TrainJob

  @property
  def name(self) -> str:
    """The name of its folder."""
    return name_of([cell.name for cell in self.cells])

  @property
  def runs(self) -> list[list[int]]:
    """The numbers of every cell's runs."""
    numbers, first = [], 0
    for cell in self.cells:
      count = len(cell.job.experiment.runs)
      numbers.append(list(range(first, first + count)))
      first += count
    return numbers


class Size(NamedTuple):
  """The size of a bank.

  Attributes:
    parameters: trained parameters of each run; None if a method does not say.
    steps: steps of training; None if they count those of the checkpoint, which
      is not read.
    flops: operations of all steps if every row had the largest length; None if
      there is no limit.
  """

  parameters: tuple[int, ...] | None
  steps: int | None
  flops: float | None


def name_of(cells: Sequence[str]) -> str:
  """Name the bank of some cells; no other bank has that name."""
  return files.sha256("\n".join(cells).encode())[:_DIGITS]


def share(
  cells: Sequence[Cell], folder: str, most_runs: int | None = None
) -> list[Bank]:
  """Distribute cells over as few banks as possible.

  Args:
    cells: in any order.
    folder: of the sweep.
    most_runs: of a bank; None for no limit.

  Returns:
    The banks; cells keep their order.
  """
  groups: dict[str, list[list[Cell]]] = collections.defaultdict(list)
  methods = {cell.name: cell.job.experiment.tuners for cell in cells}
  for cell in cells:
    alike = groups[_shared_settings(cell)]
    for group in alike:
      runs = sum(len(one.job.experiment.runs) for one in (*group, cell))
      if most_runs is not None and runs > most_runs:
        continue
      if _fit(methods[group[0].name], methods[cell.name]):
        group.append(cell)
        break
    else:
      alike.append([cell])
  return [
    together(group, folder) for alike in groups.values() for group in alike
  ]


def together(cells: Sequence[Cell], folder: str) -> Bank:
  """Make the bank of cells that can share one.

  Args:
    cells: the first says what they share.
    folder: of the sweep.

  Returns:
    The bank.
  """
  first = cells[0].job
  name = name_of([cell.name for cell in cells])
  path = files.below(files.below(folder, BANKS, "A"), name, "A bank")
  output = dataclasses.replace(first.output, model_dir=str(path))
  if len(cells) == 1:
    job = dataclasses.replace(first, output=output)
    return Bank(tuple(cells), job)
  runs = _members(cells)
  tasks = tuple(dict.fromkeys(run.task for run in runs))
  settings = {
    field.name: getattr(first.experiment, field.name)
    for field in dataclasses.fields(Experiment)
  }
  settings["dataset"] = _of_tasks(settings["dataset"], tasks)
  evaluations = first.evaluations
  if evaluations.evaluation is not None:
    dataset = _of_tasks(evaluations.evaluation.dataset, tasks)
    evaluations = dataclasses.replace(
      evaluations,
      evaluation=dataclasses.replace(evaluations.evaluation, dataset=dataset),
    )
  job = dataclasses.replace(
    first,
    experiment=SharedExperiment(**settings, members=runs),
    evaluations=evaluations,
    output=output,
  )
  return Bank(tuple(cells), job)


def size(bank: Bank) -> Size:
  """Compute the size of a bank, and refuse what training would refuse.

  Args:
    bank: its model and data are not read.

  Returns:
    Its size.

  Raises:
    ValueError: it cannot train.
  """
  steps = bank.job.duration.relative_steps
  return Size(_parameters(bank), steps, _flops(bank))


def insist_on_rows(bank: Bank) -> None:
  """Insist that this machine's devices can divide a bank's rows.

  Args:
    bank: that is to be trained here.

  Raises:
    ValueError: they cannot.
  """
  mesh = bank.job.source.mesh.build()
  ways = axes.row_ways(mesh)
  experiment = bank.job.experiment
  runs, rows = len(experiment.runs), experiment.dataset.batch_size
  if rows * runs % ways:
    names = ", ".join(cell.name for cell in bank.cells[:3])
    raise ValueError(
      f"No bank can hold {names}{' ...' * (len(bank.cells) > 3)}: BATCH_SIZE "
      f"{rows} x {runs} runs cannot be split over {ways} data-parallel "
      "devices. Change BATCH_SIZE, the mesh, or sweep.most_runs."
    )


def _parameters(bank: Bank) -> tuple[int, ...] | None:
  """Count what every run trains."""
  experiment, source = bank.job.experiment, bank.job.source
  try:
    step = abstract_setup.describe(experiment, source, mesh=None, batch={})
  except abstract_setup.UnknownShapesError:
    return None
  sizes = step.program.sizes
  if sizes is None:
    sizes = (step.program.partition.count(TRAIN),) * len(experiment.runs)
  return tuple(map(int, sizes))


def _flops(bank: Bank) -> float | None:
  job, experiment = bank.job, bank.job.experiment
  limits = experiment.dataset.lengths
  inputs, targets = limits["inputs"], limits["targets"]
  steps = job.duration.relative_steps
  if inputs is None or targets is None or steps is None:
    return None
  placements = placements_of(experiment.tuners, len(experiment.runs))
  encoder = inputs + max(p.encoder_length for p in placements)
  decoder = targets + max(p.decoder_length for p in placements)
  per_token = _flops_per_token(experiment.model, bool(experiment.tuners))
  rows = experiment.dataset.batch_size * len(placements)
  of_row = encoder * per_token[0] + decoder * per_token[1]
  return float(steps * rows * of_row)


_flops_per_token = functools.cache(cost.flops_per_token)


def _shared_settings(cell: Cell) -> str:
  """Describe the settings that the cells of a bank share."""
  job, experiment = cell.job, cell.job.experiment
  of_runs = ("seeds", "learning_rates", "tuner", "dataset", "optimizer")
  settings: dict[str, Any] = {
    field.name: getattr(experiment, field.name)
    for field in dataclasses.fields(experiment)
    if field.name not in of_runs
  }
  settings["optimizer"] = experiment.run_optimizer
  # Includes what it takes from the runs' tasks, such as their classes.
  settings["objective"] = setup.objective_of(experiment)
  settings["dataset"] = _of_tasks(experiment.dataset, ())
  settings["methods"] = sorted({_kind(method) for method in experiment.tuners})
  evaluations = dataclasses.replace(job.evaluations, evaluation=None)
  evaluation = job.evaluations.evaluation
  if evaluation is not None:
    dataset = _of_tasks(evaluation.dataset, ())
    evaluation = dataclasses.replace(evaluation, dataset=dataset)
  if job.evaluations.patience is not None:
    # A bank stops when no run improves any more; a run alone would stop
    # earlier.
    settings["alone"] = cell.name
  if experiment.run_stages:
    # A stage may have its own learning rate, and so may the runs of a bank.
    settings["alone"] = cell.name
  settings |= {
    "source": job.source,
    "duration": job.duration,
    "evaluations": evaluations,
    "evaluation": evaluation,
    "output": dataclasses.replace(job.output, model_dir="of the sweep"),
  }
  return json.dumps(identity.describe(settings), sort_keys=True)


def _of_tasks(dataset: Any, tasks: tuple[str, ...]) -> Any:
  return dataclasses.replace(dataset, mixture_or_task_name=tasks)


def _kind(method: Method) -> str:
  return f"{type(method).__module__}:{type(method).__qualname__}"


def _fit(some: Sequence[Method], others: Sequence[Method]) -> bool:
  """Say whether two cells' methods, or models, can share a bank."""
  return not others or _aligned([*some, *others]) is not None


def _aligned(methods: Sequence[Method]) -> tuple[Method, ...] | None:
  """Give methods parameters of equal shapes, if possible."""
  first = settings_of(methods[0])
  if all(settings_of(method) == first for method in methods):
    return tuple(methods)
  return type(methods[0]).aligned(methods)


def _members(cells: Sequence[Cell]) -> tuple[Run, ...]:
  """List the runs of cells side by side."""
  runs: list[Run] = []
  for cell in cells:
    for run in cell.job.experiment.runs:
      name = "_".join(filter(None, (cell.name, run.name)))
      runs.append(run._replace(name=name, group=None))
  if runs[0].tuner is None:
    return tuple(runs)
  model = cells[0].job.experiment.model
  methods = [
    build_tuner(run.tuner, model, run.task)
    for run in runs
    if run.tuner is not None
  ]
  aligned = _aligned(methods)
  assert aligned is not None, "they were found to fit"
  return tuple(
    run._replace(tuner=method)
    for run, method in zip(runs, aligned, strict=True)
  )
