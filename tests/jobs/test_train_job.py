"""Jobs as values: runs of a bank, steps, and what is refused at once."""

import dataclasses
import functools

import pytest

from prompt_tuning.jobs import eval_job, identity, task_modules
from prompt_tuning.jobs.settings import Dataset, EvaluationSettings
from prompt_tuning.jobs.train_job import (
  Duration,
  EvaluationPlan,
  Experiment,
  ModelSource,
  Output,
  build_tuner,
  from_settings,
)
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.tuners.prompt import Prompt

RTE, CB = "taskless_super_glue_rte_v102", "taskless_super_glue_cb_v102"
MODEL = t5_config.get("t5_1_1_tiny")


def job(**changes):
  settings = {
    "model_dir": "run",
    "model": MODEL,
    "initial_checkpoint_path": "checkpoint",
    "dataset": Dataset(RTE),
    "tuner": Prompt,
    "relative_steps": 5,
  }
  return from_settings(**{**settings, **changes})


def test_one_run_needs_no_name():
  (run,) = job().experiment.runs
  assert (run.name, run.group, run.task) == ("", None, RTE)


def test_a_bank_has_all_combinations():
  runs = job(
    dataset=Dataset((RTE, CB)),
    tuner=(Prompt, functools.partial(Prompt, encoder_position="after")),
    learning_rates=(0.3, 0.1),
    seeds=(0, 1, 2),
  ).experiment.runs
  assert len(runs) == 24
  assert len({run.name for run in runs}) == 24
  assert runs[0].name == f"{RTE}_before_lr0.3_seed0"
  assert runs[0].group == runs[2].group == f"{RTE}_before_lr0.3"
  assert [run.task for run in runs] == [RTE] * 12 + [CB] * 12


def test_steps_are_counted_as_t5x_does():
  assert Duration(total_steps=1_150_000).num_steps(1_100_000) == 50_000
  both = Duration(total_steps=7, relative_steps=5)
  assert both.num_steps(1_100_000) == 5, "relative steps win"


def test_a_tuner_gets_the_models_width():
  assert build_tuner(Prompt, MODEL).emb_dim == MODEL.emb_dim
  partial = functools.partial(Prompt, encoder_length=7)
  assert build_tuner(partial, MODEL).encoder_length == 7


def test_settings_side_by_side_are_those_of_the_parts():
  made = job(keep_best=False, patience=3, restore_dtype="int8")
  assert made.output == Output("run", keep_best=False)
  assert made.evaluations == EvaluationPlan(patience=3)
  assert made.source == ModelSource("checkpoint", "int8")
  assert made.duration == Duration(relative_steps=5)
  assert made.experiment == Experiment(MODEL, Dataset(RTE), Prompt)


def test_a_setting_that_is_none_or_missing_is_named():
  with pytest.raises(TypeError, match="seedz"):
    job(seedz=(0,))
  with pytest.raises(TypeError, match="dataset"):
    from_settings(model=MODEL)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"relative_steps": None}, "Set TRAIN_STEPS, or TRAIN_STEPS_RELATIVE"),
    ({"seeds": (None,)}, "set RANDOM_SEED to a number"),
    ({"tuner": len}, "TUNER must be a tuning method"),
    ({"dataset": Dataset(RTE, split="trainn")}, "has no split 'trainn'"),
    (
      {"evaluation": EvaluationSettings(Dataset(RTE, split="dev"))},
      "has no split 'dev'; change TRAIN_SPLIT, EVAL_SPLIT or",
    ),
  ],
)
def test_jobs_that_cannot_be_done(changes, message):
  with pytest.raises(ValueError, match=message):
    job(**changes)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"mixture_or_task_name": "super_glue_rte_v1"}, "Did you mean"),
    (
      {"task_feature_lengths": {"input": 512, "targets": 8}},
      "TASK_FEATURE_LENGTHS names input, targets; expected inputs and targets",
    ),
    ({"batch_size": 0}, "BATCH_SIZE must be positive; got 0"),
    ({"batching": "bucket"}, "BATCHING 'bucket': expected one of fixed"),
    ({"module": "no_such_module"}, "cannot import 'no_such_module'"),
    (
      {"module": "prompt_tuning.data.super_gleu"},
      "Did you mean 'prompt_tuning.data.super_glue'",
    ),
  ],
)
def test_datasets_that_are_none(changes, message):
  with pytest.raises(ValueError, match=message):
    Dataset(**{"mixture_or_task_name": RTE, **changes})


def test_a_task_without_validation_is_trained_without_evaluation(caplog):
  """By command as in Python."""
  axb = "taskless_super_glue_axb_v102"  # has a test split only
  settings = EvaluationSettings(Dataset(axb, split="validation"))
  assert job(evaluation=settings).evaluations.evaluation is None
  assert f"{axb}: no validation split, so that nothing is" in caplog.text
  whole = EvaluationSettings(Dataset(RTE, split="validation"))
  assert job(evaluation=whole).evaluations.evaluation is whole
  with pytest.raises(ValueError, match="has no split 'validation'"):
    eval_job.EvalJob(MODEL, "checkpoint", settings, "out")


def test_an_unknown_way_to_evaluate():
  with pytest.raises(ValueError, match="expected 'generation' or 'rank'"):
    EvaluationSettings(Dataset(RTE), by=("rank", "guess"))


def test_modules_of_the_original_need_no_import():
  task_modules.ensure(["prompt_tuning.data.glue", "prompt_tuning.data.tasks"])


def test_a_module_of_the_users_is_imported(tmp_path, monkeypatch):
  (tmp_path / "module_with_a_task.py").write_text(
    "from prompt_tuning.data import custom\n"
    f"with open({str(tmp_path / 'a.jsonl')!r}, 'w') as file:\n"
    '  file.write(\'{"q": "a", "a": "b"}\\n\')\n'
    "custom.declare('task_of_a_module', "
    f"{{'train': {str(tmp_path / 'a.jsonl')!r}}}, '{{q}}', 'a')\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  dataset = Dataset("task_of_a_module", module="module_with_a_task")
  assert dataset.names == ("task_of_a_module",)


def test_equal_settings_have_equal_descriptions():
  from prompt_tuning.train.optimizers import Optax

  a, b = (Optax("adamw", weight_decay=0.1) for _ in range(2))
  assert identity.describe(a) == identity.describe(b)
  assert identity.describe(a) != identity.describe(Optax("adamw"))
  changed = dataclasses.replace(MODEL, dropout_rate=0.2)
  assert identity.describe(changed) != identity.describe(MODEL)
