"""docs/performance.md and README show what was recorded, to the digit."""

import json
import pathlib

import pytest

from benchmarks import aims, report, run, starts
from benchmarks.steps import BARE, PEFT, PROJECT

ROOT = pathlib.Path(report.__file__).parents[1]
FOLDER = ROOT / "benchmarks/recorded"
RECORDED = json.loads((FOLDER / "intel.json").read_text())
LATER = json.loads((FOLDER / "starts.json").read_text())
STEPS = RECORDED["steps"]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENT = (ROOT / "docs/performance.md").read_text("utf-8")
TABLES = [
  block.strip()
  for found in (RECORDED, LATER)
  for block in report.markdown(found).split("\n\n")
  if block.startswith("|")
]


def test_everything_was_recorded_by_one_command():
  assert set(RECORDED) | set(LATER) == {"machine", *run.SECTIONS}
  assert set(LATER) == {"machine", "starts"}


@pytest.mark.parametrize("table", TABLES, ids=lambda text: text[:60])
def test_a_table_is_in_the_document(table):
  assert table in DOCUMENT


@pytest.mark.parametrize("other", [PEFT, BARE])
def test_the_summary_has_the_ratios_of_steps(other):
  ratios = [f"{report.ratio(row, PROJECT, other):.2f}" for row in STEPS]
  assert f"| {', '.join(ratios)} |" in DOCUMENT.replace("**", "")


def test_the_summary_has_the_ratios_of_memory():
  ratios = [row[PROJECT]["peak_gb"] / row[PEFT]["peak_gb"] for row in STEPS]
  assert f"| {', '.join(f'{r:.2f}' for r in ratios)} |" in DOCUMENT


@pytest.mark.parametrize(
  "tasks", [("BoolQ", "CB", "RTE"), ("COPA", "WiC", "WSC", "MultiRC")]
)
def test_the_summary_has_the_ratios_of_rates(tasks):
  found = {row["task"]: row["ratios"] for row in RECORDED["lengths"]}
  ratios = [f"{found[task]['buckets / peft']['median']:.2f}" for task in tasks]
  assert f"{', '.join(tasks)} | {', '.join(ratios)} |" in DOCUMENT


def test_the_summary_has_the_ratios_of_whole_processes():
  found = {row["what"]: row["ratios"]["cpu_s"] for row in LATER["starts"]}
  asked = (starts.INFER, starts.TRAIN, starts.STEP)
  ratios = [f"{found[what]['median']:.2f}" for what in asked]
  assert f"| {', '.join(ratios)} |" in DOCUMENT.replace("**", "")


def test_the_summary_names_as_many_misses_as_there_are():
  missed = [aim for aim in aims.held(RECORDED) if not aim.met]
  assert (
    f"{len(missed)} of {len(aims.held(RECORDED))} aims are missed" in DOCUMENT
  )


def test_readme_has_the_range_of_the_ratios():
  text = " ".join(README.split())
  steps = [report.ratio(row, PROJECT, PEFT) for row in STEPS]
  assert f"take {min(steps):.2f} to {max(steps):.2f} of its time" in text
  memory = [row[PROJECT]["peak_gb"] / row[PEFT]["peak_gb"] for row in STEPS]
  assert f"and {min(memory):.2f} to {max(memory):.2f} of its memory" in text
  rates = [
    row["ratios"]["buckets / peft"]["median"] for row in RECORDED["lengths"]
  ]
  assert f"{min(rates):.1f} to {max(rates):.1f} times the examples" in text
