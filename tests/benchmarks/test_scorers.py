"""docs/performance.md says what was recorded of scoring classes."""

import json
import pathlib

from benchmarks import scorers

ROOT = pathlib.Path(scorers.__file__).parents[1]
RECORDED = json.loads((ROOT / "benchmarks/recorded/scorers.json").read_text())


def test_all_at_once_is_five_times_as_fast_as_one_by_one():
  assert RECORDED["classes"] == 14
  assert RECORDED["largest_difference"] < 1e-3
  for clock, ratios in RECORDED["times_as_fast_as_one_by_one"].items():
    for side in (scorers.RANKED, scorers.WHOLE, scorers.FIRST):
      assert ratios[side]["median"] >= 5, (clock, side)


def test_thirty_words_of_a_class_cost_what_one_does():
  """One decoder position, whatever the number of single-piece words."""
  seconds = RECORDED["cpu_seconds"]
  few, many = (seconds[s]["median"] for s in (scorers.FIRST, scorers.MANY))
  assert many < 1.5 * few


def test_the_document_says_so():
  text = (ROOT / "docs/performance.md").read_text("utf-8")
  assert scorers.markdown(RECORDED) in text


def test_sides_score_the_same_words():
  rows = scorers.candidates()
  words = scorers.pieces(rows)
  assert words.lengths[:, 0].tolist() == [len(row) - 1 for row in rows]
  assert len({row[0] for row in rows}) == len(rows)
  assert (scorers.many_words().lengths == 1).all()
