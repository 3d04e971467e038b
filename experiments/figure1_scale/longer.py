"""Does Figure 1 stop its trainings too early?

  python -m experiments.figure1_scale.longer --rung tall_3=embedded:tall_3 ...

Trains the prompts and the models of a point again, with its learning rates and
one of its seeds, for up to twice the steps that they took. Writes `longer.json`
and `longer.md`, beside what they have of other points. What is done already, is
not done again.
"""

import argparse
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence

from experiments.figure1_scale import run as figure1
from experiments.figure1_scale.limits import Check, Row
from prompt_tuning.jobs import comparison
from prompt_tuning.jobs.comparison import Score

SEED, TIMES = 0, 2
METHODS = (figure1.PROMPT, comparison.MODEL)
_SETTINGS = (
  f"SEEDS=({SEED},)",
  *("MULTITASK_TUNING=None", "INSTRUCTED={}", "CONTEXTS=()", "NAMED={}"),
)


def rows(
  given: argparse.Namespace,
  point: figure1.Point,
  checkpoint: str,
  folder: pathlib.Path,
) -> list[Row] | None:
  """Train for longer.

  Args:
    given: the command line.
    point: of Figure 1.
    checkpoint: its rung's.
    folder: for the trainings.

  Returns:
    A row; None where it was stopped.
  """
  bindings = (*_SETTINGS, *steps(point), *figure1.rate_bindings(point.rates))
  found, _ = figure1.compare_with(
    given, checkpoint, point.group, bindings, folder
  )
  return None if found is None else [row(point, found.scores, found.steps)]


def steps(point: figure1.Point) -> tuple[str, str]:
  """Return how long trainings are at most, as settings in gin."""
  prompts, models = (TIMES * point.steps[method] for method in METHODS)
  return f"TRAIN_STEPS_RELATIVE={prompts}", f"MODEL_STEPS={models}"


def row(
  before: figure1.Point, scores: Sequence[Score], taken: Mapping[str, int]
) -> Row:
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


def table(found: Sequence[Row]) -> str:
  """Format steps and scores, and the gaps, as Markdown."""
  heads = ["tasks", "rung", *METHODS, f"{METHODS[1]} - {METHODS[0]}"]
  lines = [heads]
  for one in found:
    for k in (0, 1):
      values = [one["methods"][method] for method in METHODS]
      cells = [
        f"{value['scores'][k]:.1f} ({value['steps'][k]:,} steps)"
        for value in values
      ]
      gap = values[1]["scores"][k] - values[0]["scores"][k]
      lines.append([one["group"], one["rung"], *cells, f"{gap:.1f}"])
  return figure1.markdown(lines)


CHECK = Check("longer", __doc__, rows, table)
main = CHECK.main

if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
