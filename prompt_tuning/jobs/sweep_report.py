"""The report of a sweep: CSV, JSON, Markdown and pictures.

It is written to MODEL_DIR/report, for the finished cells; it names the others.
You can make a report at any time, and repeatedly.
"""

import csv
import io
import json
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from prompt_tuning.core import files
from prompt_tuning.jobs import sweep, sweep_cell
from prompt_tuning.jobs.sweep_job import CELLS, SweepJob

if TYPE_CHECKING:
  from matplotlib.axes import Axes

FOLDER = "report"
_MARKERS, _LINES = "osD^vPX*<>", ("-", "--", ":", "-.")
_SPREAD = 10  # from which ratio on an axis of sizes is drawn logarithmically
_SIZE = (6.4, 4.0)  # inches
_LETTERS = 60  # that stand side by side below a picture
_ASIDE, _ROOM = 0.1, 0.8  # of the distance between two names
_IN_PICTURE = 3  # lines whose names stand inside


class Point(NamedTuple):
  """One run of a cell.

  Attributes:
    cell: its name.
    values: axis -> label.
    run: its name within the cell; empty where it is alone.
    task: that it trained on.
    seed: its seed.
    parameters: that it trained.
    step: of its best evaluation; None where there was none.
    score: there.
    metrics: there.
  """

  cell: str
  values: Mapping[str, str]
  run: str
  task: str
  seed: int
  parameters: int
  step: int | None
  score: float | None
  metrics: Mapping[str, float]


class Group(NamedTuple):
  """Points that differ only in repetitions.

  Attributes:
    values: axis -> label, of the other axes.
    scores: those that there are.
  """

  values: Mapping[str, str]
  scores: tuple[float, ...]

  @property
  def mean(self) -> float:
    """Mean of the scores."""
    return statistics.fmean(self.scores)

  @property
  def deviation(self) -> float:
    """Standard deviation of the scores; 0 for a single one."""
    return statistics.stdev(self.scores) if len(self.scores) > 1 else 0.0


def write(job: SweepJob) -> str:
  """Write the report.

  Args:
    job: the sweep.

  Returns:
    The table, and the paths of all files, for people.

  Raises:
    ValueError: no cell is finished, or MODEL_DIR holds another sweep or the
      file of another cell.
    CheckpointError: the results of a cell cannot be read.
    OSError: a file cannot be written.
  """
  sweep.insist_on_settings(job)
  points = read(job)
  if not points:
    raise ValueError(
      f"No cell of {job.model_dir} is done, so there is nothing to report. "
      "Run the sweep without --report first."
    )
  failed = sweep.failures(job)
  names = {point.cell for point in points}
  missing = [cell.name for cell in job.cells if cell.name not in names]
  grouped = groups(points, job.mean_over)
  folder = files.path(job.model_dir) / FOLDER
  table = markdown(grouped)
  notes = [f"* {name}: {failed.get(name, 'not done')}" for name in missing]
  text = "\n".join([f"# {', '.join(job.axes)}", "", table])
  if notes:
    count = len(job.cells)
    text += f"\n{len(missing)} of {count} cells are missing:\n\n"
    text += "\n".join(notes) + "\n"
  files.remove_leftovers(folder)  # of a report that was killed
  files.write_texts(
    folder,
    {
      "results.json": json.dumps(as_json(job, points), indent=1) + "\n",
      "results.csv": as_csv(points),
      "table.md": text,
    },
  )
  pictures = draw(grouped, folder)
  paths = [folder / n for n in ("table.md", "results.json", "results.csv")]
  lines = [f"report: {path}" for path in [*paths, *pictures]]
  return "\n".join([text, *lines])


def read(job: SweepJob) -> list[Point]:
  """Read the results of the finished cells, in the order of the cells.

  Args:
    job: the sweep.

  Returns:
    A point for each of their runs.

  Raises:
    ValueError: the file of a cell is another cell's.
    CheckpointError: of a cell that cannot be read.
  """
  points = []
  for cell in job.cells:
    root = files.path(job.model_dir) / CELLS
    folder = files.below(root, cell.name, "A cell")
    if not sweep_cell.is_whole(folder):
      continue
    content = sweep_cell.read(folder)
    if (content["cell"], content["values"]) != (cell.name, dict(cell.values)):
      raise ValueError(
        f"{folder / sweep_cell.FILE} is of cell {content['cell']}; expected "
        f"{cell.name}. Put the right file back, or remove the folder, so that "
        "the sweep trains this cell again."
      )
    points += [
      Point(
        cell.name,
        content["values"],
        run.get("name", ""),
        run["task"],
        run["seed"],
        content["parameters"],
        run["step"],
        run["score"],
        run["metrics"],
      )
      for run in content["runs"]
    ]
  return points


def groups(points: Sequence[Point], mean_over: Sequence[str]) -> list[Group]:
  """Group points that differ only in repetitions.

  If a cell trains on several tasks, each with its own prompt, the mean over
  tasks is one score. If a task has no score, the cell has none.

  Args:
    points: of a sweep.
    mean_over: axes of repetitions.

  Returns:
    The groups that have scores, in the order of the points.
  """
  by_cell: dict[tuple[str, int], list[Point]] = {}
  for point in points:
    by_cell.setdefault((point.cell, point.seed), []).append(point)
  found: dict[tuple[tuple[str, str], ...], list[float]] = {}
  for members in by_cell.values():
    chosen = members[0].values.items()
    values = tuple((axis, v) for axis, v in chosen if axis not in mean_over)
    scores = [point.score for point in members if point.score is not None]
    of_group = found.setdefault(values, [])
    if len(scores) < len(members):
      continue
    one_each = len({point.task for point in members}) == len(members)
    of_group += [statistics.fmean(scores)] if one_each else scores
  return [
    Group(dict(v), tuple(scores)) for v, scores in found.items() if scores
  ]


def markdown(grouped: Sequence[Group]) -> str:
  """Format groups as a table: mean, deviation and number of scores.

  Args:
    grouped: at least one.

  Returns:
    The table in Markdown.
  """
  if not grouped:
    return "Nothing was evaluated: the cells have no scores.\n"
  axes = list(grouped[0].values)
  lines = [
    "| " + " | ".join([*map(_title, axes), "score", "runs"]) + " |",
    "|---" * (len(axes) + 2) + "|",
  ]
  for group in grouped:
    score = f"{group.mean:.1f}"
    if len(group.scores) > 1:
      score += f" ± {group.deviation:.1f}"
    cells = [*group.values.values(), score, str(len(group.scores))]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def as_json(job: SweepJob, points: Sequence[Point]) -> dict[str, Any]:
  """Describe a report in JSON's types.

  Args:
    job: the sweep.
    points: that it came to.

  Returns:
    Axes, repetitions, and every point.
  """
  return {
    "axes": {axis: list(labels) for axis, labels in job.axes.items()},
    "mean_over": [axis for axis in job.mean_over if axis in job.axes],
    "points": [point._asdict() for point in points],
  }


def from_json(content: Mapping[str, Any]) -> tuple[list[Point], list[str]]:
  """Undo `as_json`.

  Args:
    content: what it gave.

  Returns:
    The points, and the axes of repetitions.
  """
  return [Point(**p) for p in content["points"]], list(content["mean_over"])


def as_csv(points: Sequence[Point]) -> str:
  """Write points as CSV, a line for each.

  Args:
    points: at least one.

  Returns:
    The text.
  """
  out = io.StringIO()
  axes = list(points[0].values)
  rest = ("run", "task", "seed", "parameters", "step", "score")
  writer = csv.writer(out, lineterminator="\n")
  writer.writerow([*map(_title, axes), *rest])
  for point in points:
    own = [getattr(point, name) for name in rest]
    writer.writerow([*(point.values[axis] for axis in axes), *own])
  return out.getvalue()


def draw(grouped: Sequence[Group], folder: pathlib.Path) -> list[pathlib.Path]:
  """Draw the scores over every axis that has several values.

  Args:
    grouped: the groups.
    folder: where to.

  Returns:
    The pictures' paths.
  """
  if not grouped:
    return []
  axes = [
    axis
    for axis in grouped[0].values
    if len({group.values[axis] for group in grouped}) > 1
  ]
  paths = []
  for axis in axes:
    path = folder / f"score_over_{_title(axis)}.png"
    picture(grouped, axis, path)
    paths.append(path)
  return paths


def picture(
  grouped: Sequence[Group], axis: str, path: pathlib.Path, title: str = ""
) -> None:
  """Draw the scores over one axis, a line for every combination of the others.

  Lines also differ in markers and dashes, so that one can distinguish them
  without colours. Small points are single runs.

  Args:
    grouped: the groups.
    axis: from left to right.
    path: of the PNG.
    title: of the picture.
  """
  # Not at the top: slow to import.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  scale = _Scale.of([group.values[axis] for group in grouped])
  figure = Figure(figsize=_SIZE, layout="constrained")
  canvas, plot = FigureCanvasAgg(figure), figure.subplots()
  lines: dict[str, list[Group]] = {}
  for group in grouped:
    rest = [v for a, v in group.values.items() if a != axis]
    lines.setdefault(", ".join(rest), []).append(group)
  for number, (name, members) in enumerate(lines.items()):
    x = scale.beside(
      [group.values[axis] for group in members], number, len(lines)
    )
    by_place = sorted(zip(x, members, strict=True), key=lambda pair: pair[0])
    _draw_line(plot, by_place, number, name, scale.is_number)
  _draw_scale(plot, scale)
  plot.set(xlabel=_title(axis), ylabel="score, mean ± sd", title=title)
  plot.grid(alpha=0.3)
  if len(lines) > _IN_PICTURE:
    figure.legend(fontsize="small", loc="outside right upper")
  elif len(lines) > 1:
    plot.legend(fontsize="small")
  with files.replacing(path) as temporary:
    canvas.print_png(temporary)


class _Scale(NamedTuple):
  """Places of an axis's values, from left to right.

  Attributes:
    places: value -> its place: its number, or else its position.
    is_number: whether all values are numbers.
  """

  places: Mapping[str, float]
  is_number: bool

  @classmethod
  def of(cls, values: Sequence[str]) -> "_Scale":
    """Make the scale of an axis with these values."""
    labels = list(dict.fromkeys(values))
    numbers = [_number(label) for label in labels]
    known = [number for number in numbers if number is not None]
    if len(known) == len(labels):
      return cls(dict(zip(labels, known, strict=True)), is_number=True)
    positions = {label: float(n) for n, label in enumerate(labels)}
    return cls(positions, is_number=False)

  def beside(
    self, values: Sequence[str], number: int, count: int
  ) -> list[float]:
    """Place the points of one line of several."""
    # Names have no order: draw no line, and points beside each other.
    step = 0.0 if self.is_number else min(_ASIDE, _ROOM / count)
    aside = step * (number - (count - 1) / 2)
    return [self.places[value] + aside for value in values]


def _draw_line(
  plot: "Axes",
  points: Sequence[tuple[float, Group]],
  number: int,
  name: str,
  is_joined: bool,
) -> None:
  """Draw means and deviations, and small points where there are several."""
  drawn = plot.errorbar(
    [x for x, _ in points],
    [group.mean for _, group in points],
    [group.deviation for _, group in points],
    marker=_MARKERS[number % len(_MARKERS)],
    linestyle=_LINES[number % len(_LINES)] if is_joined else "",
    capsize=3,
    label=name or None,
  )
  for x, group in points:
    if len(group.scores) > 1:
      plot.plot(
        [x] * len(group.scores),
        group.scores,
        marker=".",
        linestyle="",
        markersize=3,
        color=drawn[0].get_color(),
      )


def _draw_scale(plot: "Axes", scale: _Scale) -> None:
  """Label the axis from left to right."""
  labels, places = list(scale.places), list(scale.places.values())
  lowest, highest = min(places), max(places)
  if scale.is_number and lowest > 0 and highest >= _SPREAD * lowest:
    plot.set_xscale("log")
    plot.minorticks_off()
  plot.set_xticks(places, labels)
  if sum(map(len, labels)) > _LETTERS:
    # Long names slant, and end at their tick, so that they do not overlap.
    for label in plot.get_xticklabels():
      label.set(rotation=30, ha="right", rotation_mode="anchor")
  if not scale.is_number:
    plot.set_xlim(-0.5, len(labels) - 0.5)


def _title(axis: str) -> str:
  return axis.lstrip("@").replace("/", "_")


def _number(label: str) -> float | None:
  try:
    number = float(label)
  except ValueError:
    return None
  return number if math.isfinite(number) else None
