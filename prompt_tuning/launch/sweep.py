"""`prompt-tuning sweep`: the training of `train` for every value of some axes.

Cells that can share a bank train side by side. Each cell gives an ordinary run
folder. After a stop, the same command continues.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from prompt_tuning.core import files
from prompt_tuning.launch import command
from prompt_tuning.launch.flags import Flags

if TYPE_CHECKING:
  from prompt_tuning.jobs.sweep_job import Cell, SweepJob

ABOUT = """Train for every combination of the values of some axes. Takes the
flags of `train`, and these:
--axis NAME=VALUES (may be repeated; NAME is a macro or a parameter in gin, with
values in gin's syntax, or @ and any name, with FILE,FILE as values);
--shard i/n trains one of n parts of the cells;
--report only writes tables and plots of the cells that are done;
--topology v5e:4x4 refuses cells whose weights cannot fit there.
Axes can stand in a gin file: sweep.axes = {"PROMPT_LENGTH": (1, 5, 20)}."""

_SWEEP, _AXES, _DIR = "sweep", "axes", "MODEL_DIR"
_FILES = "@"  # how an axis of gin files begins


class _Own(NamedTuple):
  """The command's own flags.

  Attributes:
    axis: `NAME=VALUES`, each.
    shard: `i/n`.
    report: whether to report only.
    topology: slices that must do.
  """

  axis: Sequence[str]
  shard: str
  report: bool
  topology: Sequence[str]


def split(argv: Sequence[str]) -> tuple[_Own, list[str]]:
  """Tell the command's own flags from those of `train`.

  Args:
    argv: the words after `prompt-tuning sweep`.

  Returns:
    The command's own flags, and those of `train`.
  """
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  add = parser.add_argument
  add(
    "--axis",
    action="append",
    default=[],
    metavar="NAME=VALUES",
    help="what varies: a macro or a parameter of gin and its values, or @ "
    "and any name for gin files; may be repeated",
  )
  add(
    "--shard",
    default="0/1",
    metavar="I/N",
    help="train one of n parts of the cells",
  )
  add(
    "--report",
    action="store_true",
    help="only write tables and plots of the cells that are done",
  )
  add(
    "--topology",
    action="append",
    default=[],
    metavar="TPU:SHAPE",
    help="refuse cells whose weights cannot fit on this slice, such as v5e:4x4",
  )
  own, rest = parser.parse_known_args(argv)
  return _Own(own.axis, own.shard, own.report, own.topology), rest


def main(argv: Sequence[str]) -> int:
  """Sweep as flags and gin files say.

  Args:
    argv: the words after `prompt-tuning sweep`.

  Returns:
    The process's exit status.
  """
  own, rest = split(argv)

  def work(job: "SweepJob", arguments: Flags) -> None:
    import jax

    from prompt_tuning.jobs import sweep, sweep_job, sweep_report

    shard = sweep_job.shard_of(own.shard)
    if not own.report:
      _insist_on_fitting(job, own)
      sweep.sweep(job, arguments.tfds_data_dir, shard, say=command.say)
    # Only one process writes, because each writer removes incomplete files.
    if (own.report or shard == (0, 1)) and jax.process_index() == 0:
      command.say(f"\n{sweep_report.write(job)}")

  def look(job: "SweepJob") -> Sequence[str]:
    from prompt_tuning.jobs import sweep, sweep_job
    from prompt_tuning.plans import bounds

    _insist_on_fitting(job, own)
    planned = sweep.plan(job, sweep_job.shard_of(own.shard))
    return sweep.lines(planned, bounds.chip_hours)

  return command.run(
    _SWEEP,
    rest,
    ABOUT,
    work,
    look=look,
    build=lambda arguments: configure(arguments, own.axis),
  )


def configure(arguments: Flags, more_axes: Sequence[str] = ()) -> "SweepJob":
  """Build the job of every cell.

  Args:
    arguments: the flags of `train`.
    more_axes: `NAME=VALUES`, which win over those of gin files.

  Returns:
    The sweep.

  Raises:
    ValueError: the configuration is wrong; names the cell.
  """
  import gin

  from prompt_tuning.jobs import sweep_job

  folder, axes = _read(arguments, more_axes)
  labels = {
    axis: [sweep_job.label(value) for value in values]
    for axis, values in axes.items()
  }
  sweep_job.check_axes(labels)
  for axis in axes:
    if axis == _DIR or axis.startswith(f"{_SWEEP}."):
      raise ValueError(
        f"{axis} cannot be an axis: the whole sweep has one value of it, and "
        f"a cell's folder is below MODEL_DIR/{sweep_job.CELLS}. Give one "
        f"value, by --gin.{axis}."
      )
  cells = _cells(arguments, folder, axes, labels)
  # Take it from the last cell: all cells have the same settings of the sweep.
  settings = gin.get_configurable(_SWEEP)()
  unknown = [axis for axis in settings.mean_over if axis not in axes]
  if unknown and settings.mean_over != sweep_job.Settings.mean_over:
    raise ValueError(
      f"sweep.mean_over names {', '.join(unknown)}, which is not an axis; the "
      f"axes are {', '.join(axes)}."
    )
  return sweep_job.SweepJob(
    folder, labels, cells, settings.mean_over, settings.most_runs
  )


def _cells(
  arguments: Flags,
  folder: str,
  axes: Mapping[str, Sequence[str]],
  labels: Mapping[str, Sequence[str]],
) -> "list[Cell]":
  """Configure `train` for every combination of the axes' values."""
  from prompt_tuning.jobs import sweep_job
  from prompt_tuning.launch import gin_config

  cells = []
  for numbers in itertools.product(*(range(len(v)) for v in axes.values())):
    chosen = dict(zip(axes, numbers, strict=True))
    values = {axis: labels[axis][number] for axis, number in chosen.items()}
    texts = {axis: axes[axis][number] for axis, number in chosen.items()}
    name = sweep_job.cell_name(values)
    path = str(files.path(folder) / sweep_job.CELLS / name)
    try:
      job = command.configure("train", _of_cell(arguments, texts, path))
      job = sweep_job.settled(job)
    except ValueError as error:
      said = str(error)
      for axis in axes:  # nobody gave that flag
        said = said.replace(f"--gin.{axis}=", f"axis {axis}=")
      raise ValueError(f"Cell {name}: {said}") from error
    cells.append(sweep_job.Cell(name, values, job, gin_config.texts()))
  return cells


def _read(
  arguments: Flags, more_axes: Sequence[str]
) -> tuple[str, dict[str, list[str]]]:
  """Read MODEL_DIR and the axes: axis -> gin's text of its values."""
  from prompt_tuning.launch import configurables, gin_config
  from prompt_tuning.launch.gin_files import SearchPath

  configurables.register()
  statements, _ = gin_config.read(
    arguments.gin_files,
    arguments.gin_bindings,
    configurables.KNOWN,
    SearchPath(arguments.gin_search_paths),
    configurables.register_methods,
  )
  if statements.faults:
    raise gin_config.ConfigError(statements.faults)
  settings = statements.settings
  folders = [s.value for s in settings if s.macro == _DIR]
  folder = next((f for f in reversed(folders) if isinstance(f, str)), None)
  if folder is None:
    raise ValueError(
      "No folder is given: give --gin.MODEL_DIR=\"'runs/sweep'\"."
    )
  in_files = [
    s.value for s in settings if (s.selector, s.parameter) == (_SWEEP, _AXES)
  ]
  axes: dict[str, list[str]] = {}
  for axis, values in _as_mapping(in_files[-1] if in_files else {}).items():
    if not isinstance(values, list | tuple):
      values = (values,)
    axes[axis] = [v if _is_files(axis) else repr(v) for v in values]
  given: dict[str, list[str]] = {}
  for text in more_axes:
    axis, values = _axis(text)
    if axis in given:
      raise ValueError(
        f"--axis {axis} is given twice, as {', '.join(given[axis])} and as "
        f"{', '.join(values)}. Give all its values at once."
      )
    given[axis] = values
  return folder, {**axes, **given}


def _as_mapping(value: Any) -> Mapping[str, Any]:
  if not isinstance(value, Mapping):
    raise ValueError(
      f"sweep.axes is {value!r}; expected a mapping of names to values, such "
      'as {"PROMPT_LENGTH": (1, 5, 20)}.'
    )
  return value


def _is_files(axis: str) -> bool:
  return axis.startswith(_FILES)


def _axis(text: str) -> tuple[str, list[str]]:
  """Read `NAME=VALUES` of the command line."""
  from prompt_tuning.launch import gin_statements
  from prompt_tuning.launch.gin_files import SearchPath

  axis, _, values = text.partition("=")
  axis = axis.strip()
  if not axis:
    raise ValueError(f"--axis {text!r}: expected NAME=VALUES.")
  if _is_files(axis):
    return axis, [v.strip() for v in values.split(",") if v.strip()]
  # Several values without brackets are also several values.
  for wrapped in (values, f"({values},)"):
    read = gin_statements.read((), [f"AXIS = {wrapped}"], SearchPath(()))
    if not read.faults:
      value = read.settings[-1].value
      several = value if isinstance(value, list | tuple) else (value,)
      return axis, [repr(one) for one in several]
  if not values.strip():
    return axis, []
  bare = [value.strip().strip("\"'") for value in values.split(",")]
  quoted = ",".join(f"'{value}'" for value in bare)
  raise ValueError(
    f"--axis {axis}={values}: the values are not in gin's syntax. Text needs "
    f'quotes inside, such as --axis {axis}="{quoted}".'
  )


def _of_cell(arguments: Flags, texts: Mapping[str, str], folder: str) -> Flags:
  """Give a cell its values and its folder."""
  more = [value for axis, value in texts.items() if _is_files(axis)]
  bindings = [
    f"{axis} = {value}" for axis, value in texts.items() if not _is_files(axis)
  ]
  return dataclasses.replace(
    arguments,
    gin_files=(*arguments.gin_files, *more),
    gin_bindings=(
      *arguments.gin_bindings,
      *bindings,
      f"{_DIR} = {folder!r}",
    ),
  )


def _insist_on_fitting(job: "SweepJob", own: _Own) -> None:
  """Refuse cells that are too large for a slice that was asked for."""
  from prompt_tuning.plans import bounds, chips

  for tpu_slice in map(chips.parse, own.topology):
    for cell in job.cells:
      why = bounds.misfit(cell.job, tpu_slice)
      if why is not None:
        raise ValueError(f"{cell.name} fits on no mesh of {tpu_slice}: {why}")


if __name__ == "__main__":
  from prompt_tuning.launch import main as program

  sys.exit(program.main([_SWEEP, *sys.argv[1:]]))
