"""What the rungs learnt and cost, as a Markdown table.

python -m experiments.ladder.report runs/ladder_1 runs/ladder_2
"""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.jobs import pretrain_report

STAGES = ("span_corruption", "lm_adaptation")
_WHAT = (
  *("rung", "stage", "parameters (without embeddings)", "steps", "tokens"),
)
_COST = (*("continuations with a sentinel", "minutes", "tokens/s", "hardware"),)


def main(argv: Sequence[str]) -> int:
  """Print the table.

  Args:
    argv: folders of finished runs of `prompt-tuning pretrain`.

  Returns:
    The process's exit status.
  """
  reports = [
    (folder.name, json.loads(file.read_text(encoding="utf-8")))
    for folder in map(pathlib.Path, argv)
    for stage in STAGES
    if (file := folder / stage / pretrain_report.FILE).is_file()
  ]
  corpora = tuple(
    dict.fromkeys(name for _, report in reports for name in _losses(report))
  )
  head = (*_WHAT, *(f"held-out loss, {name}" for name in corpora), *_COST)
  print("| " + " | ".join(head) + " |")
  print("|---" * len(head) + "|")
  for rung, report in reports:
    print("| " + " | ".join(row(rung, report, corpora)) + " |")
  return 0


def row(
  rung: str, report: Mapping[str, Any], corpora: Sequence[str]
) -> list[str]:
  """Format one stage of one rung."""
  losses = _losses(report)
  share = report["sentinel_share"]
  return [
    rung,
    report["stage"],
    f"{report['parameters']:,} ({report['non_embedding_parameters']:,})",
    f"{report['steps']:,}",
    f"{report['encoder_tokens'] + report['decoder_tokens']:,}",
    *(_fall(losses.get(name)) for name in corpora),
    "" if share is None else f"{share:.0%}",
    f"{report['seconds'] / 60:.1f}",
    f"{report['tokens_per_second']:,.0f}",
    report["hardware"],
  ]


def _losses(report: Mapping[str, Any]) -> dict[str, Any]:
  """Return the held-out losses of every corpus."""
  return {name.split("_")[0]: own for name, own in report["held_out"].items()}


def _fall(losses: Sequence[Sequence[float]] | None) -> str:
  """Show the first and the last of some losses."""
  return f"{losses[0][1]:.2f} → {losses[-1][1]:.2f}" if losses else ""


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
