"""The tables of `benchmarks.run` as Markdown."""

import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

from benchmarks import data_throughput
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
  medians = (row[name]["step_s"]["median"] for name in (side, other))
  ours, theirs = medians
  return float(ours / theirs)


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
  }
  machine = ", ".join(f"{k} {v}" for k, v in found["machine"].items())
  parts = [f"Measured on {machine}.\n"]
  parts += [
    write(found[name]) for name, write in writers.items() if name in found
  ]
  return "\n".join(parts)


def _seconds(found: dict[str, float]) -> str:
  return f"{found['median']:.2f} ({found['least']:.2f} to {found['most']:.2f})"


def _steps(rows: list[dict[str, Any]]) -> str:
  times, costs = [], []
  for row in rows:
    sides = (PROJECT, PEFT, BARE)
    times.append(
      [row["inputs"]]
      + [_seconds(row[side]["step_s"]) for side in sides]
      + [f"{ratio(row, PROJECT, other):.2f}" for other in (PEFT, BARE)]
    )
    for side in sides:
      one = row[side]
      costs.append(
        [
          f"{row['inputs']}, {_NAMES[side]}",
          one.get("cold_start_s", ""),
          one.get("warm_start_s", ""),
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
  lines = [[row["kept"], row["seconds"]] for row in rows]
  header = ["what an earlier command left", "seconds"]
  return "### `prompt-tuning train`, one step, all of it\n\n" + table(
    header, lines
  )


def _lengths(rows: list[dict[str, Any]]) -> str:
  lines = [
    [
      f"{row['task']} ({row['mean_tokens']} tokens)",
      *(row[way] for way in ("fixed", "peft", "buckets", "packed")),
      f"{row['buckets'] / row['peft']:.2f}",
      f"{row['packed'] / row['peft']:.2f}",
      f"{row['buckets'] / row['fixed']:.2f}",
    ]
    for row in rows
  ]
  header = ["task", "fixed 512", "PEFT", "buckets", "packed"]
  header += ["buckets / PEFT", "packed / PEFT", "buckets / fixed"]
  ways = ("fixed", "peft", "buckets", "packed")
  peaks = [[row["task"], *(row["peak_gb"][w] for w in ways)] for row in rows]
  return (
    "### Examples per second while training\n\n"
    + table(header, lines)
    + "\n### Their peak memory, GB\n\n"
    + table(header[:5], peaks)
  )


def _decoding(rows: list[dict[str, Any]]) -> str:
  lines = []
  for row in rows:
    ours, theirs = (row[side]["seconds"] for side in (PROJECT, PEFT))
    lines.append(
      [
        row["inputs"],
        _seconds(ours),
        _seconds(theirs),
        f"{ours['median'] / theirs['median']:.2f}",
        f"{row['rows_alike']:.0%}",
      ]
    )
  header = ["text tokens", "this project", "PEFT", "ratio", "rows alike"]
  return "### Seconds to decode 32 rows greedily\n\n" + table(header, lines)


def _saving(found: dict[str, Any]) -> str:
  lines = [
    [_NAMES.get(name, name), f"{one['bytes']:,}", one.get("seconds", "")]
    for name, one in found.items()
  ]
  header = ["prompt and optimizer", "bytes", "seconds"]
  return "### What is written to go on from\n\n" + table(header, lines)


def _bank(rows: list[dict[str, Any]]) -> str:
  keys = ("runs", "bank_ms", "in_turn_ms", "speedup")
  lines = [[row[key] for key in keys] for row in rows]
  header = ["runs", "bank, ms per step", "in turn, ms", "times faster"]
  return "### A bank of prompts, tiny model\n\n" + table(header, lines)


def _pretraining(rows: list[dict[str, Any]]) -> str:
  lines = [
    [
      row["size"],
      row["tokens_per_second"]["project"],
      row["tokens_per_second"]["bare"],
      row["ratio"],
    ]
    for row in rows
  ]
  header = ["rung", "project, tokens/s", "bare loop, tokens/s", "ratio"]
  return "### Pre-training\n\n" + table(header, lines)
