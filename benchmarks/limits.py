"""What CI insists on: ratios that tell whether the speed work is still there.

Measured values are in docs/performance.md. A step's limits stand between those
and what the straightforward program (`bare_t5`) has, whose ratio to itself is
1; the limits of starts, decoding and pre-training, which came of other work,
are a fifth or so worse than measured. Times are compared by their least: on a
shared machine the rest is the neighbours'.

Against PEFT there are closer limits on processors of AMD: how XLA's products
compare with torch's is the processor's matter. At 512 tokens, by the least, the
project had 0.9 of PEFT's time on an AMD EPYC and 1.17 on an Intel Xeon, where
the straightforward program had 1.5 to 1.7.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.steps import BARE, PEFT, PROJECT


class Limit(NamedTuple):
  """A ratio and how bad it may be.

  Attributes:
    section: of the results; a limit holds where it was measured.
    name: what the ratio is.
    read: takes it out of the section's results.
    least: that it may be.
    most: that it may be.
    processor: part of the name of those that it holds on.
  """

  section: str
  name: str
  read: Callable[[Any], float]
  least: float = 0.0
  most: float = float("inf")
  processor: str = ""


def _steps(length: int, value: str, other: str) -> Callable[[Any], float]:
  """Divide the project's time or memory by another side's, at one length."""

  def read(rows: list[dict[str, Any]]) -> float:
    row = next(row for row in rows if row["inputs"] == length)
    ours, theirs = row[PROJECT][value], row[other][value]
    if isinstance(ours, dict):
      ours, theirs = ours["least"], theirs["least"]
    return float(ours / theirs)

  return read


LIMITS = (
  Limit(
    "steps",
    "step of 64 tokens, project / PEFT",
    _steps(64, "step_s", PEFT),
    most=0.95,
    processor="AMD",
  ),
  Limit(
    "steps",
    "step of 512 tokens, project / PEFT",
    _steps(512, "step_s", PEFT),
    most=1.0,
    processor="AMD",
  ),
  Limit(
    "steps",
    "step of 512 tokens on any processor, project / PEFT",
    _steps(512, "step_s", PEFT),
    most=1.35,
  ),
  Limit(
    "steps",
    "step of 64 tokens, project / bare JAX",
    _steps(64, "step_s", BARE),
    most=0.92,
  ),
  Limit(
    "steps",
    "step of 512 tokens, project / bare JAX",
    _steps(512, "step_s", BARE),
    most=0.9,
  ),
  Limit(
    "steps",
    "peak memory at 64 tokens, project / PEFT",
    _steps(64, "peak_gb", PEFT),
    most=0.94,
  ),
  Limit(
    "steps",
    "peak memory at 512 tokens, project / PEFT",
    _steps(512, "peak_gb", PEFT),
    most=0.85,
  ),
  Limit(
    "steps",
    "warm start at 64 tokens, project / PEFT",
    _steps(64, "warm_start_s", PEFT),
    most=1.2,
  ),
  Limit(
    "decoding",
    "decoding of 64 tokens, project / PEFT",
    _steps(64, "seconds", PEFT),
    most=1.1,
  ),
  Limit(
    "bank",
    "8 runs in a bank, times faster than in turn",
    lambda rows: next(row["speedup"] for row in rows if row["runs"] == 8),
    least=1.5,
  ),
  Limit(
    "pretraining",
    "pre-training, project / bare loop",
    lambda rows: rows[0]["ratio"],
    least=0.8,
  ),
)


def broken(found: dict[str, Any]) -> list[str]:
  """Say which ratios are worse than they may be.

  Args:
    found: section -> results, see `benchmarks.run`; those that were measured.

  Returns:
    A line for each: the ratio, its value and limits.
  """
  lines = []
  processor = found.get("machine", {}).get("cpu", "")
  for limit in LIMITS:
    if limit.section in found and limit.processor in processor:
      value = limit.read(found[limit.section])
      line = f"{limit.name}: {value:.2f} ({limit.least} to {limit.most})"
      print(line)
      if not limit.least <= value <= limit.most:
        lines.append(line)
  return lines
