"""Score what a sweep trained on other tasks than those that it was trained on.

What the folders `table1_domain_shift` and `table2_paraphrase` have in common.
Every cell of such a sweep is one seed of prompt tuning or of model tuning; all
of its runs answer several evaluation sets, zero-shot.
"""

import argparse
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.infer.evaluate import Evaluator, Job
from prompt_tuning.jobs import feed, inference, sweep_cell
from prompt_tuning.launch import command, flags

RESULTS, TABLE, FIGURE = "results.json", "table.md", "figure.png"
TUNINGS = ("model", "prompt")
_ASIDE = 0.36  # between the middles of two bars of one set


class Cell(NamedTuple):
  """A trained cell.

  Attributes:
    folder: its.
    tuning: `prompt` or `model`.
    task: that it was trained on.
    seed: of the training.
  """

  folder: str
  tuning: str
  task: str
  seed: int


class Model(NamedTuple):
  """What all cells were trained with.

  Attributes:
    checkpoint: of the frozen model.
    vocabulary: its.
    data_dir: TFDS's.
    examples: to score, of every set; None for all.
  """

  checkpoint: str
  vocabulary: str
  data_dir: str | None
  examples: int | None


def arguments(
  argv: Sequence[str], description: str | None, name: str
) -> tuple[str, Model]:
  """Read the command line of an experiment.

  Args:
    argv: its words.
    description: of the experiment.
    name: of its folder.

  Returns:
    MODEL_DIR of the sweep, and what its cells were trained with.
  """
  parser = argparse.ArgumentParser(description=description)
  parser.add_argument("--sweep", default=f"runs/{name}")
  parser.add_argument("--checkpoint", default="embedded:ladder_1")
  parser.add_argument("--vocabulary", default="embedded:ladder_1")
  parser.add_argument("--tfds_data_dir")
  parser.add_argument("--examples", type=int, default=256)
  given = parser.parse_args(argv)
  return given.sweep, Model(
    given.checkpoint, given.vocabulary, given.tfds_data_dir, given.examples
  )


def cells(sweep: str) -> list[Cell]:
  """List the cells of a sweep that are done.

  Args:
    sweep: its MODEL_DIR.

  Returns:
    The cells.
  """
  found = []
  for folder in sorted(pathlib.Path(sweep, "cells").iterdir()):
    if not sweep_cell.is_whole(folder):  # a kill left it
      continue
    content = sweep_cell.read(folder)
    (run,) = content["runs"]
    tuning = content["values"]["@tuning"]
    found.append(Cell(str(folder), tuning, run["task"], run["seed"]))
  return found


def score(
  trained: Sequence[Cell], sets: Mapping[str, Sequence[str]], model: Model
) -> list[dict[str, Any]]:
  """Score cells, all prompts of a task side by side.

  Args:
    trained: the cells.
    sets: trained task -> tasks to score on.
    model: that they were trained with.

  Returns:
    A row for every cell and set: both, and the metrics.
  """
  rows = []
  for task, names in sets.items():
    own = [cell for cell in trained if cell.task == task]
    prompts = [cell for cell in own if cell.tuning == "prompt"]
    models = [[cell] for cell in own if cell.tuning == "model"]
    for group in filter(None, [prompts, *models]):
      rows += _score_group(group, names, model)
      print(*rows[-len(names) :], sep="\n", flush=True)
  return rows


def _score_group(
  group: Sequence[Cell], names: Sequence[str], model: Model
) -> list[dict[str, Any]]:
  """Score cells that one frozen model answers, or one tuned one."""
  folders = [cell.folder for cell in group]
  argv = [
    "--gin_file=models/of_checkpoint.gin",
    "--gin_file=runs/prompt_eval.gin",
    "--gin_file=meshes/single.gin",
    "--gin.ACTIVATION_DTYPE='float32'",
    f"--gin.INITIAL_CHECKPOINT_PATH={model.checkpoint!r}",
    "--gin.CHECKPOINT_PATH=%INITIAL_CHECKPOINT_PATH",
    f"--gin.VOCABULARY_FILE={model.vocabulary!r}",
    f"--gin.PROMPT_FILE={folders if len(folders) > 1 else folders[0]!r}",
    f"--gin.MIXTURE_OR_TASK_NAME={tuple(names)!r}",
    "--gin.EVAL_OUTPUT_DIR=''",
    f"--gin.EVALUATOR_NUM_EXAMPLES={model.examples}",
  ]
  job = command.configure("eval", flags.parse("eval", argv, ""))
  settings = job.evaluation
  ready = inference.prepare(job, settings.dataset)
  sets = [
    dataset
    for name in names
    for dataset in feed.eval_sets(
      settings.dataset, name, model.data_dir, settings.num_examples
    )
  ]
  jobs = [Job(one, run) for one in sets for run in range(len(group))]
  results = Evaluator(
    ready.predictor,
    jobs,
    by=settings.ways,
    length=settings.max_decode_length,
    method=settings.decoder,
  )()
  return [
    {
      "trained_on": group[result.job.run].task,
      "tuning": group[result.job.run].tuning,
      "seed": group[result.job.run].seed,
      "scored_on": result.job.dataset.task.name,
      "examples": len(result.job.dataset.examples),
      "metrics": {name: round(v, 4) for name, v in result.metrics.items()},
    }
    for result in results
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


def write(folder: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Write results as JSON.

  Args:
    folder: of the experiment.
    rows: see `score`.
  """
  text = json.dumps(list(rows), indent=1) + "\n"
  (folder / RESULTS).write_text(text, encoding="utf-8")


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
      plot.bar(
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
