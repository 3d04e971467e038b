"""Four skills in one run: what is trained, and how it is told."""

import json

import pytest

from experiments.hyperformer import run as hyper
from prompt_tuning.launch import command, flags

pytestmark = pytest.mark.usefixtures("own_tasks")


@pytest.mark.parametrize("name", hyper.METHODS)
def test_four_skills_are_one_run_with_the_papers_smoothing(name):
  file, *settings = hyper.METHODS[name]
  argv = [
    f"--gin_file={hyper.HERE / 'common.gin'}",
    f"--gin_file={file}.gin",
    "--gin.MODEL_DIR='runs/never'",
    *(f"--gin.{setting}" for setting in settings),
  ]
  job = command.configure("train", flags.parse("train", argv, ""))
  (tuner,) = job.experiment.tuners
  assert job.experiment.objective.label_smoothing == 0.1
  shared = name.startswith("one shared")
  assert tuner.conditions == (() if shared else hyper.SKILLS)


def test_the_table_says_whether_the_others_stayed():
  scores = dict.fromkeys(hyper.SKILLS, 50.0)
  found = {
    "hyperformer": scores | {hyper.SKILLS[0]: 90.0},
    "with a fifth skill": scores | {hyper.FIFTH: 7.0},
    "others_unchanged": False,
  }
  lines = hyper.table(found).splitlines()
  assert lines[2] == "| hyperformer | 90.0 | 50.0 | 50.0 | 50.0 |  | 60.0 |"
  assert lines[3].endswith("| 7.0 | 50.0 |")
  assert lines[-1].endswith("NOT the same.")


def test_what_is_written_down_is_what_was_scored():
  found = json.loads((hyper.HERE / "results.json").read_text())
  assert list(found) == [*hyper.METHODS, hyper.ADDED, "others_unchanged"]
  table = hyper.table(found)
  assert table == (hyper.HERE / "table.md").read_text()
  assert table in (hyper.HERE / "README.md").read_text()
  mean = {
    name: sum(found[name][skill] for skill in hyper.SKILLS) / len(hyper.SKILLS)
    for name in hyper.METHODS
  }
  assert mean["hyperformer"] >= mean["one shared adapter"] + 20
  several = [name for name in mean if name.startswith(("mpt", "multitask"))]
  assert min(mean[name] for name in several) > 90 > mean["one shared prompt"]
  assert found["others_unchanged"] is True
  four = {skill: found[hyper.ADDED][skill] for skill in hyper.SKILLS}
  assert four == found["hyperformer"]


def test_a_method_of_its_own_keeps_what_others_reached(tmp_path, monkeypatch):
  committed = json.loads((hyper.HERE / "results.json").read_text())
  hyper.write(committed, tmp_path)
  new = dict.fromkeys(hyper.SKILLS, 12.5)
  monkeypatch.setattr(hyper, "alone", lambda given, name: new)
  assert not hyper.main(["--method", "mpt", f"--output_dir={tmp_path}"])
  found = json.loads((tmp_path / "results.json").read_text())
  assert list(found) == list(committed)
  assert {k for k in found if found[k] != committed[k]} == {"mpt"}
