"""Is the largest learning rate that was tried too small?

  python -m experiments.figure1_scale.wider --rung tall_3=embedded:tall_3 ...

Where the search of a point of Figure 1 chose its largest rate, searches again:
that rate, and the one half a decade above it. Writes `wider.json` and
`wider.md`, beside what they have of other points. What is done already, is not
done again.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence

from experiments.figure1_scale import run as figure1
from experiments.figure1_scale.limits import Check, Row
from prompt_tuning.jobs import comparison

# Half a decade above the largest of `figure1.RATES`.
ABOVE = {figure1.PROMPT: 3.0, comparison.MODEL: 0.03}


def rows(
  given: argparse.Namespace,
  point: figure1.Point,
  checkpoint: str,
  folder: pathlib.Path,
) -> list[Row] | None:
  """Search again for a point.

  Args:
    given: the command line.
    point: of Figure 1.
    checkpoint: its rung's.
    folder: for the trainings.

  Returns:
    A row for each method whose rate was the largest; None where it was stopped.
  """
  rates = tried(point.rates)
  found = figure1.search(given, checkpoint, point.group, rates, folder)
  if found is None:
    return None
  return [
    {
      "group": point.group,
      "rung": point.rung,
      "method": name,
      "scores": {str(rate): score for rate, score in of_rates.items()},
    }
    for name, of_rates in found.items()
    if len(of_rates) > 1
  ]


def tried(rates: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
  """Return the rates to try: only the chosen one, if a larger one was worse.

  Args:
    rates: method -> rate that the search of Figure 1 chose.

  Returns:
    Method -> rates.
  """
  return {
    name: (rate, ABOVE[name]) if rate == max(figure1.RATES[name]) else (rate,)
    for name, rate in rates.items()
  }


def table(found: Sequence[Row]) -> str:
  """Format the scores of both rates as Markdown."""
  lines = [["tasks", "rung", "method", "chosen: score", "above: score"]]
  for row in found:
    cells = [f"{rate}: {score:.1f}" for rate, score in row["scores"].items()]
    lines.append([row["group"], row["rung"], row["method"], *cells])
  return figure1.markdown(lines)


CHECK = Check("wider", __doc__, rows, table)
main = CHECK.main

if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
