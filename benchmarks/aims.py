"""What the project wants of its speed, beside what was measured.

`limits` is what CI insists on, on any machine. These are the aims, by medians,
on two cores; docs/performance.md says why one is missed and what was tried.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.steps import PEFT, PROJECT

# Task -> least times PEFT's rate, or None, and that of all padded to 512.
RATES = {
  "BoolQ": (1.3, 3.0),
  "CB": (1.3, 3.0),
  "RTE": (1.3, 3.0),
  "COPA": (None, 4.0),
  "WiC": (None, 4.0),
}
WARM_START_S = 5.0


class Aim(NamedTuple):
  """One aim.

  Attributes:
    name: what is measured.
    value: as measured.
    bound: what it is to be.
    more: whether more than that is better.
  """

  name: str
  value: float
  bound: float
  more: bool = False

  @property
  def met(self) -> bool:
    """Whether the value is at the bound or beyond, as printed."""
    value = round(self.value, 2)
    return value >= self.bound if self.more else value <= self.bound


def held(found: dict[str, Any]) -> list[Aim]:
  """Hold results against the aims; peak memory on real lengths among them.

  Args:
    found: section -> results, see `benchmarks.run`; those that were measured.

  Returns:
    The aims whose sections and shapes are among them.
  """
  return [*_steps(found.get("steps", [])), *_lengths(found.get("lengths", []))]


def _steps(rows: list[dict[str, Any]]) -> Iterator[Aim]:
  for row in rows:
    ours, theirs = row[PROJECT], row[PEFT]
    at = f"{row['inputs']} tokens, project / PEFT"
    step = ours["step_s"]["median"] / theirs["step_s"]["median"]
    yield Aim(f"step of {at}", step, 1.0)
    yield Aim(f"peak memory at {at}", ours["peak_gb"] / theirs["peak_gb"], 1.0)
    if row["inputs"] == 64:
      warm = ours["warm_start_s"]["median"]
      yield Aim("warm start with a step of 64 tokens, s", warm, WARM_START_S)


def _lengths(rows: list[dict[str, Any]]) -> Iterator[Aim]:
  for row in rows:
    memory = row["peak_gb"]["buckets"] / row["peak_gb"]["peft"]
    yield Aim(f"peak memory on {row['task']}, buckets / PEFT", memory, 1.0)
    if row["task"] not in RATES:
      continue
    bounds = zip(("peft", "fixed"), RATES[row["task"]], strict=True)
    for other, bound in bounds:
      if bound is not None:
        ratio = row["ratios"][f"buckets / {other}"]["median"]
        name = f"examples/s on {row['task']}, buckets / {other}"
        yield Aim(name, ratio, bound, more=True)
