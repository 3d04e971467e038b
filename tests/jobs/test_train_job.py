"""Jobs as values: runs of a bank, steps, and what is refused at once."""

import dataclasses
import functools
import re

import pytest

from prompt_tuning.jobs import eval_job, identity, task_modules
from prompt_tuning.jobs.settings import (
  Dataset,
  EvaluationSettings,
  MeshShape,
)
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
from prompt_tuning.tuners.lora import LoRA
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


def test_a_rank_that_no_kernel_has_is_refused_in_training():
  """Not where somebody else's is loaded, which works."""
  width = MODEL.emb_dim
  factory = functools.partial(LoRA, rank=width + 1, kernels=("enc_mlp/wo",))
  assert factory(MODEL.shape).rank == width + 1
  expected = (
    f"LORA_RANK is {width + 1}, and enc_mlp/wo has {MODEL.mlp_dim} x {width} "
    f"numbers, so no update of it can have a rank above {width}: lower"
  )
  with pytest.raises(ValueError, match=expected):
    build_tuner(factory, MODEL)
  assert build_tuner(functools.partial(factory, rank=width), MODEL)


def test_settings_side_by_side_are_those_of_the_parts():
  made = job(keep_best=False, patience=3, restore_dtype="int8")
  assert made.output == Output("run", keep_best=False)
  assert made.evaluations == EvaluationPlan(patience=3)
  assert made.source == ModelSource("checkpoint", "int8")
  assert made.duration == Duration(relative_steps=5)
  assert made.experiment == Experiment(MODEL, Dataset(RTE), Prompt)


NAN = float("nan")
# What meant something else than it said, or failed an hour later.
OUT_OF_BOUNDS = {
  "BATCH_SIZE": (lambda v: Dataset(RTE, batch_size=v), [0, -1, 1.5, True, "8"]),
  "TASK_FEATURE_LENGTHS['inputs']": (
    lambda v: Dataset(RTE, {"inputs": v, "targets": None}),
    [0, -3, 8.5],
  ),
  "PACKED_LENGTHS['targets']": (
    lambda v: Dataset(RTE, packed_lengths={"inputs": 8, "targets": v}),
    [0, None],
  ),
  "TRAIN_SPLIT": (lambda v: Dataset(RTE, split=v), [""]),
  "DROPOUT_RATE": (
    lambda v: dataclasses.replace(MODEL, dropout_rate=v),
    [1, 1.5, -0.1, NAN, "0.1"],
  ),
  "EVALUATOR_NUM_EXAMPLES": (
    lambda v: EvaluationSettings(Dataset(RTE), num_examples=v),
    [0, -1],
  ),
  "MAX_DECODE_LENGTH": (
    lambda v: EvaluationSettings(Dataset(RTE), max_decode_length=v),
    [0, 2.5],
  ),
  "EVALUATE_BY": (lambda v: EvaluationSettings(Dataset(RTE), v), [()]),
  "EVAL_PERIOD": (lambda v: job(eval_period=v), [-1, None]),
  "EVAL_STEPS": (lambda v: job(eval_steps=v), [-1]),
  "PATIENCE": (lambda v: job(patience=v), [0, -1]),
  "LOG_PERIOD": (lambda v: job(log_period=v), [0, -1]),
  "CHECKPOINT_PERIOD": (lambda v: job(checkpoint_period=v), [-1]),
  "KEEP_CHECKPOINTS": (lambda v: job(keep_checkpoints=v), [0]),
  "JSON_WRITE_N_RESULTS": (lambda v: job(json_write_n_results=v), [-1]),
  "MODEL_DIR": (lambda v: job(model_dir=v), ["", 3]),
  "TRAIN_STEPS": (lambda v: Duration(total_steps=v), [0, "a", 2.5]),
  "TRAIN_STEPS_RELATIVE": (lambda v: Duration(relative_steps=v), [0, -3]),
  "RESTORED_STEP": (lambda v: Duration(8, restored_step=v), [-1]),
  "NUM_MICROBATCHES": (lambda v: job(num_microbatches=v), [0, 1.5]),
  "SEEDS": (lambda v: job(seeds=v), [()]),
  "LEARNING_RATES": (lambda v: job(learning_rates=v), [()]),
  "meshes.Mesh.data": (lambda v: MeshShape(data=v), [0]),
  "prompt tuning.encoder_length": (
    lambda v: job(tuner=functools.partial(Prompt, encoder_length=v)),
    [1.5, True],
  ),
}


@pytest.mark.parametrize("setting", OUT_OF_BOUNDS)
def test_numbers_that_make_no_sense_are_refused_at_once(setting):
  make, values = OUT_OF_BOUNDS[setting]
  for value in values:
    with pytest.raises(ValueError, match=re.escape(setting)) as raised:
      make(value)
    assert repr(value) in str(raised.value) or "is empty" in str(raised.value)


def test_a_setting_that_is_none_or_missing_is_named():
  with pytest.raises(TypeError, match="seedz"):
    job(seedz=(0,))
  with pytest.raises(TypeError, match="dataset"):
    from_settings(model=MODEL)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"relative_steps": None}, "Set TRAIN_STEPS, or TRAIN_STEPS_RELATIVE"),
    ({"seeds": (None,)}, "Set RANDOM_SEED"),
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
    (
      {"task_feature_lengths": 3},
      "TASK_FEATURE_LENGTHS is 3; expected a limit of tokens for each",
    ),
    ({"packed_lengths": (512, 8)}, r"PACKED_LENGTHS is \(512, 8\); expected a"),
    ({"batch_size": 0}, "BATCH_SIZE is 0; expected"),
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
  assert f"{axb} has no validation split. So there are no scores" in caplog.text
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
