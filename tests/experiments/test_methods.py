"""The gate of all methods: every one is in it, and what it makes of scores."""

import json
import pathlib

import pytest

from experiments.methods import longer, rates
from experiments.methods import run as gate
from prompt_tuning.jobs.comparison import Comparison, Score
from prompt_tuning.launch import command, flags
from prompt_tuning.tuners import discovery

pytestmark = pytest.mark.usefixtures("own_tasks")

TASKS = tuple(f"skill_{name}" for name in gate.SKILLS)


def configured(name):
  argv = gate.arguments(name, pathlib.Path("runs/never"))
  return command.configure("compare", flags.parse("compare", argv, ""))


def test_every_method_is_there_with_four_skills_and_five_seeds():
  tested = set()
  for name in gate.METHODS:
    (training,) = configured(name).trainings
    assert len(training.experiment.runs) == len(TASKS) * 5, name
    assert training.experiment.dataset.names == TASKS, name
    assert training.duration.relative_steps in (300, 1200), name
    tested.add(type(training.experiment.tuners[0]))
  ours = {
    kind
    for kind in discovery.methods().values()
    if kind.__module__.startswith("prompt_tuning.")
  }
  # Skills have no words to weigh, and no relations.
  left = {kind.__name__ for kind in ours - tested}
  assert left == {
    *("WordWeights", "PromptAndWordWeights"),
    *("KnowPrompt", "KnowPromptTuned"),
  }


def test_permuted_answers_are_the_same_ones_of_other_texts(tmp_path):
  names = gate.declare_permuted(tmp_path)
  assert names == tuple(f"permuted_{skill}" for skill in gate.SKILLS)
  for skill in gate.SKILLS:
    rows = {
      split: [
        json.loads(line)
        for line in (tmp_path / f"{skill}_{split}.jsonl")
        .read_text()
        .splitlines()
      ]
      for split in ("train", "test")
    }
    right = list(gate.skills.examples(skill, "train"))
    assert [r["inputs"] for r in rows["train"]] == [r["inputs"] for r in right]
    answers = [r["targets"] for r in rows["train"]]
    true = [r["targets"] for r in right]
    assert sorted(answers) == sorted(true)
    assert sum(a == b for a, b in zip(answers, true, strict=True)) < 0.5 * len(
      true
    )
    assert rows["test"] == list(gate.skills.examples(skill, "test"))


def compared(scores, frozen=True):
  rows = [
    Score("a method", task, seed, score)
    for task, of_seeds in scores.items()
    for seed, score in enumerate(of_seeds)
  ]
  rows += [Score("frozen model", task, None, 10.0) for task in scores]
  return Comparison(
    tuple(rows),
    {"a method": 1.0},
    {"a method": 300},
    99,
    {"a method": 7},
    frozen,
  )


def test_the_worst_seed_decides():
  wrong = compared({f"permuted_{s}": [5.0] for s in gate.SKILLS})
  good = {task: [96.0, 100.0] for task in TASKS}
  found = gate.row(compared(good), wrong)
  assert found["recovers_all"]
  assert not found["learns_from_permuted"]
  assert found["frozen_unchanged"]
  bad = good | {"skill_last": [100.0, 94.0]}
  assert not gate.row(compared(bad), wrong)["recovers_all"]
  misled = compared({f"permuted_{s}": [97.0] for s in gate.SKILLS})
  assert gate.row(compared(good), misled)["learns_from_permuted"]
  assert not gate.row(compared(good, False), wrong)["frozen_unchanged"]
  line = gate.table({"mine": found}).splitlines()[-1]
  assert (
    line == "| mine | 7 | 300 | 96.0 | 96.0 | 96.0 | 96.0 | 98.0 | 5.0 | yes |"
  )


def test_a_method_of_its_own_keeps_what_others_reached(tmp_path, monkeypatch):
  committed = json.loads((gate.HERE / "results.json").read_text())
  gate.write(committed, tmp_path)
  kinds = {
    "right": compared({task: [97.0, 98.0] for task in TASKS}),
    "permuted": compared({f"permuted_{s}": [5.0] for s in gate.SKILLS}),
  }
  monkeypatch.setattr(gate, "run", lambda given, name, kind, _: kinds[kind])
  folders = (f"--work_dir={tmp_path}", f"--output_dir={tmp_path}")
  assert not gate.main(["--method", "lora", "warp", *folders])
  found = json.loads((tmp_path / "results.json").read_text())
  assert list(found) == list(committed)
  changed = {name for name in found if found[name] != committed[name]}
  assert changed == {"lora", "warp"}
  assert found["warp"]["mean"] == 97.5
  assert (tmp_path / "table.md").read_text() == gate.table(found)


def test_one_seed_of_prompts_recovers_all_skills(tmp_path):
  """The gate itself, with one seed of five."""
  folders = (f"--work_dir={tmp_path}", f"--output_dir={tmp_path}")
  assert not gate.main(["--method=prompt", *folders, "--gin", "SEEDS=(0,)"])
  found = json.loads((tmp_path / "results.json").read_text())["prompt"]
  assert found["recovers_all"], found
  assert found["frozen_unchanged"]
  assert max(found["permuted"].values()) < 60


def test_results_are_those_of_every_method(tmp_path, same_picture):
  results = json.loads((gate.HERE / "results.json").read_text())
  assert list(results) == list(gate.METHODS)
  assert gate.table(results) == (gate.HERE / "table.md").read_text()
  readme = (gate.HERE / "README.md").read_text()
  assert gate.table(results) in readme
  gate.write(results, tmp_path)
  same_picture(tmp_path / gate.FIGURE, gate.HERE / gate.FIGURE)
  for name, found in results.items():
    assert found["frozen_unchanged"], name
    assert not found["learns_from_permuted"], name
    for task, scores in found["scores"].items():
      assert len(scores) == 5
      assert min(scores) == found["worst"][task], name
  assert len(results) == 24
  assert sum(found["recovers_all"] for found in results.values()) == 17
  assert "Seventeen of twenty-four recover all four skills" in readme
  for name in rates.RATES:
    assert max(results[name]["scores"]["skill_first"]) < gate.ENOUGH, name


def test_other_rates_are_for_what_more_steps_do_not_mend():
  found = json.loads((gate.HERE / "rates.json").read_text())
  before = gate.read(gate.HERE)
  assert {name: one["skill"] for name, one in found.items()} == rates.missed()
  assert set(found) == set(rates.RATES)
  for name, one in found.items():
    (training,) = configured(name).trainings
    recipe = str(training.experiment.tuners[0].recipe.learning_rate)
    assert list(one["scores"])[1] == recipe
    assert one["scores"][recipe] == before[name]["scores"][one["skill"]]
  table = rates.table(found)
  assert table == (gate.HERE / "rates.md").read_text()
  assert table in (gate.HERE / "README.md").read_text()


def test_more_steps_are_for_what_was_missed():
  before = json.loads((gate.HERE / "results.json").read_text())
  found = json.loads((gate.HERE / "longer.json").read_text())
  assert {k: tuple(v["scores"]) for k, v in found.items()} == longer.missed(
    before
  )
  table = longer.table(found)
  assert table == (gate.HERE / "longer.md").read_text()
  assert table in (gate.HERE / "README.md").read_text()
  assert all(len(s) == 5 for v in found.values() for s in v["scores"].values())
