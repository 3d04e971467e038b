"""A run with a delta for each of its tasks, from training to an export."""

import numpy as np
import pytest

import prompt_tuning as pt
from prompt_tuning.core import algebra
from prompt_tuning.jobs import load

SKILLS = ("skill_first", "skill_last")
TEXTS = ["hot loud old", "red cat dog"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp("conditions") / "run"
  pt.mixtures.declare("both_skills", SKILLS)
  model = pt.load_model()
  tuned = model.train(
    "both_skills",
    method=pt.HyperFormerPlusPlus(reduction=8),
    steps=2,
    batch_size=4,
    learning_rate=0.01,
    folder=folder,
    eval_period=0,
  )
  return model, tuned, folder


def test_every_task_has_a_run_of_its_own(trained):
  _, tuned, _ = trained
  assert list(tuned.runs) == list(SKILLS)
  assert [origin.task for origin in tuned.origins.values()] == list(SKILLS)
  first, last = (algebra.named_leaves(r.delta) for r in tuned.runs.values())
  different = [name for name in first if np.any(first[name] != last[name])]
  # All that is generated differs; factors on norms are shared.
  assert {name.split("/")[0] for name in first} == {"bottleneck", "norm"}
  assert different
  assert all(name.startswith("bottleneck/") for name in different)


def test_the_folder_and_its_exports_hold_the_same(trained):
  model, tuned, folder = trained
  loaded = load.load(folder)
  assert loaded.names == SKILLS
  assert loaded.tasks == SKILLS
  ours = model.with_tuned(tuned.runs).score(TEXTS, ["hot", "dog"], "skill_last")
  theirs = {name: folder / "exports" / name for name in SKILLS}
  exported = model.with_tuned(theirs)
  assert exported.score(TEXTS, ["hot", "dog"], "skill_last") == ours
  other = exported.score(TEXTS, ["hot", "dog"], "skill_first")
  assert list(other) != list(ours)


def test_a_task_without_a_condition_is_named(trained):
  model, _, _ = trained
  pt.mixtures.declare("rated_zero", {"skill_first": 1, "skill_largest": 0})
  method = pt.HyperFormerPlusPlus(reduction=8)
  with pytest.raises(ValueError, match=r"and none for skill_largest\. Take it"):
    model.train("rated_zero", method=method, steps=1, batch_size=4)
