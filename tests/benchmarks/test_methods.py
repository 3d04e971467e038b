"""docs/performance.md shows what was recorded of methods beside PEFT's."""

import json
import pathlib

from benchmarks import methods, report
from benchmarks.sides import methods as both
from benchmarks.steps import PEFT, PROJECT

ROOT = pathlib.Path(report.__file__).parents[1]
RECORDED = json.loads((ROOT / "benchmarks/recorded/methods.json").read_text())
DOCUMENT = (ROOT / "docs/performance.md").read_text("utf-8")


def test_every_method_that_both_have_was_recorded_at_both_lengths():
  assert set(RECORDED) == set(both.METHODS)
  for measured in RECORDED.values():
    assert [row["inputs"] for row in measured["rows"]] == [64, 256]


def test_the_table_is_in_the_document():
  assert methods.table(RECORDED).strip() in DOCUMENT


def test_the_document_says_what_missed_its_aim():
  rows = [
    (name, row)
    for name, measured in RECORDED.items()
    for row in measured["rows"]
  ]
  slower = [name for name, row in rows if _time(row) > 1]
  larger = [
    f"{name}, {row['inputs']}" for name, row in rows if _memory(row) > 1
  ]
  assert not slower
  said = ", ".join(larger) or "none"
  assert f"More memory than PEFT: {said}." in DOCUMENT


def _time(row):
  return row["ratios"]["step_s"][PEFT]["median"]


def _memory(row):
  return round(row[PROJECT]["peak_gb"] / row[PEFT]["peak_gb"], 2)
