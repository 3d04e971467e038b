"""Prompts from prompts: what is compared, and what counts as soon."""

import json

import numpy as np

from experiments.spot import run as spot
from prompt_tuning.data import skills
from prompt_tuning.jobs import similarity


def test_a_related_skill_is_of_the_same_group_and_the_other_is_not():
  names = [name for group in spot.GROUPS for name in group]
  assert len(names) == len(set(names))
  assert set(names) <= set(skills.SKILLS)
  group_of = {name: group for group in spot.GROUPS for name in group}
  for target, (related, other) in spot.PAIRS.items():
    assert related != target
    assert group_of[related] is group_of[target]
    assert group_of[other] is not group_of[target]


def test_the_first_step_with_most_of_the_last_score_counts():
  curve = [(0, 5.0), (10, 71.9), (20, 72.0), (30, 60.0), (40, 80.0)]
  assert spot.steps_to(curve) == 20
  assert spot.steps_to([(0, 0.0), (10, 0.0)]) == 0


def test_groups_say_how_often_the_nearest_is_related():
  """Two pairs point the same way each; a skill of no group stands between."""
  angles = {"largest": 0, "smallest": 10, "longest": 90, "shortest": 95}
  angles["opposite"] = 4
  prompts = {
    name: np.array([[np.cos(np.pi * a / 180), np.sin(np.pi * a / 180)]])
    for name, a in angles.items()
  }
  found = spot.groups(similarity.of(prompts))
  # The nearest of `largest` and `smallest` is of no group.
  assert (found["nearest_is_related"], found["of"]) == (2, 4)
  assert found["by_chance"] == 4 * 1 / 4
  assert found["within"] > 0.98
  assert found["between"] < 0.2


def test_a_target_of_its_own_keeps_what_others_reached(tmp_path, monkeypatch):
  committed = json.loads((spot.HERE / "results.json").read_text())
  (tmp_path / "results.json").write_text(json.dumps(committed))
  rng = np.random.default_rng(0)
  exports = tmp_path / "work" / "sources" / "exports"
  for skill in skills.SKILLS:
    folder = exports / f"skill_{skill}"
    folder.mkdir(parents=True)
    np.save(folder / "prompt.npy", rng.normal(size=(2, 3)).astype(np.float32))
  runs = [[(0, 10.0), (10, 80.0)]] * len(spot.SEEDS)
  monkeypatch.setattr(spot, "fit", lambda *settings: None)
  monkeypatch.setattr(
    spot, "read_curves", lambda folder: dict.fromkeys(spot.STARTS, runs)
  )
  folders = (f"--work_dir={tmp_path / 'work'}", f"--output_dir={tmp_path}")
  assert not spot.main(["--target=last", *folders])
  found = json.loads((tmp_path / "results.json").read_text())["targets"]
  before = committed["targets"]
  assert list(found) == list(before)
  assert [name for name in found if found[name] != before[name]] == ["last"]
  assert found["last"]["steps"]["related"] == [10] * len(spot.SEEDS)


def test_what_is_written_down_is_what_was_scored(tmp_path, same_picture):
  found = json.loads((spot.HERE / "results.json").read_text())
  assert spot.table(found) == (spot.HERE / "table.md").read_text()
  curves = {name: one["curves"] for name, one in found["targets"].items()}
  spot.draw(curves, tmp_path / "curves.png")
  same_picture(tmp_path / "curves.png", spot.HERE / "curves.png")
  for target in found["targets"].values():
    for start, runs in target["curves"].items():
      assert target["steps"][start] == list(map(spot.steps_to, runs))
