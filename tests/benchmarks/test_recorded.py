"""docs/performance.md shows what was recorded, to the digit."""

import json
import pathlib

import pytest

from benchmarks import aims, report

ROOT = pathlib.Path(report.__file__).parents[1]
RECORDED = json.loads((ROOT / "benchmarks/recorded/intel.json").read_text())
TABLES = [
  block.strip()
  for block in report.markdown(RECORDED).split("\n\n")
  if block.startswith("|")
]


def test_everything_was_recorded_by_one_command():
  from benchmarks import run

  assert set(RECORDED) == {"machine", *run.SECTIONS}


@pytest.mark.parametrize("table", TABLES, ids=lambda text: text[:60])
def test_a_table_is_in_the_document(table):
  assert table in (ROOT / "docs/performance.md").read_text("utf-8")


def test_readme_names_as_many_misses_as_there_are():
  text = (ROOT / "README.md").read_text("utf-8")
  missed = [aim for aim in aims.held(RECORDED) if not aim.met]
  assert f"{len(missed)} of {len(aims.held(RECORDED))} aims are missed" in text
