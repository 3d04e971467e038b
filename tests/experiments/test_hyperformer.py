"""Four skills in one run: what is trained, and how it is told."""

import json

import pytest

from experiments.hyperformer import run as hyper
from prompt_tuning.launch import command, flags

pytestmark = pytest.mark.usefixtures("own_tasks")


@pytest.mark.parametrize("method", [hyper.HYPER, hyper.SHARED])
def test_four_skills_are_one_run_with_the_papers_smoothing(method):
  file, *settings = method
  argv = [
    f"--gin_file={hyper.HERE / 'common.gin'}",
    f"--gin_file={file}.gin",
    "--gin.MODEL_DIR='runs/never'",
    *(f"--gin.{setting}" for setting in settings),
  ]
  job = command.configure("train", flags.parse("train", argv, ""))
  (tuner,) = job.experiment.tuners
  assert job.experiment.objective.label_smoothing == 0.1
  tasks = hyper.SKILLS if method is hyper.HYPER else ()
  assert tuner.conditions == tasks


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
  assert hyper.table(found) == (hyper.HERE / "table.md").read_text()
