"""Ratios that tell whether the speed work is still there, and their limits.

Measured values are in docs/performance.md. A step's limits stand between those
and what the straightforward program (`bare_t5`) has, whose ratio to itself is
1; the limits of starts, decoding and pre-training, which came of other work,
are a fifth to a third worse than measured. Times are compared turn by turn, by
the median of the turns' ratios: on a shared machine, neighbours come and go in
minutes, and now and then a side has a quick moment that it never has again, so
that the least of a few times says little. Where a ratio is out of bounds, its
section is measured twice more, and the median of the three counts.

`make bench` holds the limits themselves. CI measures fewer turns beside other
work: there times may be `SLACK` times worse, which a program shows that became
1.5 times slower, and a neighbour's load does not. Memory has no slack.

Against PEFT there are closer limits on processors of AMD: how XLA's products
compare with torch's is the processor's matter. A step of 512 tokens had 0.86 of
PEFT's time on an AMD EPYC. On an Intel Xeon, twelve turns had 1.04 to 1.18 as
the medians of three in a row, where the straightforward program had 1.44 to
1.64. Decoding, which had 0.72 on the AMD and 0.89 to 1.07 in four measures on
the Intel, has one limit for both. Starts of whole processes are compared by the
seconds that CPUs worked for them.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks import starts
from benchmarks.steps import BARE, PEFT, PROJECT

# Section -> what was measured, see `benchmarks.run`.
Results = dict[str, Any]
# Times that what is out of bounds is measured again.
MORE = 2
# How many times worse than its limit a ratio of times may be in CI.
SLACK = 1.2


class Limit(NamedTuple):
  """A ratio and how bad it may be.

  Attributes:
    section: of the results; a limit holds where it was measured.
    name: what the ratio is.
    read: takes it out of the section's results.
    least: that it may be.
    most: that it may be.
    processor: part of the name of those that it holds on.
    slack: whether neighbours disturb it, as they do times.
  """

  section: str
  name: str
  read: Callable[[Any], float]
  least: float = 0.0
  most: float = float("inf")
  processor: str = ""
  slack: bool = True

  def wider(self, factor: float) -> "Limit":
    """Allow so many times worse, where neighbours disturb it."""
    if not self.slack:
      return self
    return self._replace(least=self.least / factor, most=self.most * factor)


def _row(rows: list[dict[str, Any]], inputs: int) -> dict[str, Any]:
  return next(row for row in rows if row["inputs"] == inputs)


def _time(inputs: int, kind: str, other: str) -> Callable[[Any], float]:
  """Take a ratio of times with another side's, at one input length."""
  return lambda rows: float(_row(rows, inputs)["ratios"][kind][other]["median"])


def _memory(inputs: int) -> Callable[[Any], float]:
  """Divide the project's peak memory by PEFT's, at one input length."""

  def read(rows: list[dict[str, Any]]) -> float:
    row = _row(rows, inputs)
    return float(row[PROJECT]["peak_gb"] / row[PEFT]["peak_gb"])

  return read


def _start(what: str) -> Callable[[Any], float]:
  """Take a ratio of CPU seconds of whole processes."""

  def read(rows: list[dict[str, Any]]) -> float:
    row = next(row for row in rows if row["what"] == what)
    return float(row["ratios"]["cpu_s"]["median"])

  return read


# What is started -> how many times the other side's CPU seconds it may take.
_STARTS = {
  starts.HELP: 0.3,
  starts.INSPECT: 0.6,
  starts.INFER: 0.8,
  starts.API: 0.8,
  starts.TRAIN: 1.1,
  starts.STEP: 1.6,
}
LIMITS = (
  *(
    Limit("starts", f"CPU seconds of {what}", _start(what), most=most)
    for what, most in _STARTS.items()
  ),
  Limit(
    "steps",
    "step of 64 tokens, project / PEFT",
    _time(64, "step_s", PEFT),
    most=0.95,
    processor="AMD",
  ),
  Limit(
    "steps",
    "step of 512 tokens, project / PEFT",
    _time(512, "step_s", PEFT),
    most=1.0,
    processor="AMD",
  ),
  Limit(
    "steps",
    "step of 512 tokens on any processor, project / PEFT",
    _time(512, "step_s", PEFT),
    most=1.3,
  ),
  Limit(
    "steps",
    "step of 64 tokens, project / bare JAX",
    _time(64, "step_s", BARE),
    most=0.92,
  ),
  Limit(
    "steps",
    "step of 512 tokens, project / bare JAX",
    _time(512, "step_s", BARE),
    most=0.9,
  ),
  Limit(
    "steps",
    "peak memory at 64 tokens, project / PEFT",
    _memory(64),
    most=0.94,
    slack=False,
  ),
  Limit(
    "steps",
    "peak memory at 512 tokens, project / PEFT",
    _memory(512),
    most=0.85,
    slack=False,
  ),
  Limit(
    "steps",
    "warm start at 64 tokens, project / PEFT",
    _time(64, "warm_start_s", PEFT),
    most=1.15,
  ),
  Limit(
    "decoding",
    "decoding of 64 tokens, project / PEFT",
    lambda rows: float(_row(rows, 64)["ratios"][PEFT]["median"]),
    most=1.1,
  ),
  Limit(
    "bank",
    "8 runs in a bank, times faster than in turn",
    lambda rows: next(
      float(row["speedups"]["median"]) for row in rows if row["runs"] == 8
    ),
    least=1.5,
  ),
  Limit(
    "pretraining",
    "pre-training, project / bare loop",
    lambda rows: float(rows[0]["ratios"]["median"]),
    least=0.85,
  ),
)


def judge(
  found: Results,
  again: Callable[[Sequence[str], int], Results],
  slack: float = 1.0,
) -> list[str]:
  """Say which ratios are worse than they may be; print all of them.

  Args:
    found: what was measured.
    again: measures some sections once more; given their names and how often
      it was asked before.
    slack: how many times worse than its limit a ratio of times may be.

  Returns:
    A line for each: the ratio, its values and limits.
  """
  print("Times are compared turn by turn here; the tables divide medians.")
  for limit in held([found], slack):
    print(describe(limit, [found]))
  doubtful = broken([found], slack)
  if not doubtful:
    return []
  sections = list(dict.fromkeys(limit.section for limit in doubtful))
  tries = [found]
  tries += [again(sections, turn) for turn in range(MORE)]
  for limit in held(tries, slack):
    print(describe(limit, tries))
  return [describe(limit, tries) for limit in broken(tries, slack)]


def held(tries: Sequence[Results], slack: float) -> list[Limit]:
  """Find the limits that hold here and whose section every try measured."""
  processor = tries[0].get("machine", {}).get("cpu", "")
  return [
    limit.wider(slack)
    for limit in LIMITS
    if limit.processor in processor
    and all(limit.section in found for found in tries)
  ]


def broken(tries: Sequence[Results], slack: float) -> list[Limit]:
  """Find the limits out of which the median of the tries is."""
  return [
    limit
    for limit in held(tries, slack)
    if not limit.least <= _median(limit, tries) <= limit.most
  ]


def describe(limit: Limit, tries: Sequence[Results]) -> str:
  """Say what was measured of a ratio, and how bad it may be."""
  values = [f"{limit.read(found[limit.section]):.2f}" for found in tries]
  of = f", median of {', '.join(values)}" if len(values) > 1 else ""
  bounds = f"({limit.least:.3g} to {limit.most:.3g})"
  return f"{limit.name}: {_median(limit, tries):.2f}{of} {bounds}"


def _median(limit: Limit, tries: Sequence[Results]) -> float:
  return statistics.median(limit.read(found[limit.section]) for found in tries)
