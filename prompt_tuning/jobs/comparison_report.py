"""A comparison for people: a table, also as CSV and Markdown, and a plot."""

import csv
import io
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from prompt_tuning.core import files
from prompt_tuning.jobs import summary
from prompt_tuning.jobs.comparison import RANDOM, Comparison

FILES = CSV, MARKDOWN, PICTURE = (
  "comparison.csv",
  "comparison.md",
  "comparison.png",
)
_COLUMNS = 6  # methods, or tasks, that a table has room for
_HEADS = (
  "method",
  "score",
  "± sd",
  "seeds",
  "trained",
  "share",
  "on disk",
  "runs",
  "s/step",
  "memory",
  "all steps",
)
_CAPTION = (
  "Score: percent, mean over tasks; deviation over seeds. Trained, its share "
  "of the model, on disk: one run. Step and memory: all runs side by side."
)
_MARKERS = "os^Dv<>PXph*"
_SIZE = (9.0, 5.6)  # inches
_LABEL = 8.0  # points
# From a name to its mark, drawn below both.
_LEADER = {"arrowstyle": "-", "color": "grey", "linewidth": 0.6, "shrinkB": 0}


class Row(NamedTuple):
  """A method's line.

  Attributes:
    method: its title.
    score: percent, the mean over tasks and seeds.
    deviation: standard deviation over seeds of the means over tasks; None for a
      single seed.
    seeds: number of seeds.
    trained: trained parameters of a run; None if that has no meaning.
    share: of the model's parameters.
    disk_bytes: see `Comparison`; as those below.
    runs: how many.
    step_seconds: of all runs.
    step_bytes: of all runs.
    seconds: of all steps.
    steps: how many.
  """

  method: str
  score: float
  deviation: float | None
  seeds: int
  trained: int | None
  share: float | None
  disk_bytes: int | None
  runs: int | None
  step_seconds: float | None
  step_bytes: int | None
  seconds: float | None
  steps: int | None


def rows(comparison: Comparison) -> list[Row]:
  """Summarise every method in a line.

  Args:
    comparison: what.

  Returns:
    The lines, in the order of the scores.
  """
  return [_row(comparison, method) for method in comparison.methods]


def _row(found: Comparison, method: str) -> Row:
  of_seeds = found.by_seed(method)
  trained = found.trained.get(method)
  return Row(
    method,
    found.mean(method),
    statistics.stdev(of_seeds) if len(of_seeds) > 1 else None,
    len(of_seeds),
    trained,
    None if trained is None else trained / found.parameters,
    found.disk_bytes.get(method),
    found.runs.get(method),
    found.step_seconds.get(method),
    found.step_bytes.get(method),
    found.seconds.get(method),
    found.steps.get(method),
  )


def table(comparison: Comparison) -> str:
  """Format a comparison for a screen.

  Args:
    comparison: what.

  Returns:
    Scores by task, if there is room: a row per task and a column per method, or
    the other way round. Then a line per method with its costs.
  """
  lines = [_by_task(comparison), ""]
  written = [
    dict(zip(_HEADS, _cells(row), strict=True)) for row in rows(comparison)
  ]
  grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
  grid.add_column(_HEADS[0])
  for head in _HEADS[1:]:  # names and heads wrap, numbers do not
    widest = max((len(cells[head]) for cells in written), default=0)
    grid.add_column(head, justify="right", min_width=widest)
  for cells in written:
    grid.add_row(*cells.values())
  lines += [summary.render(grid), _CAPTION, _proof(comparison)]
  return "\n".join(lines)


def _proof(comparison: Comparison) -> str:
  return "frozen weights: " + ("unchanged" if comparison.frozen else "CHANGED")


def _by_task(comparison: Comparison) -> str:
  shown = list(comparison.methods)
  if len(shown) > _COLUMNS:
    shown = [method for method in shown if not method.startswith(RANDOM)]
  tasks = comparison.tasks
  down = ["task", *tasks, "mean"]
  columns = {
    method: [
      method,
      *(_scores(comparison.of(method, task)) for task in tasks),
      f"{comparison.mean(method):.1f}",
    ]
    for method in shown
  }
  lines = list(zip(down, *columns.values(), strict=True))
  if len(shown) > _COLUMNS:
    if len(tasks) >= _COLUMNS:
      return (
        f"{len(shown)} methods on {len(tasks)} tasks, each task in the JSON"
      )
    lines = list(zip(*lines, strict=True))
  grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
  grid.add_column(lines[0][0], no_wrap=True)
  for head in lines[0][1:]:  # heads wrap, numbers do not
    grid.add_column(head, justify="right", min_width=len("instruction"))
  for line in lines[1:]:
    grid.add_row(*line)
  return summary.render(grid)


def _scores(scores: Sequence[float]) -> str:
  if not scores:
    return ""
  if len(scores) == 1:
    return f"{scores[0]:.1f}"
  return f"{statistics.fmean(scores):.1f} ± {statistics.stdev(scores):.1f}"


def _cells(row: Row) -> list[str]:
  """Write a line's values for people; unknown values are empty."""
  known: list[tuple[Any, str]] = [
    (row.method, "{}"),
    (row.score, "{:.1f}"),
    (row.deviation, "{:.1f}"),
    (row.seeds, "{}"),
    (row.trained, "{:,}"),
    (row.share, "{:.2%}"),
    (_bytes(row.disk_bytes), "{}"),
    (row.runs, "{}"),
    (row.step_seconds, "{:.3g}"),
    (_bytes(row.step_bytes), "{}"),
    (row.seconds, "{:.0f} s"),
  ]
  return ["" if v is None else form.format(v) for v, form in known]


def _bytes(count: int | None) -> str | None:
  """Write a size with its unit, powers of 1,024."""
  if count is None:
    return None
  size, units = float(count), ["B", "KiB", "MiB", "GiB"]
  while size >= 1_024 and len(units) > 1:
    size, units = size / 1_024, units[1:]
  return f"{size:.0f} {units[0]}" if size >= 100 else f"{size:.3g} {units[0]}"


def write(folder: str | os.PathLike[str], comparison: Comparison) -> None:
  """Write the files for people and for other programs.

  Args:
    folder: of `comparison.FILE`.
    comparison: what.
  """
  root = files.path(folder)
  files.write_text(root / CSV, as_csv(comparison))
  files.write_text(root / MARKDOWN, as_markdown(comparison))
  draw(comparison, root / PICTURE)


def as_csv(comparison: Comparison) -> str:
  """Write the lines as CSV: plain numbers, bytes, seconds, shares of 1."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(Row._fields)
  writer.writerows(rows(comparison))
  return text.getvalue()


def as_markdown(comparison: Comparison) -> str:
  """Write the lines as a table of Markdown."""
  lines = [
    f"| {' | '.join(_HEADS)} |",
    "|---" + "|---:" * (len(_HEADS) - 1) + "|",
    *(f"| {' | '.join(_cells(row))} |" for row in rows(comparison)),
    "",
    _CAPTION,
    "",
    _proof(comparison),
  ]
  return "\n".join(lines) + "\n"


def draw(comparison: Comparison, path: str | os.PathLike[str]) -> None:
  """Draw scores against trained parameters.

  Each mark has the name of its method. Bars show the standard deviation over
  seeds. A method that trains nothing is a horizontal line.

  Args:
    comparison: what.
    path: of the PNG.
  """
  # Imported here because it is slow to import.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=_SIZE, layout="constrained", dpi=150)
  canvas = FigureCanvasAgg(figure)
  axes = figure.subplots()
  lines = rows(comparison)
  trained = sorted((r for r in lines if r.trained), key=lambda r: -r.score)
  counts = [row.trained or 0 for row in trained]
  flat = sorted((r for r in lines if not r.trained), key=lambda r: -r.score)
  for number, row in enumerate(trained):
    axes.errorbar(
      counts[number],
      row.score,
      row.deviation or 0.0,
      marker=_MARKERS[number % len(_MARKERS)],
      color="black",
      markerfacecolor="white",
      capsize=3,
      linewidth=1,
      zorder=3,
    )
  most = max([comparison.parameters, *counts])
  tops = [row.score + (row.deviation or 0.0) for row in lines]
  highest = max(filter(math.isfinite, tops), default=100.0)
  _frame(axes, min(counts, default=1), most, highest)
  whole = f"{comparison.parameters:,}"
  axes.set_xlabel(f"trained parameters of a run; the model has {whole}")
  for number, row in enumerate(flat):
    dashes = (0, (6, 2 + 2 * (number % 4)))
    axes.axhline(row.score, color="grey", linewidth=1, linestyle=dashes)
  canvas.draw()  # the axes have their size now
  left = axes.get_xlim()[0]
  points = [(row, float(row.trained or left)) for row in (*trained, *flat)]
  _label(axes, points, canvas.get_renderer())
  with files.replacing(path) as temporary:
    canvas.print_png(temporary)


def _frame(axes: Any, least: int, most: int, highest: float) -> None:
  """Set up the axes, with room for names on all sides."""
  axes.set_xscale("log")
  decades = math.log10(most / least) if most > least else 1.0
  axes.set_xlim(least / 10 ** (0.25 * decades), most * 10 ** (0.15 * decades))
  axes.set_yticks(range(0, 101, 20))
  axes.set_ylim(-6, highest + 12)  # after the ticks, which widen it
  axes.set_ylabel("score, %")
  axes.grid(alpha=0.25)


def _label(
  axes: Any, points: Sequence[tuple[Row, float]], renderer: Any
) -> "list[_Box]":
  """Write every name near its mark, where there is room.

  Args:
    axes: whose scales are final.
    points: lines, and where on the horizontal axis their names belong.
    renderer: measures text.

  Returns:
    Where the names stand.
  """
  scale = axes.figure.dpi / 72  # pixels of a point
  places = [axes.transData.transform((x, row.score)) for row, x in points]
  taken = [
    _Box(x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale)
    for (row, _), (x, y) in zip(points, places, strict=True)
    if row.trained
  ]
  taken += [  # the bars
    _Box(
      x - 3 * scale,
      axes.transData.transform((at, row.score - row.deviation))[1],
      x + 3 * scale,
      axes.transData.transform((at, row.score + row.deviation))[1],
    )
    for (row, at), (x, _) in zip(points, places, strict=True)
    if row.trained and row.deviation
  ]
  for (row, at), (x, y) in zip(points, places, strict=True):
    text = axes.annotate(
      row.method,
      (at, row.score),
      xytext=(0, 0),
      textcoords="offset points",
      fontsize=_LABEL,
      verticalalignment="bottom",
      zorder=2.5,  # below the marks, which hide the end of the leader
      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
      arrowprops=_LEADER if row.trained else None,
    )
    size = text.get_window_extent(renderer)
    width, height = size.width / scale, size.height / scale
    boxes = {
      (right, up): _Box(
        x + right * scale,
        y + up * scale,
        x + (right + width) * scale,
        y + (up + height) * scale,
      )
      for right, up in _offsets(width, height)
    }
    free = [
      offset
      for offset, one in boxes.items()
      if one.is_in(axes.bbox) and not any(map(one.meets, taken))
    ]
    offset = free[0] if free else next(iter(boxes))
    text.set_position(offset)
    taken.append(boxes[offset])
  return taken[-len(points) :]


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
  """Try places for a name, the nearest to its mark first, in points."""
  tries = [
    (right, up)
    for steps in range(-30, 31)
    for right in (7.0, -width / 2, -width - 7.0)
    for up in (steps * height / 2,)
  ]

  def distance(place: tuple[float, float]) -> float:
    right, up = place
    middle = up + height / 2
    # To the right of the mark is best.
    return math.hypot(middle, max(right, -right - width, 0)) + (right < 0)

  yield from sorted(tries, key=distance)


class _Box(NamedTuple):
  """A rectangle of pixels."""

  x0: float
  y0: float
  x1: float
  y1: float

  def meets(self, other: "_Box") -> bool:
    """Whether the two boxes overlap."""
    across = self.x0 < other.x1 and other.x0 < self.x1
    return across and self.y0 < other.y1 and other.y0 < self.y1

  def is_in(self, other: Any) -> bool:
    """Whether this box lies inside another."""
    across = other.x0 <= self.x0 and self.x1 <= other.x1
    return across and other.y0 <= self.y0 and self.y1 <= other.y1
