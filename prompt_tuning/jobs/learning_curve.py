"""A picture of loss and score over the steps."""

import collections
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.core import files
from prompt_tuning.jobs.train_job import Run

_LOSS, _SCORE, _METRIC = "train/loss", "selection/score", "inference_eval/"
_LINES = 10  # that can be told apart
_SIZE = (5.0, 3.4)  # inches of one plot
_MARGIN = 0.03  # of the steps, to the right of the last
_SEVERAL = 4  # plots side by side where there are more than two tasks


class Line(NamedTuple):
  """A line of the chart, in one colour.

  Attributes:
    label: its name; empty if it is the only one.
    steps: in order.
    middle: a value per step.
    low: least value per step.
    high: most; both equal `middle` where it is one run.
  """

  label: str
  steps: tuple[int, ...]
  middle: tuple[float, ...]
  low: tuple[float, ...]
  high: tuple[float, ...]


def draw(
  entries: Sequence[Mapping[str, Any]],
  runs: Sequence[Run],
  path: str | os.PathLike[str],
  start_step: int = 0,
) -> None:
  """Draw every task's training loss and score.

  Args:
    entries: lines of the log, see `train.logs.read`.
    runs: that were trained.
    path: of the PNG.
    start_step: of the optimizer; said below the steps, which include it.
  """
  # Imported here because it is slow to import, and only needed after training.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  tasks = list(dict.fromkeys(run.task for run in runs))
  last = max((entry["step"] for entry in entries), default=start_step)
  width = _SEVERAL if len(tasks) > 2 else 2
  height = -(-2 * len(tasks) // width)
  size = (_SIZE[0] * width, _SIZE[1] * height)
  figure = Figure(figsize=size, layout="constrained")
  canvas = FigureCanvasAgg(figure)
  plots = figure.subplots(height, width, squeeze=False).ravel()
  for number, task in enumerate(tasks):
    numbers = [k for k, run in enumerate(runs) if run.task == task]
    names = (_LOSS, "training loss"), (_SCORE, metric(entries, numbers))
    for axes, (tag, name) in zip(plots[2 * number :], names, strict=False):
      _plot(axes, lines(entries, runs, task, tag))
      _describe(axes, task if len(tasks) > 1 else "", name, start_step)
      axes.set_xlim(start_step, last + max(1, last - start_step) * _MARGIN)
  for axes in plots[2 * len(tasks) :]:
    axes.remove()
  with files.replacing(path) as temporary:
    canvas.print_png(temporary)


def metric(entries: Sequence[Mapping[str, Any]], runs: Sequence[int]) -> str:
  """Name the metric of the runs' score.

  Args:
    entries: lines of the log.
    runs: their numbers.

  Returns:
    The metric, or the mean of several.
  """
  tags = {
    tag.removeprefix(_METRIC)
    for entry in entries
    if entry["run"] in runs
    for tag in entry
    if tag.startswith(_METRIC)
  }
  # Names with a slash are shares of labels, and metrics of a second way to
  # evaluate.
  known = {tag.partition("/")[2] for tag in tags}
  names = sorted(name for name in known if "/" not in name)
  tasks = {tag.partition("/")[0] for tag in tags}
  if len(tasks) > 1:
    return f"{', '.join(names)}; mean of {len(tasks)} tasks"
  if len(names) == 1:
    return names[0]
  return f"mean of {', '.join(names)}" if names else "score"


def lines(
  entries: Sequence[Mapping[str, Any]],
  runs: Sequence[Run],
  task: str,
  tag: str,
) -> list[Line]:
  """Choose the lines to draw for a task.

  Args:
    entries: lines of the log.
    runs: all that were trained.
    task: theirs that are drawn.
    tag: what of the log.

  Returns:
    The runs of the task, or, where all runs are too many to tell apart, their
    means over seeds, or their mean.
  """
  members = {k: run for k, run in enumerate(runs) if run.task == task}
  start = f"{task}_"
  if len(runs) <= _LINES:
    labels = {k: run.name.removeprefix(start) for k, run in members.items()}
  else:
    labels = {k: run.group or run.name for k, run in members.items()}
    labels = {k: label.removeprefix(start) for k, label in labels.items()}
    if len(set(labels.values())) > _LINES:
      labels = dict.fromkeys(labels, "")
  counts = collections.Counter(labels.values())
  points: dict[str, dict[int, list[float]]] = {label: {} for label in counts}
  for entry in entries:
    if entry["run"] in members and entry.get(tag) is not None:
      of_line = points[labels[entry["run"]]]
      of_line.setdefault(entry["step"], []).append(entry[tag])
  return [
    _line("" if label == task else label, counts[label], of_line)
    for label, of_line in points.items()
  ]


def _line(
  label: str, count: int, points: Mapping[int, Sequence[float]]
) -> Line:
  if count > 1:
    label = f"{label} mean of {count}, least to most".strip()
  steps = tuple(sorted(points))
  values = [points[step] for step in steps]
  return Line(
    label,
    steps,
    tuple(map(statistics.fmean, values)),
    tuple(map(min, values)),
    tuple(map(max, values)),
  )


def _plot(axes: Any, drawn: Sequence[Line]) -> None:
  for line in drawn:
    label = line.label or None
    (middle,) = axes.plot(line.steps, line.middle, marker=".", label=label)
    if line.low != line.high:
      color = middle.get_color()
      axes.fill_between(
        line.steps, line.low, line.high, color=color, alpha=0.2, linewidth=0
      )
  if any(line.label for line in drawn):
    axes.legend(fontsize="x-small")


def _describe(axes: Any, title: str, name: str, start_step: int) -> None:
  from matplotlib.ticker import MaxNLocator, StrMethodFormatter

  axes.set_title(title, fontsize="medium")
  axes.set_ylabel(name)
  start = f" (training began at {start_step:,})" if start_step else ""
  axes.set_xlabel(f"step{start}", fontsize="small")
  axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
  axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
  axes.grid(alpha=0.3)
