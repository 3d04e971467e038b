"""The tables of `benchmarks.run` as Markdown."""

import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

from benchmarks import aims, data_throughput
from benchmarks.steps import BARE, PEFT, PROJECT

_PACKAGES = ("jax", "flax", "optax", "torch", "transformers", "peft")
_NAMES = {PROJECT: "this project", PEFT: "PEFT", BARE: "bare JAX"}


def machine() -> dict[str, str]:
  """Describe what the numbers were measured on."""
  model = platform.processor()
  cpuinfo = pathlib.Path("/proc/cpuinfo")
  if cpuinfo.exists():
    for line in cpuinfo.read_text().splitlines():
      if line.startswith("model name"):
        model = line.split(":", 1)[1].strip()
  versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
  return {"cpu": model, "cores": str(len(os.sched_getaffinity(0))), **versions}


def ratio(row: dict[str, Any], side: str, other: str) -> float:
  """Divide two sides' median steps."""
  return float(row[side]["step_s"]["median"] / row[other]["step_s"]["median"])


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
  """Lay out a Markdown table."""
  lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
  return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def markdown(found: dict[str, Any]) -> str:
  """Lay out every section that was measured."""
  writers = {
    "steps": _steps,
    "commands": _commands,
    "lengths": _lengths,
    "decoding": _decoding,
    "saving": _saving,
    "throughput": data_throughput.as_markdown,
    "bank": _bank,
    "pretraining": _pretraining,
    "starts": _starts,
  }
  machine = ", ".join(f"{k} {v}" for k, v in found["machine"].items())
  parts = [f"Measured on {machine}.\n"]
  if held := aims.held(found):
    parts.append(_aims(held))
  parts += [
    write(found[name]) for name, write in writers.items() if name in found
  ]
  return "\n".join(parts)


def spread(found: dict[str, float], digits: int = 2) -> str:
  """Write median, least and most."""
  median, least, most = (
    f"{found[name]:.{digits}f}" for name in ("median", "least", "most")
  )
  return f"{median} ({least} to {most})"


def _aims(held: Sequence[aims.Aim]) -> str:
  rows = [
    [
      aim.name,
      f"{aim.value:.2f}",
      f"{'>=' if aim.more else '<='} {aim.bound:g}",
      "yes" if aim.met else "**no**",
    ]
    for aim in held
  ]
  return "### The aims\n\n" + table(["what", "measured", "aim", "met"], rows)


def _steps(rows: list[dict[str, Any]]) -> str:
  times, costs = [], []
  for row in rows:
    sides = (PROJECT, PEFT, BARE)
    times.append(
      [row["inputs"]]
      + [spread(row[side]["step_s"]) for side in sides]
      + [f"{ratio(row, PROJECT, other):.2f}" for other in (PEFT, BARE)]
    )
    for side in sides:
      one = row[side]
      costs.append(
        [
          f"{row['inputs']}, {_NAMES[side]}",
          *(
            spread(one[kind]) if kind in one else ""
            for kind in ("cold_start_s", "warm_start_s")
          ),
          one["peak_gb"],
        ]
      )
  names = [_NAMES[side] for side in (PROJECT, PEFT, BARE)]
  return (
    "### Seconds per training step, median (least to most)\n\n"
    + table(["text tokens", *names, "project / PEFT", "project / bare"], times)
    + "\n### From the start of the process to the end of the first step\n\n"
    + table(["text tokens, side", "cold s", "warm s", "peak GB"], costs)
  )


def _commands(rows: list[dict[str, Any]]) -> str:
  lines = [[row["kept"], spread(row["seconds"])] for row in rows]
  header = ["what an earlier command left", "seconds"]
  return "### `prompt-tuning train`, one step, all of it\n\n" + table(
    header, lines
  )


def _lengths(rows: list[dict[str, Any]]) -> str:
  ways = {"fixed": "fixed 512", "peft": "PEFT"}
  ways |= {"buckets": "buckets", "packed": "packed"}
  rates, ratios, peaks = [], [], []
  for row in rows:
    name = f"{row['task']} ({row['mean_tokens']} tokens)"
    rates.append([name, *(spread(row["examples_per_s"][w]) for w in ways)])
    ratios.append([row["task"], *map(spread, row["ratios"].values())])
    peaks.append([row["task"], *(row["peak_gb"][way] for way in ways)])
  header = ["task", *ways.values()]
  return (
    "### Examples per second while training, median (least to most)\n\n"
    + table(header, rates)
    + "\n### Their ratios, median (least to most)\n\n"
    + table(["task", *rows[0]["ratios"]], ratios)
    + "\n### Their peak memory, GB\n\n"
    + table(header, peaks)
  )


def _decoding(rows: list[dict[str, Any]]) -> str:
  lines = []
  for row in rows:
    ours, theirs = (row[side]["seconds"] for side in (PROJECT, PEFT))
    lines.append(
      [
        row["inputs"],
        spread(ours),
        spread(theirs),
        f"{ours['median'] / theirs['median']:.2f}",
      ]
    )
  header = ["text tokens", "this project", "PEFT", "ratio"]
  return "### Seconds to decode 32 rows greedily\n\n" + table(header, lines)


def _saving(found: dict[str, Any]) -> str:
  lines = [
    [
      _NAMES.get(name, name),
      f"{one['bytes']:,}",
      spread(one["seconds"], 3) if "seconds" in one else "",
    ]
    for name, one in found.items()
  ]
  header = ["prompt and optimizer", "bytes", "seconds"]
  return "### What is written to go on from\n\n" + table(header, lines)


def _bank(rows: list[dict[str, Any]]) -> str:
  keys = ("runs", "bank_ms", "in_turn_ms")
  lines = [
    [*(row[key] for key in keys), spread(row["speedups"])] for row in rows
  ]
  header = ["runs", "bank, ms per step", "in turn, ms", "times faster"]
  return "### A bank of prompts, tiny model\n\n" + table(header, lines)


def _pretraining(rows: list[dict[str, Any]]) -> str:
  lines = [
    [
      row["size"],
      row["tokens_per_second"]["project"],
      row["tokens_per_second"]["bare"],
      spread(row["ratios"]),
    ]
    for row in rows
  ]
  header = ["rung", "project, tokens/s", "bare loop, tokens/s", "ratio"]
  return "### Pre-training\n\n" + table(header, lines)


def _starts(rows: list[dict[str, Any]]) -> str:
  lines = []
  for row in rows:
    cells = []
    for kind in ("cpu_s", "seconds"):
      sides = (row[side][kind]["median"] for side in ("project", "other"))
      cells += [*(f"{value:.2f}" for value in sides)]
      cells.append(spread(row["ratios"][kind]))
    lines.append([f"{row['what']}, {row['over']}", *cells])
  header = ["what, the other side", "CPU s", "other's", "ratio"]
  header += ["seconds", "other's", "ratio"]
  return "### From the shell to the prompt, warm\n\n" + table(header, lines)
