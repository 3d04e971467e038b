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
HEAD = (
  "rung",
  "stage",
  "parameters (without embeddings)",
  "steps",
  "tokens",
  "held-out loss, novels",
  "held-out loss, skills",
  "continuations with a sentinel",
  "minutes",
  "tokens/s",
  "hardware",
)


def main(argv: Sequence[str]) -> int:
  """Print the table.

  Args:
    argv: folders of finished runs of `prompt-tuning pretrain`.

  Returns:
    The process's exit status.
  """
  print("| " + " | ".join(HEAD) + " |")
  print("|---" * len(HEAD) + "|")
  for folder in map(pathlib.Path, argv):
    for stage in STAGES:
      file = folder / stage / pretrain_report.FILE
      if file.is_file():
        report = json.loads(file.read_text(encoding="utf-8"))
        print("| " + " | ".join(row(folder.name, report)) + " |")
  return 0


def row(rung: str, report: Mapping[str, Any]) -> list[str]:
  """Format one stage of one rung."""
  losses = {name.split("_")[0]: own for name, own in report["held_out"].items()}
  share = report["sentinel_share"]
  return [
    rung,
    report["stage"],
    f"{report['parameters']:,} ({report['non_embedding_parameters']:,})",
    f"{report['steps']:,}",
    f"{report['encoder_tokens'] + report['decoder_tokens']:,}",
    *(_fall(losses.get(name)) for name in ("novels", "skills")),
    "" if share is None else f"{share:.0%}",
    f"{report['seconds'] / 60:.1f}",
    f"{report['tokens_per_second']:,.0f}",
    report["hardware"],
  ]


def _fall(losses: Sequence[Sequence[float]] | None) -> str:
  """Show the first and the last of some losses."""
  return f"{losses[0][1]:.2f} → {losses[-1][1]:.2f}" if losses else ""


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
