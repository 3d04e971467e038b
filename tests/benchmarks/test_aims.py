"""Aims are held against what was measured, and misses are said."""

import pytest

from benchmarks import aims
from benchmarks.steps import PEFT, PROJECT


def step(inputs, ours, theirs, warm=4.0):
  def side(step_s, peak_gb):
    spread = {"median": step_s, "least": 0.0, "most": 9.0}
    start = {"median": warm, "least": 0.0, "most": 9.0}
    return {"step_s": spread, "peak_gb": peak_gb, "warm_start_s": start}

  return {"inputs": inputs, PROJECT: side(*ours), PEFT: side(*theirs)}


def rates(task, peft, fixed, peak_gb=1.0):
  ratios = {"buckets / peft": peft, "buckets / fixed": fixed}
  return {
    "task": task,
    "ratios": {name: {"median": found} for name, found in ratios.items()},
    "peak_gb": {"buckets": peak_gb, "peft": 1.0},
  }


def test_no_results_no_aims():
  assert aims.held({"machine": {}}) == []


@pytest.mark.parametrize(
  ("ours", "theirs", "met"),
  [
    ((1.0, 2.0), (2.0, 4.0), [True, True]),
    ((2.1, 2.0), (2.0, 4.0), [False, True]),
    ((2.0, 4.1), (2.0, 4.0), [True, False]),
  ],
)
def test_steps_and_memory_are_to_be_peft_s_at_most(ours, theirs, met):
  held = aims.held({"steps": [step(256, ours, theirs)]})
  assert [aim.met for aim in held] == met
  assert held[0].value == ours[0] / theirs[0]


def test_short_texts_are_to_start_within_five_seconds():
  rows = [step(64, (1, 1), (1, 1), 5.0), step(64, (1, 1), (1, 1), 5.1)]
  starts = [aim for aim in aims.held({"steps": rows}) if "start" in aim.name]
  assert [(aim.value, aim.met) for aim in starts] == [(5.0, True), (5.1, False)]


def test_rates_are_to_be_some_times_the_others():
  rows = [
    rates("BoolQ", 1.31, 2.9),
    rates("COPA", 0.9, 4.1),
    rates("MultiRC", 0.1, 0.1),
  ]
  found = aims.held({"lengths": rows})
  held = [aim for aim in found if "memory" not in aim.name]
  assert [(aim.name.split()[2], aim.value, aim.met) for aim in held] == [
    ("BoolQ,", 1.31, True),
    ("BoolQ,", 2.9, False),
    ("COPA,", 4.1, True),
  ]


def test_memory_on_real_lengths_is_to_be_peft_s_at_most():
  rows = [rates("MultiRC", 1, 1, peak_gb) for peak_gb in (1.0, 1.08)]
  held = aims.held({"lengths": rows})
  assert [(aim.value, aim.met) for aim in held] == [(1.0, True), (1.08, False)]
