"""docs/sweeps.md says what was recorded of a sweep beside its commands."""

import json
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
RECORDED = json.loads((ROOT / "benchmarks/recorded/sweep.json").read_text())


def test_a_sweep_takes_at_most_half_of_the_time():
  assert RECORDED["cells"] == 24
  ratio = RECORDED["sweep_s"] / RECORDED["train_commands_s"]
  assert RECORDED["ratio"] == round(ratio, 3) <= 0.5


def test_kills_changed_nothing():
  assert len(RECORDED["cells_done_at_kills"]) == 5
  assert RECORDED["killed_equals_undisturbed"] is True


def test_the_document_says_so():
  text = (ROOT / "docs/sweeps.md").read_text()
  for name in ("sweep_s", "train_commands_s"):
    assert f"{RECORDED[name]:,.0f} s" in text
  assert f"{RECORDED['ratio']:.2f}" in text
