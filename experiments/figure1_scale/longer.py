"""Does Figure 1 stop its trainings too early?

  python -m experiments.figure1_scale.longer --rung tall_3=embedded:tall_3 ...

Trains the prompts and the models of a point again, with its learning rates and
one of its seeds, for up to twice the steps. Writes `longer.json` and
`longer.md`, beside what they have of other points. What is done already, is not
done again.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.figure1_scale import run as figure1
from prompt_tuning.jobs import comparison
from prompt_tuning.jobs.comparison import Score

HERE = pathlib.Path(__file__).parent
RESULTS, TABLE = "longer.json", "longer.md"
SEED, TIMES = 0, 2
METHODS = (figure1.PROMPT, comparison.MODEL)
_SETTINGS = (
  f"SEEDS=({SEED},)",
  *("MULTITASK_TUNING=None", "INSTRUCTED={}", "CONTEXTS=()", "NAMED={}"),
)


def main(argv: Sequence[str]) -> int:
  """Train what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  figure1.options(parser)
  given = parser.parse_args(argv)
  out = pathlib.Path(given.output_dir)
  points = {(p.rung, p.group): p for p in figure1.read(HERE)}
  for group in given.group:
    for rung in given.rung:
      name, _, checkpoint = rung.partition("=")
      before = points[name, group]
      bindings = (
        *_SETTINGS,
        *steps(before),
        *figure1.rate_bindings(before.rates),
      )
      folder = pathlib.Path(given.work_dir, name, group, "longer")
      found, _ = figure1.compare_with(
        given, checkpoint, group, bindings, folder
      )
      if found is None:
        print("Stopped. The same command continues it.")
        return 1
      new = row(before, found.scores, found.steps)
      write(merged(read(out), new), out)
  print(table(read(out)))
  return 0


def steps(point: figure1.Point) -> tuple[str, str]:
  """Return how long trainings are at most, as settings in gin."""
  prompts, models = (TIMES * point.steps[method] for method in METHODS)
  return f"TRAIN_STEPS_RELATIVE={prompts}", f"MODEL_STEPS={models}"


def row(
  before: figure1.Point, scores: Sequence[Score], taken: Mapping[str, int]
) -> dict[str, Any]:
  """Put the scores of one seed beside those of fewer steps.

  Args:
    before: the point of Figure 1.
    scores: of the longer trainings.
    taken: method -> steps that they took.

  Returns:
    Of every method, steps and mean scores of the group, before and now.
  """

  def mean(found: Sequence[Score], method: str) -> float:
    return statistics.fmean(
      s.score for s in found if (s.method, s.seed) == (method, SEED)
    )

  return {
    "group": before.group,
    "rung": before.rung,
    "methods": {
      method: {
        "steps": [before.steps[method], taken[method]],
        "scores": [mean(before.scores, method), mean(scores, method)],
      }
      for method in METHODS
    },
  }


def merged(
  rows: Sequence[Mapping[str, Any]], new: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
  """Put a row in the place of an older one of its point."""
  kept = [
    r for r in rows if (r["rung"], r["group"]) != (new["rung"], new["group"])
  ]
  return sorted(
    [*kept, new], key=lambda r: (figure1.GROUPS.index(r["group"]), r["rung"])
  )


def write(rows: Sequence[Mapping[str, Any]], folder: pathlib.Path) -> None:
  """Write the numbers and the table."""
  folder.mkdir(parents=True, exist_ok=True)
  text = json.dumps(rows, indent=1) + "\n"
  (folder / RESULTS).write_text(text, encoding="utf-8")
  (folder / TABLE).write_text(table(rows), encoding="utf-8")


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Read what `write` wrote; nothing, where it never did."""
  path = folder / RESULTS
  if not path.is_file():
    return []
  rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
  return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Format steps and scores, and the gaps, as Markdown."""
  heads = ["tasks", "rung", *METHODS, f"{METHODS[1]} - {METHODS[0]}"]
  lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
  for found in rows:
    for k in (0, 1):
      values = [found["methods"][method] for method in METHODS]
      cells = [
        f"{value['scores'][k]:.1f} ({value['steps'][k]:,} steps)"
        for value in values
      ]
      gap = values[1]["scores"][k] - values[0]["scores"][k]
      cells = [found["group"], found["rung"], *cells, f"{gap:.1f}"]
      lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
