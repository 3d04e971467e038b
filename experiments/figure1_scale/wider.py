"""Is the largest learning rate that was tried too small?

  python -m experiments.figure1_scale.wider --rung tall_3=embedded:tall_3 ...

Where the search of a point of Figure 1 chose its largest rate, searches again:
that rate, and the one half a decade above it. Writes `wider.json` and
`wider.md`, beside what they have of other rungs and groups. What is done
already, is not done again.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.figure1_scale import run as figure1
from prompt_tuning.jobs import comparison

HERE = pathlib.Path(__file__).parent
RESULTS, TABLE = "wider.json", "wider.md"
# Half a decade above the largest of `figure1.RATES`.
ABOVE = {figure1.PROMPT: 3.0, comparison.MODEL: 0.03}


def main(argv: Sequence[str]) -> int:
  """Search where it is missing, then write.

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
      rates = tried(points[name, group].rates)
      folder = pathlib.Path(given.work_dir, name, group, "wider")
      found = figure1.search(given, checkpoint, group, rates, folder)
      if found is None:
        print("Stopped. The same command continues it.")
        return 1
      write(merged(read(out), name, group, found), out)
  print(table(read(out)))
  return 0


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


def merged(
  rows: Sequence[Mapping[str, Any]],
  rung: str,
  group: str,
  found: Mapping[str, Mapping[float, float]],
) -> list[Mapping[str, Any]]:
  """Put a search in the place of an older one of its kind.

  Args:
    rows: of any rungs and groups.
    rung: the search's.
    group: the search's.
    found: see `figure1.development`.

  Returns:
    All rows; those of a single rate are left out.
  """
  kept = [r for r in rows if (r["rung"], r["group"]) != (rung, group)]
  new = [
    {
      "group": group,
      "rung": rung,
      "method": name,
      "scores": {str(rate): score for rate, score in of_rates.items()},
    }
    for name, of_rates in found.items()
    if len(of_rates) > 1
  ]
  return sorted(
    [*kept, *new],
    key=lambda r: (figure1.GROUPS.index(r["group"]), r["rung"]),
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
  """Format the scores of both rates as Markdown."""
  lines = ["| tasks | rung | method | chosen: score | above: score |"]
  lines.append("|---" * 5 + "|")
  for row in rows:
    cells = [f"{rate}: {score:.1f}" for rate, score in row["scores"].items()]
    names = [row["group"], row["rung"], row["method"]]
    lines.append(f"| {' | '.join([*names, *cells])} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
