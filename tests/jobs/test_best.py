"""Which bundles are the best of a training, whatever became of its folder."""

import copy
import json
import pathlib
import shutil

import numpy as np
import pytest

from prompt_tuning.checkpoints import bundle
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.jobs import best, evaluate, inspect, load
from prompt_tuning.jobs.load import Tuned
from prompt_tuning.launch import main

# Two seeds on one task; the best are of steps 10 and 20, 20 is the last.
TRAINING = (
  pathlib.Path(__file__).parent.parent
  / "golden"
  / "before_methods"
  / "before_text"
)
START = load.load(TRAINING / "bundles" / "step_00000020").step - 20


@pytest.fixture
def folder(tmp_path):
  shutil.copytree(TRAINING, tmp_path / "training")
  return tmp_path / "training"


def best_of(folder, run, step):
  return bundle.step_path(folder / "best" / f"run_{run}", step)


def rewrite(path, change):
  """Change the manifest of a bundle, which stays a whole one."""
  saved = bundle.read(path)
  manifest = copy.deepcopy(dict(saved.manifest))
  change(manifest)
  bundle.write(path, bundle.Bundle(manifest, saved.trainable, saved.resume))


def paths(folder):
  return [str(one.path.relative_to(folder)) for one in best.read(folder)]


def test_every_run_has_its_own_step(folder, tmp_path):
  expected = [f"best/run_{k}/step_000000{s}" for k, s in ((0, 10), (1, 20))]
  assert paths(folder) == expected
  found = load.load(folder)
  assert found.steps == (START + 10, START + 20)
  assert found.step is None
  assert main.main(["export", str(folder), str(tmp_path / "out")]) == 0
  for k, step in enumerate(found.steps):
    card = tmp_path / "out" / f"seed{k}" / "delta" / "delta.json"
    assert json.loads(card.read_text())["about"]["step"] == step


def test_the_record_decides_not_the_number(folder):
  """A killed training left the best of steps that it will do again."""
  path = best_of(folder, 0, 15)
  shutil.copytree(best_of(folder, 0, 10), path)
  rewrite(path, lambda manifest: manifest.update(step=15))
  assert paths(folder)[0] == "best/run_0/step_00000010"
  described = inspect.report(str(folder))["runs"]
  assert [run["best_step"] for run in described] == [START + 10, START + 20]


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_best_that_is_gone_is_an_error(left, folder, capsys, tmp_path):
  shutil.rmtree(folder / "best" / "run_0")
  if left != "nothing":
    (folder / "best" / "run_0").mkdir()
  out = tmp_path / "out"
  assert main.main(["export", str(folder), str(out)]) == 2
  error = capsys.readouterr().err
  assert "best/run_0/step_00000010" in error
  assert "the best of run 0 (seed0)" in error
  assert "bundles/step_00000020 for the last step of all runs" in error
  assert not out.exists()


def test_bests_without_bundles(folder):
  """As somebody copies them who wants to keep nothing else."""
  shutil.rmtree(folder / "bundles")
  assert paths(folder)[1] == "best/run_1/step_00000020"
  shutil.rmtree(folder / "best" / "run_0")
  with pytest.raises(CheckpointError, match=r"best of run 0 \(seed0\)"):
    best.read(folder)


@pytest.mark.parametrize("bundles", ["with", "without"])
def test_the_best_of_another_training_is_refused(bundles, folder):
  if bundles == "without":
    shutil.rmtree(folder / "bundles")

  def of_another_task(manifest):
    manifest["run"]["runs"][0]["task"] = "skill_last"

  path = best_of(folder, 0 if bundles == "with" else 1, 10)
  if bundles == "without":
    path = best_of(folder, 1, 20)
  rewrite(path, of_another_task)
  with pytest.raises(CheckpointError, match=r"run\.runs\[0\]\.task|runs\[0\]"):
    load.load(folder)


def test_the_best_of_another_run_is_refused(folder):
  shutil.rmtree(best_of(folder, 0, 10))
  shutil.copytree(best_of(folder, 1, 20), best_of(folder, 0, 10))
  with pytest.raises(CheckpointError, match="that of run 1"):
    load.load(folder)


def test_a_run_without_a_score_is_taken_as_it_was_at_last(folder):
  """As at the end of a training; the others are their best."""
  last = bundle.step_path(folder / "bundles", 20)

  def forget(manifest):
    manifest["progress"]["best"][0] = None

  rewrite(last, forget)
  found = load.load(folder)
  assert found.steps == (START + 20, START + 20)
  (weights,) = (
    array
    for path, array in bundle.read(last).trainable.items()
    if path.endswith("encoder/prompt/prompt/prompt")
  )
  np.testing.assert_array_equal(found.runs.delta.virtual[0], weights[0])


@pytest.mark.parametrize("said", [True, False])
def test_a_training_that_kept_no_best(said, folder, caplog):
  shutil.rmtree(folder / "best")

  def keep_none(manifest):
    manifest["run"]["evaluation"] = {"keep_best": False}

  if said:
    rewrite(bundle.step_path(folder / "bundles", 20), keep_none)
  assert paths(folder) == ["bundles/step_00000020"]
  assert ("using the last step of all runs" in caplog.text) is not said


def tuned(keys, tasks):
  count = len(keys)
  return Tuned(None, ("",) * count, keys=tuple(keys), tasks=tuple(tasks))


@pytest.mark.parametrize(
  ("keys", "trained", "expected"),
  [
    # Names of tasks pair, whatever the bundles say.
    (["a", "b"], ["a", "b"], ["a", "b"]),
    (["b", "a"], [None, None], ["b", "a"]),
    (["a", "b", "b"], ["a", "b", "b"], ["a", "b", "b"]),
    # A training on just these tasks: every run belongs to one.
    ([None, None], ["b", "a"], ["b", "a"]),
    ([None, None], ["a_examples", "b"], ["a", "b"]),
    # Names of the user's own, or tasks without a run: all with all.
    (["x", "y"], ["a", "b"], None),
    ([None], ["a"], None),
    ([None, None], ["a", "c"], None),
    ([None, None], [None, None], None),
  ],
)
def test_prompts_are_scored_on_their_own_tasks(keys, trained, expected):
  own = evaluate._own_tasks(("a", "b"), tuned(keys, trained))
  assert (own if own is None else list(own)) == expected


def test_a_prompt_of_another_task_is_said(caplog):
  own = evaluate._own_tasks(("a", "b"), tuned(["a", "b"], ["b", "b"]))
  assert list(own) == ["a", "b"]
  assert "gives the name 'a' to a run that was trained on 'b'" in caplog.text
  assert caplog.text.count("gives the name") == 1
