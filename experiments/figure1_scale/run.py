"""Score against parameters: prompt tuning, model tuning, an instruction.

  python -m experiments.figure1_scale.run --rung ladder_1=embedded:ladder_1 \
    --rung ladder_2=runs/ladder_2/lm_adaptation/checkpoint_9000

Compares the methods on every rung and group of tasks (`GROUP.gin` beside this
file), then writes `results.json`, `table.md` and `figure1.png`. What is done
already, is not done again.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from prompt_tuning.checkpoints import restore, sizes
from prompt_tuning.jobs import compare, comparison, comparison_report
from prompt_tuning.jobs.comparison import Comparison
from prompt_tuning.launch import command, flags, gin_config
from prompt_tuning.models.t5 import cost

HERE = pathlib.Path(__file__).parent
GROUPS = ("skills", "sst2", "ag_news", "dbpedia")
RANDOM, PROMPT = "random prompt", "prompt tuning"
METHODS = (
  comparison.PLAIN,
  RANDOM,
  comparison.INSTRUCTION,
  PROMPT,
  comparison.MODEL,
)
SHOWN = (
  comparison.MODEL,
  PROMPT,
  comparison.INSTRUCTION,
  comparison.PLAIN,
)
COLOURS = dict(
  zip(SHOWN, ("tab:red", "tab:green", "tab:blue", "tab:grey"), strict=True)
)


class Point(NamedTuple):
  """One rung on one group of tasks.

  Attributes:
    rung: its name.
    non_embedding: parameters of its stacks.
    group: of tasks.
    found: the comparison.
  """

  rung: str
  non_embedding: int
  group: str
  found: Comparison


def main(argv: Sequence[str]) -> int:
  """Run what is missing, then draw.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  add("--rung", action="append", required=True, metavar="NAME=CHECKPOINT")
  add("--group", nargs="+", default=list(GROUPS), choices=GROUPS)
  add("--vocabulary", default="embedded:ladder_1", help="of all rungs")
  add("--work_dir", default="runs/figure1_scale")
  add("--output_dir", default=str(HERE))
  add("--tfds_data_dir", help="prepared data of the real tasks")
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  given = parser.parse_args(argv)
  points = []
  for rung in given.rung:
    name, _, checkpoint = rung.partition("=")
    for group in given.group:
      found = run(given, name, checkpoint, group)
      if found is None:
        print("Stopped. The same command continues it.")
        return 1
      points.append(Point(name, _non_embedding(checkpoint), group, found))
  write(points, pathlib.Path(given.output_dir))
  return 0


def run(
  given: argparse.Namespace, name: str, checkpoint: str, group: str
) -> Comparison | None:
  """Compare the methods on one rung and group, unless that is done."""
  folder = pathlib.Path(given.work_dir, name, group)
  if (folder / comparison.FILE).is_file():
    return comparison.read(folder)
  print(f"== {name}, {group}", flush=True)
  argv = [
    f"--gin_file={HERE / group}.gin",
    f"--gin.MODEL_DIR={str(folder)!r}",
    f"--gin.INITIAL_CHECKPOINT_PATH={checkpoint!r}",
    f"--gin.VOCABULARY_FILE={given.vocabulary!r}",
    *(f"--gin.{binding}" for binding in given.gin),
  ]
  job = command.configure("compare", flags.parse("compare", argv, ""))
  found = compare.compare(
    job,
    given.tfds_data_dir,
    configuration=gin_config.texts(),
    say=command.say,
  )
  print(comparison_report.table(found), flush=True)
  return found


def _non_embedding(checkpoint: str) -> int:
  counts = cost.count_parameters(
    sizes.infer_config(restore.open_checkpoint(checkpoint))
  )
  return counts["encoder"] + counts["decoder"]


def write(points: Sequence[Point], folder: pathlib.Path) -> None:
  """Write the numbers, the table and the picture."""
  folder.mkdir(parents=True, exist_ok=True)
  rows = [row for point in points for row in _rows(point)]
  text = json.dumps(rows, indent=1) + "\n"
  (folder / "results.json").write_text(text, encoding="utf-8")
  (folder / "table.md").write_text(table(points), encoding="utf-8")
  draw(points, folder / "figure1.png")


def _rows(point: Point) -> list[dict[str, Any]]:
  """List a point's scores, with the rung they belong to."""
  found = point.found
  about = {
    "rung": point.rung,
    "non_embedding_parameters": point.non_embedding,
    "parameters": found.parameters,
    "group": point.group,
  }
  return [{**about, **score._asdict()} for score in found.scores]


def by_seed(found: Comparison, method: str) -> list[float]:
  """Average a method over the tasks of a group, of each seed by itself."""
  seeds = dict.fromkeys(s.seed for s in found.scores if s.method == method)
  return [
    statistics.fmean(
      s.score for s in found.scores if (s.method, s.seed) == (method, seed)
    )
    for seed in seeds
  ]


def spread(values: Sequence[float]) -> tuple[float, float]:
  """Return mean and standard deviation; 0 for a single value."""
  deviation = statistics.stdev(values) if len(values) > 1 else 0.0
  return statistics.fmean(values), deviation


def table(points: Sequence[Point]) -> str:
  """Format mean and standard deviation over seeds as Markdown."""
  head = ["tasks", "rung", "parameters", *METHODS]
  lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
  for group in dict.fromkeys(point.group for point in points):
    for point in points:
      if point.group != group:
        continue
      cells = [group, point.rung, f"{point.found.parameters:,}"]
      for method in METHODS:
        values = by_seed(point.found, method)
        cells.append(
          "{:.1f} ± {:.1f}".format(*spread(values)) if values else ""
        )
      lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def draw(points: Sequence[Point], path: pathlib.Path) -> None:
  """Draw one plot per group: score against non-embedding parameters."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  groups = list(dict.fromkeys(point.group for point in points))
  figure = Figure(figsize=(4 * len(groups), 3.6), layout="constrained")
  canvas = FigureCanvasAgg(figure)
  plots = figure.subplots(1, len(groups), squeeze=False)[0]
  for axes, group in zip(plots, groups, strict=True):
    own = sorted(
      (p for p in points if p.group == group), key=lambda p: p.non_embedding
    )
    for method in SHOWN:
      drawn = [
        (p.non_embedding, *spread(by_seed(p.found, method)))
        for p in own
        if by_seed(p.found, method)
      ]
      if drawn:
        x, y, error = zip(*drawn, strict=True)
        axes.errorbar(
          x, y, error, marker="o", capsize=3, label=method, c=COLOURS[method]
        )
    axes.set(title=group, xscale="log", ylim=(-2, 102))
    axes.set_xlabel("non-embedding parameters")
    axes.grid(alpha=0.3)
  plots[0].set_ylabel("score on the test split, %")
  plots[0].legend(fontsize="small")
  canvas.print_png(str(path))


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
