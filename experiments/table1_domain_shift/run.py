"""From SQuAD to other domains, zero-shot: table 1 of the paper.

  prompt-tuning sweep --gin_file=experiments/table1_domain_shift/ladder.gin \
    --tfds_data_dir tfds
  python -m experiments.table1_domain_shift.run --tfds_data_dir tfds

Writes `results.json`, `table.md` and `figure.png`. Two of the six other domains
are scored, those that we had; `--domain` names others.
"""

import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import scoring, transfer

HERE = pathlib.Path(__file__).parent
TRAINED = "squad_v010_allanswers"
# Task -> what the paper calls it, and its F1 of both tunings there.
SETS: Mapping[str, tuple[str, str, str]] = {
  TRAINED: ("SQuAD", "94.9 ± 0.2", "94.8 ± 0.1"),
  "mrqa_textbook_qa_v100": ("TextbookQA", "54.3 ± 3.7", "66.8 ± 2.9"),
  "mrqa_bio_asq_v100": ("BioASQ", "77.9 ± 0.4", "79.1 ± 0.3"),
  "mrqa_relation_extraction_v100": ("RE", "88.4 ± 0.1", "88.8 ± 0.2"),
  "mrqa_drop_v100": ("DROP", "68.9 ± 1.7", "67.1 ± 1.9"),
  "mrqa_duo_rc_v100": ("DuoRC", "68.9 ± 0.7", "67.7 ± 1.1"),
  "mrqa_race_v100": ("RACE", "59.8 ± 0.6", "60.7 ± 0.5"),
}
DOMAINS = tuple(task for task in SETS if task != TRAINED)
_HERE = ("mrqa_duo_rc_v100", "mrqa_race_v100")


def main(argv: Sequence[str]) -> int:
  """Score the sweep's cells, and write the results.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = scoring.parser(__doc__, HERE)
  parser.add_argument(
    "--domain", nargs="+", choices=DOMAINS, default=list(_HERE), metavar="TASK"
  )
  given = parser.parse_args(argv)
  scored = scoring.scoring(given)
  trained = transfer.cells(scored.sweep)
  rows = transfer.score(trained, {TRAINED: (TRAINED, *given.domain)}, scored)
  scoring.write(rows, table, draw, scored.output_dir)
  return 0


def sets(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str, str]]:
  """Choose those of `SETS` that were scored."""
  scored = {row["scored_on"] for row in rows}
  return {task: known for task, known in SETS.items() if task in scored}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Lay the scores out in Markdown, the paper's beside them.

  Args:
    rows: see `transfer.score`.

  Returns:
    The table: F1 and exact match of both tunings.
  """
  heads = ["data set", "questions", "model tuning: F1", "EM"]
  heads += ["prompt tuning: F1", "EM", "difference in F1"]
  heads += ["the paper's F1: model", "prompt"]
  lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
  for task, (name, *paper) in sets(rows).items():
    count = next(r["examples"] for r in rows if r["scored_on"] == task)
    cells = [name, str(count)]
    means = []
    for tuning in transfer.TUNINGS:
      metrics = transfer.values(rows, TRAINED, task, tuning)
      cells += [transfer.spelled(metrics[metric]) for metric in ("f1", "em")]
      means.append(statistics.fmean(metrics["f1"]))
    cells += [f"{means[1] - means[0]:+.1f}", *paper]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Draw the F1 of both tunings.

  Args:
    rows: see `transfer.score`.
    path: of the PNG.
  """
  bars = {
    name: {
      tuning: transfer.values(rows, TRAINED, task, tuning)["f1"]
      for tuning in transfer.TUNINGS
    }
    for task, (name, *_) in sets(rows).items()
  }
  paper = {name: printed for name, *printed in sets(rows).values()}
  transfer.draw(bars, "F1, mean ± sd", path, paper=paper)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
