"""Score what a sweep trained on other tasks than those that it was trained on.

What the folders `table1_domain_shift` and `table2_paraphrase` have in common.
Every cell of such a sweep is one seed of prompt tuning or of model tuning; all
of its runs answer several evaluation sets, zero-shot.
"""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments import scoring
from experiments.scoring import Scoring

TUNINGS = ("model", "prompt")
_AXIS = "@tuning"
_ASIDE = 0.36  # between the middles of two bars of one set


class Cell(NamedTuple):
  """A trained cell.

  Attributes:
    folder: of its files.
    tuning: `prompt` or `model`.
    task: that it was trained on.
    seed: of the training.
  """

  folder: pathlib.Path
  tuning: str
  task: str
  seed: int


def cells(sweep: str) -> list[Cell]:
  """Describe the cells of a sweep that is done.

  Args:
    sweep: its MODEL_DIR.

  Returns:
    The cells.

  Raises:
    SystemExit: the sweep is not done, or has no axis of tunings.
  """
  found = []
  for folder in scoring.cells(sweep, [_AXIS]):
    content = scoring.read_cell(folder)
    (run,) = content["runs"]
    tuning = content["values"][_AXIS]
    found.append(Cell(folder, tuning, run["task"], run["seed"]))
  return found


def score(
  trained: Sequence[Cell], sets: Mapping[str, Sequence[str]], scored: Scoring
) -> list[dict[str, Any]]:
  """Score cells, all prompts of a task side by side.

  Args:
    trained: the cells.
    sets: trained task -> tasks to score on.
    scored: with what.

  Returns:
    A row for every cell and set: both, and the metrics.
  """
  rows = []
  for task, names in sets.items():
    own = [cell for cell in trained if cell.task == task]
    prompts = [cell for cell in own if cell.tuning == "prompt"]
    models = [[cell] for cell in own if cell.tuning == "model"]
    for group in filter(None, [prompts, *models]):
      rows += _score_group(group, names, scored)
      print(*rows[-len(names) :], sep="\n", flush=True)
  return rows


def _score_group(
  group: Sequence[Cell], names: Sequence[str], scored: Scoring
) -> list[dict[str, Any]]:
  """Score cells that one frozen model answers, or one tuned one."""
  folders = [cell.folder for cell in group]
  return [
    {
      "trained_on": group[result.job.run].task,
      "tuning": group[result.job.run].tuning,
      "seed": group[result.job.run].seed,
      "scored_on": result.job.dataset.task.name,
      "examples": len(result.job.dataset.examples),
      "metrics": {name: round(v, 4) for name, v in result.metrics.items()},
    }
    for result in scoring.results(folders, names, scored)
  ]


def values(
  rows: Sequence[Mapping[str, Any]], trained: str, scored: str, tuning: str
) -> dict[str, list[float]]:
  """Collect the metrics of all seeds.

  Args:
    rows: see `score`.
    trained: task that was trained on.
    scored: task that was scored on.
    tuning: `prompt` or `model`.

  Returns:
    Metric -> values, one per seed.
  """
  collected: dict[str, list[float]] = {}
  wanted = (trained, scored, tuning)
  for row in rows:
    if (row["trained_on"], row["scored_on"], row["tuning"]) == wanted:
      for metric, value in row["metrics"].items():
        collected.setdefault(metric, []).append(value)
  return collected


def spelled(numbers: Sequence[float]) -> str:
  """Spell mean and standard deviation.

  Args:
    numbers: one per seed, at least two.
  """
  return f"{statistics.fmean(numbers):.1f} ± {statistics.stdev(numbers):.1f}"


def draw(
  bars: Mapping[str, Mapping[str, Sequence[float]]],
  label: str,
  path: pathlib.Path,
  *,
  paper: Mapping[str, Sequence[str]],
  commoner: Mapping[str, float] | None = None,
) -> None:
  """Draw what every tuning scores on every set: seeds, mean, deviation.

  Args:
    bars: set -> tuning -> values, one per seed.
    label: what the values are.
    path: of the PNG.
    paper: set -> what the paper says of each tuning, as `mean ± deviation`;
      empty where it says nothing.
    commoner: set -> what always answering the commoner class scores.
  """
  # Not at the top: slow to import.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4, 3.6), layout="constrained")
  canvas, plot = FigureCanvasAgg(figure), figure.subplots()
  for number, tuning in enumerate(TUNINGS):
    for place, of_tunings in enumerate(bars.values()):
      numbers = of_tunings[tuning]
      at = place + (number - 0.5) * _ASIDE
      drawn = plot.bar(
        at,
        statistics.fmean(numbers),
        0.32,
        yerr=statistics.stdev(numbers),
        capsize=4,
        color="0.85" if number else "w",
        hatch="" if number else "//",
        edgecolor="k",
        label=None if place else f"{tuning} tuning",
      )
      plot.plot([at] * len(numbers), numbers, "k.", markersize=4)
      if not any(numbers):  # or it looks as if nothing was measured
        plot.bar_label(drawn, fmt="%.0f", padding=3, fontsize="small")
  printed = [
    (place + (number - 0.5) * _ASIDE, float(text.split()[0]))
    for place, name in enumerate(bars)
    for number, text in enumerate(paper[name])
    if text
  ]
  plot.plot(
    *zip(*printed, strict=True),
    "kD",
    markerfacecolor="none",
    label="the paper, T5 XXL",
  )
  plot.set_ylim(0, 100)
  for place, value in enumerate((commoner or {}).values()):
    name = "" if place else "commoner class"
    plot.hlines(
      value, place - 0.42, place + 0.42, "k", linestyles="dotted", label=name
    )
  plot.set_xticks(range(len(bars)), bars)
  plot.set_ylabel(label)
  plot.grid(alpha=0.3, axis="y")
  # Above: in the plot it covers bars, which may be anywhere.
  figure.legend(fontsize="small", loc="outside upper center", ncols=4)
  canvas.print_png(str(path))
