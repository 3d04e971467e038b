"""What CI insists on: ratios that tell whether the speed work is still there.

Measured values are in docs/performance.md. A step's limits stand between those
and what the straightforward program (`bare_t5`) has, whose ratio to itself is
1; the limits of starts, decoding and pre-training, which came of other work,
are a fifth or so worse than measured. Times are compared by their least: on a
shared machine the rest is the neighbours'. Those come and go in minutes and may
hit one side only (the step of 512 tokens once had 0.95 of the straightforward
program's time, 0.67 to 0.81 otherwise), so a ratio out of bounds is measured
twice more and the median of the three counts.

Against PEFT there are closer limits on processors of AMD: how XLA's products
compare with torch's is the processor's matter. At 512 tokens, by the least, the
project had 0.9 of PEFT's time on an AMD EPYC and 1.17 on an Intel Xeon, where
the straightforward program had 1.5 to 1.7.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.steps import BARE, PEFT, PROJECT

# Section -> what was measured, see `benchmarks.run`.
Results = dict[str, Any]
# Times that what is out of bounds is measured again.
MORE = 2


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


def judge(
  found: Results, again: Callable[[Sequence[str], int], Results]
) -> list[str]:
  """Say which ratios are worse than they may be; print all of them.

  Args:
    found: what was measured.
    again: measures some sections once more; given their names and how often
      it was asked before.

  Returns:
    A line for each: the ratio, its values and limits.
  """
  for limit in held([found]):
    print(describe(limit, [found]))
  doubtful = broken([found])
  if not doubtful:
    return []
  sections = list(dict.fromkeys(limit.section for limit in doubtful))
  tries = [found]
  tries += [again(sections, turn) for turn in range(MORE)]
  for limit in held(tries):
    print(describe(limit, tries))
  return [describe(limit, tries) for limit in broken(tries)]


def held(tries: Sequence[Results]) -> list[Limit]:
  """Find the limits that hold here and whose section every try measured."""
  processor = tries[0].get("machine", {}).get("cpu", "")
  return [
    limit
    for limit in LIMITS
    if limit.processor in processor
    and all(limit.section in found for found in tries)
  ]


def broken(tries: Sequence[Results]) -> list[Limit]:
  """Find the limits out of which the median of the tries is."""
  return [
    limit
    for limit in held(tries)
    if not limit.least <= _median(limit, tries) <= limit.most
  ]


def describe(limit: Limit, tries: Sequence[Results]) -> str:
  """Say what was measured of a ratio, and how bad it may be."""
  values = [f"{limit.read(found[limit.section]):.2f}" for found in tries]
  of = f", median of {', '.join(values)}" if len(values) > 1 else ""
  bounds = f"({limit.least} to {limit.most})"
  return f"{limit.name}: {_median(limit, tries):.2f}{of} {bounds}"


def _median(limit: Limit, tries: Sequence[Results]) -> float:
  return statistics.median(limit.read(found[limit.section]) for found in tries)
