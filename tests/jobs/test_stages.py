"""Trainings in turn: what each begins with, and how they are taken up again."""

import dataclasses
import json
import shutil
from unittest import mock

import numpy as np
import pytest

from prompt_tuning.checkpoints import bundle
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import embedded
from prompt_tuning.data import custom
from prompt_tuning.jobs import setup, stages, train
from prompt_tuning.jobs.settings import Dataset, MeshShape
from prompt_tuning.jobs.train_job import TrainingStage, from_settings
from prompt_tuning.train import loop
from prompt_tuning.train.objectives import CrossEntropy
from prompt_tuning.train.optimizers import Optax
from prompt_tuning.train.perceptron import PerceptronLoss
from prompt_tuning.tuners.method import Recipe, Stage
from prompt_tuning.tuners.prompt import Prompt
from tests.conftest import _random_params
from tests.jobs.short_run import MODEL, ROWS, _forward

ENCODER = (("tuner/encoder/.*", "train"), (".*", "freeze"))
DECODER = (("tuner/decoder/.*", "train"), (".*", "freeze"))
FIRST = TrainingStage("first", 2, ENCODER, Optax("sgd"), learning_rate=0.5)


@pytest.fixture
def make_job(tmp_path, own_tasks):
  path = tmp_path / "train.jsonl"
  lines = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
  path.write_text("\n".join(lines))
  task = custom.declare(
    "staged_cats",
    files={"train": str(path)},
    template="{text}",
    target_column="label",
    label_words=("no", "yes"),
  )

  def make(**changes):
    settings = {
      "model": MODEL,
      "dataset": Dataset(
        task.name,
        batch_size=2,
        batching="fixed",
        vocabulary_file=embedded.vocabulary(embedded.DEFAULT),
        cache_dir=str(tmp_path / "tokens"),
      ),
      "tuner": Prompt(MODEL.emb_dim, encoder_length=2, decoder_length=1),
      "seeds": (8, 9),
      "rules": DECODER,
      "stages": (FIRST,),
      "initial_checkpoint_path": None,
      "mesh": MeshShape(data=1),
      "relative_steps": 2,
      "model_dir": str(tmp_path / "run"),
      "progress_bar": False,
      "tensorboard": False,
    }
    return from_settings(**{**settings, **changes})

  return make


def learned(folder):
  """Read what a training had learned at last: encoder, decoder."""
  saved = bundle.read_latest(folder / loop.BUNDLES)[1].parameters
  return [
    saved[f"tuner/{s}/prompt/prompt/prompt"] for s in ("encoder", "decoder")
  ]


def test_every_stage_begins_where_the_one_before_ended(make_job, tmp_path):
  model = Backbone(MODEL, _random_params(MODEL), 0, "random")
  said = []

  def run(job):
    with mock.patch.object(setup, "_forward", return_value=_forward):
      return train.train(job, model=model, say=said.append)

  outcome = run(make_job())
  first = learned(tmp_path / "run" / "stages" / "first")
  last = learned(tmp_path / "run")
  np.testing.assert_array_equal(first[0], last[0])
  assert (first[1] != last[1]).any(axis=(1, 2)).all()
  start = outcome.setup.frozen["tuner"]["encoder"]["prompt"]["prompt"]["prompt"]
  np.testing.assert_array_equal(start, first[0])
  assert sum("Stage in" in line for line in said) == 1

  # The same command goes on from the last stage, and leaves the first alone.
  run(make_job(relative_steps=3))
  assert sum("Stage in" in line for line in said) == 1
  np.testing.assert_array_equal(learned(tmp_path / "run")[0], first[0])
  assert (learned(tmp_path / "run")[1] != last[1]).any()
  other = dataclasses.replace(FIRST, learning_rate=0.1)
  with pytest.raises(ValueError, match=r"runs\[0\].learning_rate"):
    run(make_job(stages=(other,)))

  # Killed behind the first stage: what that has learned is still its own.
  shutil.rmtree(tmp_path / "run" / "bundles")
  with pytest.raises(ValueError, match=r"runs\[0\].learning_rate"):
    run(make_job(stages=(other,)))
  shorter = dataclasses.replace(FIRST, steps=1)
  with pytest.raises(ValueError, match="trained for 2 steps, but now has 1"):
    run(make_job(stages=(shorter,)))
  model = Backbone(MODEL, model.params, 0, "another")
  with pytest.raises(
    ValueError, match=r"first holds.*\n  backbone.fingerprint"
  ):
    run(make_job())


def test_stages_are_trainings_of_their_own(make_job, tmp_path):
  second = TrainingStage("second", 5, DECODER)
  job = make_job(stages=(FIRST, second))
  one, two, last = stages.of(job)
  folder = tmp_path / "run"
  assert one.output.model_dir == str(folder / "stages" / "first")
  assert one.experiment.after is None
  assert one.experiment.rules == ENCODER
  assert [run.learning_rate for run in one.experiment.runs] == [0.5, 0.5]
  assert one.duration.num_steps(0) == 2
  assert two.experiment.after == one.output.model_dir
  assert [run.learning_rate for run in two.experiment.runs] == [0.3, 0.3]
  assert two.experiment.run_stages == (FIRST,)
  assert two.experiment.run_optimizer == job.experiment.run_optimizer
  assert last.experiment.after == two.output.model_dir
  assert last.output == job.output
  assert not stages.has_ended(one)


def test_what_has_learned_already_needs_no_gradient(make_job):
  job = make_job()
  first, last = (one.experiment for one in stages.of(job))
  insists = train._insists_on_gradients
  assert insists(first, CrossEntropy())
  assert not insists(last, CrossEntropy())
  started = make_job(start_from="a_prompt", stages=None).experiment
  assert not insists(started, CrossEntropy())
  assert not insists(first, PerceptronLoss(None, None, 8, 1))


def test_a_training_without_stages_is_one(make_job):
  job = make_job(stages=None)
  assert stages.of(job) == [job]


def test_recipes_may_have_stages(make_job):
  class Staged(Prompt):
    recipe = dataclasses.replace(
      Prompt.recipe, stages=(Stage("words", 7, ENCODER, Recipe(0.01, "adam")),)
    )

  job = make_job(stages=None, tuner=Staged(MODEL.emb_dim, decoder_length=1))
  (stage,) = job.experiment.run_stages
  assert (stage.name, stage.steps, stage.learning_rate) == ("words", 7, 0.01)
  assert stage.optimizer.name == "adam"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"stages": (FIRST, FIRST)}, "Several stages are called first"),
    ({"learning_rates": (0.1, 0.2)}, "sets a learning rate"),
    (
      {"stages": (dataclasses.replace(FIRST, rules=((".*", "train"),)),)},
      "expected parameters of the tuning method",
    ),
  ],
)
def test_stages_that_cannot_be(make_job, changes, message):
  with pytest.raises(ValueError, match=message):
    stages.of(make_job(**changes))


@pytest.mark.parametrize(("name", "steps"), [("../up", 2), ("first", 0)])
def test_malformed_stages(name, steps):
  with pytest.raises(ValueError, match=r"(stage|Stage)"):
    TrainingStage(name, steps, ENCODER)
