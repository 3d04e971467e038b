"""Parameters of prompts, by size and length: table 4 of the paper.

  python -m experiments.table4_parameters.run

Nothing is trained, and no weight is read: the cells of both sweeps are built as
for training, and the leaves that would train are counted.
"""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.jobs import sweep_banks
from prompt_tuning.launch import flags, sweep
from prompt_tuning.models.t5 import cost

HERE = pathlib.Path(__file__).parent
SCALES = ("ladder", "paper")
# What the paper prints where its own shapes say something else: (size, length)
# -> (what, printed).
PRINTED = {
  ("small", 20): (("trained", "10,420"), ("total", "76,971,572")),
  ("large", 100): (("share", "0.01907 %"),),
  ("xxl", 50): (("total", "11,137,380,352"),),
  ("xl", 20): (("share", "0.00143 %"),),
  ("xl", 100): (("share", "0.00718 %"),),
}


def main() -> int:
  """Count, and write the results.

  Returns:
    The process's exit status.
  """
  rows = [row for scale in SCALES for row in count(scale)]
  text = json.dumps(rows, indent=1) + "\n"
  (HERE / "results.json").write_text(text, encoding="utf-8")
  (HERE / "table.md").write_text(table(rows), encoding="utf-8")
  draw(rows, HERE / "figure.png")
  return 0


def count(scale: str) -> list[dict[str, Any]]:
  """Count the parameters of every cell of a scale.

  Args:
    scale: `ladder` or `paper`.

  Returns:
    A row per cell.
  """
  path = f"experiments/table4_parameters/{scale}.gin"
  arguments = flags.parse("sweep", [f"--gin_file={path}"], "")
  job = sweep.configure(arguments)
  rows = []
  for bank in sweep_banks.share(job.cells, job.model_dir):
    counts = sweep_banks.size(bank).parameters
    assert counts is not None, "a prompt's shape follows from its settings"
    for cell, runs in zip(bank.cells, bank.runs, strict=True):
      model = cost.count_parameters(cell.job.experiment.model)
      rows.append(
        {
          "scale": scale,
          "size": cell.values["@size"],
          "length": int(cell.values["PROMPT_LENGTH"]),
          "trained": counts[runs[0]],
          "model": sum(model.values()),
        }
      )
  return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Lay the counts out in Markdown, the paper's misprints beside them.

  Args:
    rows: see `count`.

  Returns:
    The table.
  """
  lines = [
    "| model | prompt length | trained | total | share | the paper prints |",
    "|---|---|---|---|---|---|",
  ]
  for row in rows:
    trained, total = row["trained"], row["model"] + row["trained"]
    misprints = PRINTED.get((row["size"], row["length"]), ())
    cells = [
      row["size"],
      str(row["length"]),
      f"{trained:,}",
      f"{total:,}",
      f"{share(row):.5f} %",
      "; ".join(f"{what}: {printed} *(sic)*" for what, printed in misprints),
    ]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def share(row: Mapping[str, Any]) -> float:
  """Return the share of the whole that trains, in percent, as the paper does.

  Args:
    row: see `count`.
  """
  return float(100 * row["trained"] / (row["model"] + row["trained"]))


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Draw the share that trains over the size of the model.

  Args:
    rows: see `count`.
    path: of the PNG.
  """
  # Not at the top: slow to import.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4, 4.0), layout="constrained")
  canvas, plot = FigureCanvasAgg(figure), figure.subplots()
  lengths = sorted({row["length"] for row in rows})
  for number, length in enumerate(reversed(lengths)):
    own = [row for row in rows if row["length"] == length]
    for scale, line in zip(SCALES, ("--", "-"), strict=True):
      of_scale = [row for row in own if row["scale"] == scale]
      plot.plot(
        [row["model"] for row in of_scale],
        [share(row) for row in of_scale],
        marker="osD^vP"[number],
        linestyle=line,
        color=f"C{number}",
        label=f"length {length}" if line == "-" else None,
      )
  plot.set(xscale="log", yscale="log", xlabel="parameters of the model")
  plot.set_ylabel("share that trains, %")
  plot.set_title("dashed: the ladder; solid: T5 1.1", fontsize="medium")
  plot.grid(alpha=0.3)
  plot.legend(fontsize="small")
  canvas.print_png(str(path))


if __name__ == "__main__":
  sys.exit(main())
