"""Find the slice that trains a job for the least money, by plans."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from prompt_tuning.plans import tpu
from prompt_tuning.plans.chips import Slice
from prompt_tuning.plans.tpu import Plan

STEPS = 1_000  # that prices are named for


@dataclasses.dataclass(frozen=True)
class Offer:
  """A slice that can train a job, and the price of a step there.

  Attributes:
    slice: the chips.
    plan: the fastest mesh.
    price: lowest price of a step: its bound in hours, times chips, times the
      price of a chip's hour.
  """

  slice: Slice
  plan: Plan
  price: float


def offer(
  tpu_slice: Slice, plans: Sequence[Plan], prices: Mapping[str, float]
) -> Offer | None:
  """Price the best plan of a slice.

  Args:
    tpu_slice: the chips.
    plans: one per mesh.
    prices: generation -> price of an hour of one chip.

  Returns:
    The offer; None if no plan fits.
  """
  best = tpu.best(plans)
  if best is None:
    return None
  hours = best.bound / 3600 * tpu_slice.count
  return Offer(tpu_slice, best, hours * prices[tpu_slice.generation])


def smallest(
  slices: Iterable[Slice], plan_slice: Callable[[Slice], Sequence[Plan]]
) -> tuple[Slice, Sequence[Plan]] | None:
  """Find the smallest slice that a job fits on.

  Chips that share the work evenly cost as much as one chip that does it alone,
  and they also exchange data. So larger slices are faster, not cheaper.

  Args:
    slices: the smallest first.
    plan_slice: makes the plans of one slice.

  Returns:
    The slice and its plans; None if the job fits on none.
  """
  for tpu_slice in slices:
    plans = plan_slice(tpu_slice)
    if any(one.fits for one in plans):
      return tpu_slice, plans
  return None


def lines(offers: Sequence[Offer]) -> list[str]:
  """Describe offers, the cheapest first.

  Args:
    offers: at least one.

  Returns:
    Lines of text.
  """
  ranked = sorted(offers, key=lambda one: one.price)
  text = [f"Cheapest: {ranked[0].slice}. {STEPS:,} steps take at least:"]
  for one in ranked:
    hours = one.plan.bound * STEPS / 3600
    text.append(
      f"  {one.slice}  {_three_digits(one.price * STEPS)} dollars  "
      f"{_three_digits(hours)} hours  "
      f"{_three_digits(hours * one.slice.count)} chip-hours"
    )
  return text


def as_json(offers: Sequence[Offer]) -> dict:
  """Describe offers in JSON's types, the cheapest first."""
  ranked = sorted(offers, key=lambda one: one.price)
  return {
    "cheapest": str(ranked[0].slice),
    "steps": STEPS,
    "offers": [
      {
        "topology": str(one.slice),
        "dollars": one.price * STEPS,
        "hours": one.plan.bound * STEPS / 3600,
      }
      for one in ranked
    ],
  }


def _three_digits(number: float) -> str:
  """Write a number so that three digits can be read."""
  if number <= 0:
    return "0"
  digits = max(0, 2 - math.floor(math.log10(number)))
  return f"{number:,.{digits}f}"
