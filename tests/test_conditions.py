"""A run with a delta for each of its tasks, from training to an export."""

import dataclasses
import types

import numpy as np
import pytest

import prompt_tuning as pt
from prompt_tuning.checkpoints import bundle
from prompt_tuning.core import algebra
from prompt_tuning.jobs import load, setup
from prompt_tuning.launch import main

SKILLS = ("skill_first", "skill_last")
TEXTS = ["hot loud old", "red cat dog"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, own_tasks):
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
  with pytest.raises(ValueError, match=r"but none for skill_largest\. Remove"):
    model.train("rated_zero", method=method, steps=1, batch_size=4)


@pytest.fixture(scope="module")
def extended(trained, tmp_path_factory):
  """A third skill, of which nothing but its vector trains."""
  _, _, folder = trained
  target = tmp_path_factory.mktemp("extended") / "run"
  pt.mixtures.declare("three_skills", (*SKILLS, "skill_largest"))
  rules = (("tuner/tasks/2", "train"), (".*", "freeze"))
  flags = [
    *("--gin_file=models/embedded.gin", "--gin_file=methods/hyperformer.gin"),
    *("--gin_file=runs/finetune.gin", "--gin_file=meshes/single.gin"),
    f"--gin.MODEL_DIR={str(target)!r}",
    "--gin.MIXTURE_OR_TASK_NAME='three_skills'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 16}",
    "--gin.TRAIN_STEPS=None",
    "--gin.TRAIN_STEPS_RELATIVE=2",
    "--gin.BATCH_SIZE=4",
    "--gin.HYPER_REDUCTION=8",
    "--gin.LEARNING_RATE=0.1",
    f"--gin.START_FROM={str(folder)!r}",
    f"--gin.PARTITION_RULES={rules!r}",
    "--gin.train.evaluation=None",
    "--gin.train.progress_bar=False",
  ]
  assert main.main(["train", *flags]) == 0
  return target, flags


def test_a_task_is_added_by_its_vector_alone(trained, extended):
  _, tuned, _ = trained
  folder, _ = extended
  loaded = load.load(folder)
  assert loaded.names == (*SKILLS, "skill_largest")
  for number, name in enumerate(SKILLS):  # to the bit
    ours = algebra.named_leaves(loaded.runs.one(number).delta)
    theirs = algebra.named_leaves(tuned.runs[name].delta)
    for leaf, array in ours.items():
      np.testing.assert_array_equal(array, theirs[leaf], leaf)
  saved = bundle.read(bundle.step_path(folder / "bundles", 2))
  assert list(saved.trainable) == ["tuner/tasks/2"]
  assert saved.trainable["tuner/tasks/2"].shape == (1, 64)
  assert "tuner/tasks/0" in saved.fixed


def test_what_does_not_train_is_held_against_the_bundle(extended, capsys):
  folder, flags = extended
  path = bundle.step_path(folder / "bundles", 2)
  saved = bundle.read(path)
  name = "tuner/tasks/0"
  other = {**saved.fixed, name: saved.fixed[name] + 1}
  bundle.write(path, dataclasses.replace(saved, fixed=other))
  assert main.main(["train", *flags, "--gin.TRAIN_STEPS_RELATIVE=3"]) == 2
  message = capsys.readouterr().err
  assert f"{name} of the tuning method" in message
  assert "do not train, but have other values" in message
  bundle.write(path, saved)


def test_what_a_run_cannot_start_from(extended, tmp_path, capsys):
  _, flags = extended
  elsewhere = f"--gin.MODEL_DIR={str(tmp_path / 'x')!r}"
  nowhere = f"--gin.START_FROM={str(tmp_path / 'nowhere')!r}"
  assert main.main(["train", *flags, elsewhere, nowhere]) == 2
  assert "nowhere" in capsys.readouterr().err


def test_parameters_of_another_method_are_named(trained):
  _, _, folder = trained
  params = {"tasks": {"0": np.zeros((1, 32), np.float32)}}
  with pytest.raises(ValueError, match="other parameters") as error:
    setup._started(params, (), folder)
  assert "tasks/0: [64] there, [32] here" in str(error.value)
  assert "tasks/1: [64] there, nothing here" in str(error.value)


def test_tasks_in_another_order_are_refused(trained):
  """Their vectors would be taken for each other's."""
  _, _, folder = trained
  method = types.SimpleNamespace(conditions=SKILLS[::-1])
  with pytest.raises(
    ValueError, match="in that order, and new ones after them"
  ):
    setup._started({}, (method,), folder)


@pytest.mark.parametrize("kind", ["answers", "weighed_words"])
def test_numbers_of_other_words_are_refused(monkeypatch, kind):
  """Arrays of one shape, whose rows are of other words."""

  def method(words):
    others = {"answers": (), "weighed_words": (), "conditions": ()}
    return types.SimpleNamespace(**{**others, kind: words})

  source = {"a": np.zeros((1, 2), np.float32)}, method(("yes", "no"))
  monkeypatch.setattr(setup.load, "parameters", lambda path: source)
  ours = {"a": np.ones((1, 2), np.float32)}
  taken = setup._started(ours, (method(("yes", "no")),), "b")
  assert not taken["a"].any()
  with pytest.raises(
    ValueError, match=r"START_FROM b has learned.* yes, no, but"
  ):
    setup._started(ours, (method(("no", "yes")),), "b")
