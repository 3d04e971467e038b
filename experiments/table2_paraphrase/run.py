"""From QQP to MRPC and back, zero-shot: table 2 of the paper.

  prompt-tuning sweep --gin_file=experiments/table2_paraphrase/ladder.gin \
    --tfds_data_dir tfds
  python -m experiments.table2_paraphrase.run --tfds_data_dir tfds

Answers are in the words of the task that was trained on, and are translated.
Writes `results.json`, `table.md` and `figure.png`.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments import scoring, transfer

HERE = pathlib.Path(__file__).parent
QQP, MRPC = "taskless_glue_qqp_v002", "taskless_glue_mrpc_v002"


class Way(NamedTuple):
  """A line of the table.

  Attributes:
    name: of the line.
    trained: task that was trained on.
    scored: task that is scored on.
    paper: accuracy and F1 of model tuning, then of prompt tuning; none where
      the paper has no such line.
  """

  name: str
  trained: str
  scored: str
  paper: tuple[str, ...] = ("", "", "", "")


WAYS = (
  Way("QQP → QQP", QQP, QQP),
  Way(
    "QQP → MRPC",
    QQP,
    "taskless_glue_mrpc_from_qqp_v002",
    ("73.1 ± 0.9", "81.2 ± 2.1", "76.3 ± 0.1", "84.3 ± 0.3"),
  ),
  Way("MRPC → MRPC", MRPC, MRPC),
  Way(
    "MRPC → QQP",
    MRPC,
    "taskless_glue_qqp_from_mrpc_v002",
    ("74.9 ± 1.3", "70.9 ± 1.2", "75.4 ± 0.8", "69.7 ± 0.3"),
  ),
)
_METRICS = ("accuracy", "f1")


def main(argv: Sequence[str]) -> int:
  """Score the sweep's cells, and write the results.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  scored = scoring.scoring(scoring.parser(__doc__, HERE).parse_args(argv))
  sets: dict[str, list[str]] = {}
  for way in WAYS:
    sets.setdefault(way.trained, []).append(way.scored)
  rows = transfer.score(transfer.cells(scored.sweep), sets, scored)
  scoring.write(rows, table, draw, scored.output_dir)
  return 0


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Lay the scores out in Markdown, the paper's beside them.

  Args:
    rows: see `transfer.score`.

  Returns:
    The table: accuracy and F1 of both tunings, and what answering with the
    commoner class alone would give.
  """
  heads = ["trained → scored", "examples"]
  for tuning in transfer.TUNINGS:
    heads += [f"{tuning} tuning: accuracy", "F1", "legal answers"]
  heads += ["commoner class", "the paper: model", "prompt"]
  lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
  for way in WAYS:
    count = next(r["examples"] for r in rows if r["scored_on"] == way.scored)
    cells = [way.name, str(count)]
    for tuning in transfer.TUNINGS:
      metrics = transfer.values(rows, way.trained, way.scored, tuning)
      names = (*_METRICS, "legal_label_rate")
      cells += [transfer.spelled(metrics[name]) for name in names]
    cells.append(f"{_commoner(metrics):.1f}")
    cells += [" / ".join(way.paper[k : k + 2]).strip(" /") for k in (0, 2)]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Draw the accuracies of both tunings, and of the commoner class alone.

  Args:
    rows: see `transfer.score`.
    path: of the PNG.
  """
  bars, commoner = {}, {}
  for way in WAYS:
    metrics = {
      tuning: transfer.values(rows, way.trained, way.scored, tuning)
      for tuning in transfer.TUNINGS
    }
    bars[way.name] = {name: m["accuracy"] for name, m in metrics.items()}
    commoner[way.name] = _commoner(metrics[transfer.TUNINGS[0]])
  # Accuracies, of both tunings.
  paper = {way.name: way.paper[::2] for way in WAYS}
  label = "accuracy, mean ± sd"
  transfer.draw(bars, label, path, paper=paper, commoner=commoner)


def _commoner(metrics: Mapping[str, Sequence[float]]) -> float:
  """Say what always answering the commoner class would score."""
  return max(
    numbers[0] for m, numbers in metrics.items() if m.startswith("gold_share")
  )


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
