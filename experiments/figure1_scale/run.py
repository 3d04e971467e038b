"""Score against parameters: prompt tuning, model tuning, words.

  python -m experiments.figure1_scale.run --tfds_data_dir tfds

For every rung and group of tasks (`groups/GROUP.gin`), a search over learning
rates with a seed of its own, then the comparison with the rates that it chose;
writes `results.json`, `table.md`, `search.md` and `figure.png`, beside what
they have of other rungs and groups. What is done already, is not done again.
"""

import argparse
import collections
import json
import math
import pathlib
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments import scoring
from prompt_tuning.checkpoints import fingerprint, restore, sizes
from prompt_tuning.checkpoints.source import Checkpoint
from prompt_tuning.core import files
from prompt_tuning.core.schema import NUMBER, TEXT, WHOLE, Each, Maybe
from prompt_tuning.jobs import compare, comparison, comparison_report
from prompt_tuning.jobs.compare_job import CompareJob
from prompt_tuning.jobs.comparison import Comparison, Score
from prompt_tuning.launch import command, flags, gin_config
from prompt_tuning.models.t5 import cost

HERE = pathlib.Path(__file__).parent
RESULTS, TABLE, SEARCH, FIGURE = (
  *("results.json", "table.md", "search.md", "figure.png"),
)
# In the folder of a comparison: what it was asked for.
ASKED = "asked.json"
GROUPS = ("skills", "held_out", "topics", "reviews", "sentences")
# The first two are made by one command, see experiments/ladder.
RUNGS = (
  "tall_1=runs/tall_1/lm_adaptation/checkpoint_18000",
  "tall_2=runs/tall_2/lm_adaptation/checkpoint_18000",
  "tall_3=embedded:tall_3",
)
PROMPT, RANDOM = "prompt tuning", "random prompt"
# What is tried for each: half a decade apart, around what recipes say.
RATES: Mapping[str, tuple[float, ...]] = {
  PROMPT: (0.1, 0.3, 1.0),
  comparison.MODEL: (0.001, 0.003, 0.01),
}
_MACROS = {PROMPT: "PROMPT_RATES", comparison.MODEL: "MODEL_RATES"}
# Of the search; no score in the table is of it.
SEARCH_SEED = 3
_SEARCH = (
  f"SEEDS=({SEARCH_SEED},)",
  *("MULTITASK_TUNING=None", "INSTRUCTED={}", "CONTEXTS=()", "NAMED={}"),
  *("TEST_SPLIT=%EVAL_SPLIT", "TEST_EXAMPLES=%EVALUATOR_NUM_EXAMPLES"),
)
# Of prompts and of models in the search: the order of rates shows early.
_SEARCH_STEPS: Mapping[str, tuple[int, int]] = {
  "skills": (100, 200),
  "held_out": (100, 200),
  **dict.fromkeys(("topics", "reviews", "sentences"), (400, 200)),
}
DESIGN, FEW = "prompt design", "4-shot in context"
# Instructions of skills are prompt design, too: words, and nothing trains.
_SAME = {comparison.INSTRUCTION: DESIGN}
METHODS = (
  *(comparison.PLAIN, RANDOM, DESIGN, FEW, PROMPT),
  *(comparison.MODEL, comparison.MULTITASK),
)
_TUNED = (comparison.MODEL, comparison.MULTITASK)
DRAWN = (*(comparison.MULTITASK, comparison.MODEL, PROMPT, DESIGN, FEW),)
_MARKERS, _LINES = "sDo^v", ("-", "--", "-", ":", "-.")
# How JSON has a `Point`.
_POINT = {
  **{"rung": TEXT, "group": TEXT},
  **{"non_embedding_parameters": WHOLE, "parameters": WHOLE},
  "search": Each(Each(NUMBER)),
  "rates": Each(NUMBER),
  "steps": Each(WHOLE),
  "scores": [
    {"method": TEXT, "task": TEXT, "seed": Maybe(WHOLE), "score": NUMBER}
  ],
}


class Point(NamedTuple):
  """One rung on one group of tasks.

  Attributes:
    rung: its name.
    group: of tasks.
    non_embedding_parameters: of its stacks.
    parameters: all.
    search: method -> rate, as text -> development score of the search.
    rates: method -> rate that was chosen.
    steps: method -> steps of training.
    scores: of the comparison.
  """

  rung: str
  group: str
  non_embedding_parameters: int
  parameters: int
  search: Mapping[str, Mapping[str, float]]
  rates: Mapping[str, float]
  steps: Mapping[str, int]
  scores: tuple[Score, ...]


def main(argv: Sequence[str]) -> int:
  """Run what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  options(parser)
  given = parser.parse_args(argv)
  folder = pathlib.Path(given.output_dir)
  points = read(folder) if (folder / RESULTS).is_file() else []
  for rung in given.rung:
    opened(rung.partition("=")[2])
  for group in given.group:
    for rung in given.rung:
      name, _, checkpoint = rung.partition("=")
      point = run(given, name, checkpoint, group)
      if point is None:
        print("Stopped. The same command continues it.")
        return 1
      points = merged(points, point)
      write(points, folder)
  print(report(points))
  return 0


def options(parser: argparse.ArgumentParser) -> None:
  """Add the flags that all searches and comparisons share."""
  add = parser.add_argument
  add(
    "--rung",
    nargs="+",
    type=scoring.named_folder,
    default=list(RUNGS),
    metavar="NAME=CHECKPOINT",
  )
  add("--group", nargs="+", default=list(GROUPS), choices=GROUPS)
  add("--vocabulary", default="embedded:ladder_1", help="of all rungs")
  add("--work_dir", default="runs/figure1_scale")
  add("--output_dir", default=str(HERE))
  add("--tfds_data_dir", help="prepared data of the real tasks")
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")


def opened(checkpoint: str) -> Checkpoint:
  """Open the checkpoint of a rung.

  Args:
    checkpoint: the rung's.

  Returns:
    It, without its arrays.

  Raises:
    SystemExit: there is none.
  """
  try:
    return restore.open_checkpoint(checkpoint)
  except (OSError, ValueError) as error:
    remedy = "Give the checkpoint of every rung: --rung NAME=CHECKPOINT."
    raise scoring.in_one_line(error, remedy) from error


def run(
  given: argparse.Namespace, rung: str, checkpoint: str, group: str
) -> Point | None:
  """Search for rates, then compare; None where it was stopped."""
  folder = pathlib.Path(given.work_dir, rung, group)
  found = search(given, checkpoint, group, RATES, folder / "search")
  if found is None:
    return None
  rates = chosen(found)
  best = rate_bindings(rates)
  compared, _ = compare_with(given, checkpoint, group, best, folder / "compare")
  if compared is None:
    return None
  counts = cost.count_parameters(sizes.infer_config(opened(checkpoint)))
  return Point(
    rung,
    group,
    counts["encoder"] + counts["decoder"],
    compared.parameters,
    {
      name: {str(rate): score for rate, score in of_rates.items()}
      for name, of_rates in found.items()
    },
    rates,
    dict(compared.steps),
    tuple(
      s._replace(method=_SAME.get(s.method, s.method)) for s in compared.scores
    ),
  )


def search(
  given: argparse.Namespace,
  checkpoint: str,
  group: str,
  rates: Mapping[str, Sequence[float]],
  folder: pathlib.Path,
) -> dict[str, dict[float, float]] | None:
  """Score learning rates on the development splits of a group.

  Args:
    given: the command line.
    checkpoint: the rung's.
    group: of tasks.
    rates: method -> rates to try.
    folder: for the trainings.

  Returns:
    See `development`; None where it was stopped.
  """
  tried = tuple(f"{_MACROS[name]}={tuple(rates[name])}" for name in rates)
  bindings = (*_SEARCH, *search_steps(group), *tried)
  found, job = compare_with(given, checkpoint, group, bindings, folder)
  return None if found is None else development(job, found)


def search_steps(group: str) -> tuple[str, str]:
  """Return how long the trainings of a search are, as settings in gin."""
  prompts, models = _SEARCH_STEPS[group]
  return f"TRAIN_STEPS_RELATIVE={prompts}", f"MODEL_STEPS={models}"


def arguments(
  group: str,
  checkpoint: str,
  vocabulary: str,
  folder: pathlib.Path,
  bindings: Sequence[str],
) -> list[str]:
  """Write the arguments of `compare`.

  Args:
    group: of tasks.
    checkpoint: the rung's.
    vocabulary: the rung's.
    folder: for the trainings.
    bindings: further settings in gin.

  Returns:
    The words after `prompt-tuning compare`.
  """
  return [
    f"--gin_file={HERE / 'ladder.gin'}",
    f"--gin_file={HERE / 'groups' / group}.gin",
    f"--gin.MODEL_DIR={str(folder)!r}",
    f"--gin.INITIAL_CHECKPOINT_PATH={checkpoint!r}",
    f"--gin.VOCABULARY_FILE={vocabulary!r}",
    *(f"--gin.{binding}" for binding in bindings),
  ]


def rate_bindings(rates: Mapping[str, float]) -> tuple[str, ...]:
  """Write one learning rate of each method as settings in gin."""
  return tuple(f"{_MACROS[name]}=({rate},)" for name, rate in rates.items())


def compare_with(
  given: argparse.Namespace,
  checkpoint: str,
  group: str,
  bindings: Sequence[str],
  folder: pathlib.Path,
) -> tuple[Comparison | None, CompareJob]:
  """Compare, unless that is done.

  Args:
    given: the command line.
    checkpoint: the rung's.
    group: of tasks.
    bindings: settings in gin.
    folder: for the trainings.

  Returns:
    The comparison, None where it was stopped; and what it was configured to do.

  Raises:
    SystemExit: there is no such checkpoint, or the folder has another
      comparison, or a file that cannot be read.
  """
  opened(checkpoint)  # before gin, which would say where it was called
  argv = arguments(
    group, checkpoint, given.vocabulary, folder, (*bindings, *given.gin)
  )
  job = command.configure("compare", flags.parse("compare", argv, ""))
  insist_on_same(folder, asked(checkpoint))
  if (folder / comparison.FILE).is_file():
    return _read_comparison(folder), job
  print(f"== {folder}", flush=True)
  found = compare.compare(
    job,
    given.tfds_data_dir,
    configuration=gin_config.texts(),
    say=command.say,
  )
  print(comparison_report.table(found), flush=True)
  return found, job


def _read_comparison(folder: pathlib.Path) -> Comparison:
  """Read a comparison that is done."""
  try:
    return comparison.read(folder)
  except (OSError, ValueError) as error:
    raise scoring.in_one_line(error, "Choose another --work_dir.") from error


def asked(checkpoint: str) -> dict[str, str]:
  """Describe what was configured last, wherever its files lie.

  Args:
    checkpoint: the rung's.

  Returns:
    Setting -> value; and the fingerprint of the weights.
  """
  weights = opened(checkpoint).params
  text = re.sub(r"\\\n\s*", "", gin_config.config_text())
  settings = [line.partition(" = ") for line in text.splitlines()]
  known = {name: value for name, equals, value in settings if equals}
  for name in ("MODEL_DIR", "INITIAL_CHECKPOINT_PATH"):
    known.pop(name)
  return {"weights": fingerprint.of_leaves(weights), **known}


def insist_on_same(folder: pathlib.Path, settings: Mapping[str, str]) -> None:
  """Refuse a folder of a comparison with other settings.

  Args:
    folder: for the trainings; what it is for is written there.
    settings: see `asked`.

  Raises:
    SystemExit: it holds another comparison; the message names a difference.
      Or what is written there cannot be read.
  """
  path = folder / ASKED
  if not path.is_file() and not (folder / comparison.FILE).is_file():
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(settings, indent=1) + "\n")
    return
  before: dict[str, str] = {}
  if path.is_file():
    what = "the settings of a comparison"
    remedy = "Choose another --work_dir."
    before = scoring.read_json(path, what, Each(TEXT), remedy)
  for name in sorted(before.keys() | settings.keys()):
    if before.get(name) != settings.get(name):
      raise SystemExit(
        f"{folder} has a comparison with {name} = {before.get(name)}; this one "
        f"has {settings.get(name)}. Choose another --work_dir."
      )


def development(
  job: CompareJob, searched: Comparison
) -> dict[str, dict[float, float]]:
  """Read the scores of a search.

  Args:
    job: what searched.
    searched: what it found.

  Returns:
    Method -> learning rate -> mean score over the tasks.
  """
  trainings = {PROMPT: job.trainings[0], comparison.MODEL: job.models}
  found: dict[str, dict[float, float]] = {}
  for name, training in trainings.items():
    assert training is not None, "ladder.gin has both"
    titles = job.run_titles(training)
    runs = training.experiment.runs
    for title, tried in zip(titles, runs, strict=True):
      of_rates = found.setdefault(name, {})
      of_rates[tried.learning_rate] = searched.mean(title)
  return found


def chosen(
  found: Mapping[str, Mapping[float, float]],
) -> dict[str, float]:
  """Choose the rate of the best score, of equal ones the smallest.

  Args:
    found: see `development`.

  Returns:
    Method -> learning rate.
  """
  return {
    name: min(of_rates, key=lambda rate: (-of_rates[rate], rate))
    for name, of_rates in found.items()
  }


def merged(points: Sequence[Point], point: Point) -> list[Point]:
  """Put a point among others, in the place of an older one of its kind.

  Args:
    points: of any rungs and groups.
    point: the new one.

  Returns:
    All of them: by groups, and within a group from small rungs to large ones.

  Raises:
    SystemExit: the older one is of something else, not a repetition.
  """
  kept = []
  for other in points:
    if (other.rung, other.group) == (point.rung, point.group):
      insist_on_repetition(other, point)
    else:
      kept.append(other)
  groups = [*GROUPS, *dict.fromkeys(p.group for p in points)]
  return sorted(
    [*kept, point],
    key=lambda p: (groups.index(p.group), p.non_embedding_parameters),
  )


def insist_on_repetition(old: Point, new: Point) -> None:
  """Insist that points differ in scores and in what a search found only.

  Args:
    old: that has results already.
    new: of the same rung and group.

  Raises:
    SystemExit: their sizes, steps, methods, tasks or seeds differ; the message
      names a difference.
  """
  before, now = _made_of(old), _made_of(new)
  for name in {**before, **now}:
    if before.get(name) != now.get(name):
      raise SystemExit(
        f"{RESULTS} has {old.rung} on {old.group} with {name} = "
        f"{before.get(name)}; the new point has {now.get(name)}. Give another "
        f"--output_dir, or remove the point from {RESULTS} to replace it."
      )


def _made_of(point: Point) -> dict[str, int]:
  """Count what does not change when a point is made again."""
  scores = [
    f"scores of {s.method} on {s.task} with seed {s.seed}" for s in point.scores
  ]
  return {
    "non_embedding_parameters": point.non_embedding_parameters,
    "parameters": point.parameters,
    **{f"steps of {name}": number for name, number in point.steps.items()},
    **collections.Counter(scores),
  }


def write(points: Sequence[Point], folder: pathlib.Path) -> None:
  """Write numbers, tables and the picture."""
  content = [
    {**point._asdict(), "scores": [s._asdict() for s in point.scores]}
    for point in points
  ]
  searches = search_table(points)
  scoring.write(
    content,
    lambda _: report(points),
    lambda _, path: draw(points, path),
    folder,
  )
  (folder / SEARCH).write_text(searches, encoding="utf-8")


def read(folder: pathlib.Path) -> list[Point]:
  """Read what `write` wrote.

  Args:
    folder: of the results.

  Returns:
    The points.

  Raises:
    SystemExit: it is not there, or something else.
  """
  content = scoring.read_json(
    folder / RESULTS,
    "scores of rungs",
    [_POINT],
    "Put the right file there, or give another --output_dir.",
  )
  points = []
  for row in content:
    scores = [Score(*(s[k] for k in Score._fields)) for s in row["scores"]]
    values = {**row, "scores": tuple(scores)}
    points.append(Point(*(values[name] for name in Point._fields)))
  return points


def by_seed(point: Point, method: str, task: str | None = None) -> list[float]:
  """Average a method over the tasks of a group, of each seed by itself.

  Args:
    point: a rung and group.
    method: one of `METHODS`.
    task: None for all of the group.

  Returns:
    A score of each seed, in percent; none where the method did not run.
  """
  own = [
    score
    for score in point.scores
    if score.method == method and task in (None, score.task)
  ]
  return [
    statistics.fmean(score.score for score in own if score.seed == seed)
    for seed in dict.fromkeys(score.seed for score in own)
  ]


def spread(values: Sequence[float]) -> tuple[float, float]:
  """Return mean and standard deviation; 0 for a single value."""
  deviation = statistics.stdev(values) if len(values) > 1 else 0.0
  return statistics.fmean(values), deviation


def report(points: Sequence[Point]) -> str:
  """Format the scores of groups and of tasks, and the gaps, as Markdown."""
  return "\n".join((table(points), task_table(points), gap_table(points)))


def table(points: Sequence[Point]) -> str:
  """Format mean and standard deviation over seeds as Markdown."""
  rows = [["tasks", "rung", "parameters", *METHODS]]
  for point in points:
    parameters = f"{point.parameters:,}"
    rows.append([point.group, point.rung, parameters, *_cells(point)])
  return markdown(rows)


def task_table(points: Sequence[Point]) -> str:
  """Format the same for each task by itself, its rungs one below the other."""
  rows = [["tasks", "task", "rung", *METHODS]]
  rungs: dict[tuple[str, str], list[list[str]]] = {}
  for point in points:
    for task in dict.fromkeys(score.task for score in point.scores):
      name = task.removeprefix("skill_").removeprefix("figure1_")
      cells = [point.group, name, point.rung, *_cells(point, task)]
      rungs.setdefault((point.group, task), []).append(cells)
  return markdown([*rows, *(row for own in rungs.values() for row in own)])


def gap(point: Point, method: str) -> tuple[float, float]:
  """Measure how far prompts are behind tuned models.

  Args:
    point: a rung and group.
    method: of model tuning, which ran there.

  Returns:
    The difference, and its deviation: that of a difference of independent
    scores.
  """
  mean, deviation = spread(by_seed(point, method))
  behind, other = spread(by_seed(point, PROMPT))
  return mean - behind, math.hypot(deviation, other)


def gap_table(points: Sequence[Point]) -> str:
  """Format how far prompts are behind models, as Markdown.

  A share is of the points by which model tuning is above the frozen model.
  """
  heads = ["tasks", "rung", f"{comparison.MODEL} - {PROMPT}"]
  heads += [f"{comparison.MULTITASK} - {PROMPT}", "share that prompts reach"]
  rows = [heads]
  for point in points:
    cells = []
    for method in _TUNED:
      ran = bool(by_seed(point, method))
      cells.append("{:.1f} ± {:.1f}".format(*gap(point, method)) if ran else "")
    frozen, prompts, models = (
      statistics.fmean(by_seed(point, method))
      for method in (comparison.PLAIN, PROMPT, comparison.MODEL)
    )
    share = f"{(prompts - frozen) / (models - frozen):.0%}"
    rows.append([point.group, point.rung, *cells, share])
  return markdown(rows)


def _cells(point: Point, task: str | None = None) -> list[str]:
  """Format every method's mean and deviation; empty where it did not run."""
  cells = []
  for method in METHODS:
    values = by_seed(point, method, task)
    text = f"{statistics.fmean(values):.1f}" if values else ""
    if len(values) > 1:
      text += f" ± {statistics.stdev(values):.1f}"
    cells.append(text)
  return cells


def search_table(points: Sequence[Point]) -> str:
  """Format the searches, what they chose, and how long models trained."""
  rows = [["tasks", "rung", "method", "rate: score", "chosen", "steps"]]
  for point in points:
    for method, of_rates in point.search.items():
      if not of_rates:
        continue
      tried = ", ".join(f"{r}: {score:.1f}" for r, score in of_rates.items())
      steps = f"{point.steps[method]:,}"
      cells = [point.group, point.rung, method, tried]
      rows.append([*cells, str(point.rates[method]), steps])
  return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
  """Format rows of cells, the first of which are heads, as Markdown."""
  lines = ["| " + " | ".join(cells) + " |" for cells in rows]
  lines.insert(1, "|---" * len(rows[0]) + "|")
  return "\n".join(lines) + "\n"


def draw(points: Sequence[Point], path: pathlib.Path) -> None:
  """Draw scores and gaps against parameters, a column for each group."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  groups = list(dict.fromkeys(point.group for point in points))
  wide = 3.4 * len(groups) + 2.2
  figure = Figure(figsize=(wide, 5.6), layout="constrained")
  canvas = FigureCanvasAgg(figure)
  plots = figure.subplots(
    *(2, len(groups)),
    squeeze=False,
    sharex="col",
    gridspec_kw={"height_ratios": (3, 2)},
  )
  shown: dict[str, Any] = {}
  for (above, below), group in zip(plots.T, groups, strict=True):
    own = sorted(
      (point for point in points if point.group == group),
      key=lambda point: point.non_embedding_parameters,
    )
    for number, method in enumerate(DRAWN):
      ran = [point for point in own if by_seed(point, method)]
      if not ran:
        continue
      scores = [spread(by_seed(point, method)) for point in ran]
      shown[method] = _line(above, ran, scores, number)
      if method in _TUNED:
        _line(below, ran, [gap(point, method) for point in ran], number)
    above.set(title=group)
    above.grid(alpha=0.3)
    below.grid(alpha=0.3)
    below.axhline(0, color="k", linewidth=0.8)
    _name_sizes(below, own)
  plots[0, 0].set_ylabel("score, %, mean ± sd")
  plots[1, 0].set_ylabel("points above prompts")
  # Scores share one scale, with whole error bars; every gap has its own.
  limits = [axes.get_ylim() for axes in plots[0]]
  lows, highs = zip(*limits, strict=True)
  for axes in plots[0]:
    axes.set_ylim(min(*lows, -2), max(*highs, 102))
  figure.legend(
    list(shown.values()),
    list(shown),
    fontsize="small",
    loc="outside right upper",
  )
  canvas.print_png(str(path))


def _line(
  axes: Any,
  points: Sequence[Point],
  spreads: Sequence[tuple[float, float]],
  number: int,
) -> Any:
  """Draw means and deviations of a method, which has a number of its own."""
  means, deviations = zip(*spreads, strict=True)
  return axes.errorbar(
    [point.non_embedding_parameters for point in points],
    means,
    deviations,
    marker=_MARKERS[number],
    linestyle=_LINES[number],
    markerfacecolor="none",
    capsize=3,
    color=f"C{number}",
  )


def _name_sizes(axes: Any, points: Sequence[Point]) -> None:
  """Write the sizes of rungs below a column."""
  from matplotlib.ticker import NullLocator

  ticks = [p.non_embedding_parameters for p in points]
  axes.set(xscale="log", xlabel="non-embedding parameters")
  axes.margins(x=0.15)
  axes.set_xticks(ticks, [f"{tick / 1e6:.2g}M" for tick in ticks])
  axes.xaxis.set_minor_locator(NullLocator())


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
