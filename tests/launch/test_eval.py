"""`prompt-tuning eval`: the best prompts again, alone and as an ensemble."""

import json
import re
import types

import numpy as np
import pytest

from prompt_tuning.checkpoints import bundle
from prompt_tuning.data import spec
from prompt_tuning.jobs import evaluate, load
from prompt_tuning.jobs.settings import Dataset, EvaluationSettings
from prompt_tuning.jobs.summary import Row, scores, scores_by_task
from prompt_tuning.launch import main
from prompt_tuning.models.scorers import WholeWords
from prompt_tuning.tuners.hyperformer import HyperFormer

TASK = "speaks_of_a_cat"
STEP = 1_100_000


@pytest.fixture
def run(common_flags, tiny_checkpoint, tmp_path):
  """Evaluate; returns the status."""

  def evaluate_prompts(prompt_file, *more):
    return main.main(
      [
        "eval",
        *common_flags("prompt_eval"),
        f"--gin.CHECKPOINT_PATH='{tiny_checkpoint}'",
        f"--gin.PROMPT_FILE={prompt_file}",
        f"--gin.EVAL_OUTPUT_DIR='{tmp_path / 'out'}'",
        "--gin.EVALUATE_BY='rank'",
        "--gin.EVALUATOR_NUM_EXAMPLES=4",
        *more,
      ]
    )

  return evaluate_prompts


def predictions(folder, step):
  path = folder / f"{TASK}-{step}.jsonl"
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  return [(row["rank_prediction"], row["rank_scores"]) for row in rows]


def test_a_runs_folder_gives_the_same_predictions(
  run, finished, tmp_path, capsys, tolerance
):
  """Export, reload: what training wrote, evaluation writes again."""
  assert run(f"'{finished}'") == 0
  table = capsys.readouterr().out
  for name in ("seed0", "seed1", "mean", "vote"):
    assert re.search(rf"^ {name} ", table, re.MULTILINE), table
  steps, told = load.load(finished).steps, {}
  for k, name in enumerate(("seed0", "seed1")):
    (best,) = bundle.steps(finished / "best" / f"run_{k}")
    assert steps[k] == STEP + best
    written = tmp_path / "out" / "inference_eval" / name
    told[name] = json.loads(
      (written / f"{TASK}-{steps[k]}.COMPLETED").read_text()
    )
    ours = predictions(written, steps[k])
    theirs = predictions(finished / "inference_eval" / name, steps[k])
    assert [p for p, _ in ours] == [p for p, _ in theirs]
    np.testing.assert_allclose(
      [s for _, s in ours], [s for _, s in theirs], **tolerance["same"]
    )
  # What was answered, and by what: only what was learned differs.
  differing = {k for k in told["seed0"] if told["seed0"][k] != told["seed1"][k]}
  assert differing == {"delta"}
  assert told["seed0"]["inputs"]["count"] == 4


def test_exported_files_give_the_same_scores(run, finished, capsys):
  """The run's folder, its .npy and its PEFT adapter are one prompt."""
  folder = finished / "exports" / "seed1"
  (bundle,) = (finished / "best" / "run_1").iterdir()
  named = {
    "adapter": str(folder / "peft"),
    "array": str(folder / "prompt.npy"),
    "bundle": str(bundle),
  }
  assert run(repr(named)) == 0
  rows = [
    line.split()[-2:]  # views do not say at which step they were saved
    for line in capsys.readouterr().out.splitlines()
    if line.split()[:1] and line.split()[0] in named
  ]
  assert len(rows) == 3
  assert rows[0] == rows[1] == rows[2]


@pytest.fixture(scope="module")
def tuned_model(tmp_path_factory, train_flags):
  """Two whole models, trained side by side."""
  folder = tmp_path_factory.mktemp("tuned") / "run"
  more = ("--gin.SEEDS=(0, 1)", "--gin.EVAL_PERIOD=4")
  flags = train_flags(folder, *more, run="model_tuning", prompt=())
  assert main.main(["train", *flags]) == 0
  return folder


def test_a_tuned_model_gives_its_predictions_again(
  run, tuned_model, tmp_path, tolerance
):
  (path,) = (tuned_model / "best" / "run_1").iterdir()
  assert run(f"'{path}'") == 0
  ours = predictions(tmp_path / "out/inference_eval/seed1", STEP + 4)
  theirs = predictions(tuned_model / "inference_eval/seed1", STEP + 4)
  assert [p for p, _ in ours] == [p for p, _ in theirs]
  np.testing.assert_allclose(
    [s for _, s in ours], [s for _, s in theirs], **tolerance["same"]
  )


def test_tuned_models_are_used_one_at_a_time(
  run, tuned_model, finished, capsys
):
  (path,) = (tuned_model / "best" / "run_1").iterdir()
  together = {
    "model": str(path),
    "prompt": str(finished / "exports/seed1/peft"),
  }
  for several in (f"'{tuned_model}'", repr(together)):
    assert run(several) == 2
    assert "cannot be used side by side" in capsys.readouterr().err


def test_a_tuned_model_of_other_layers_is_refused(run, tuned_model, capsys):
  (path,) = (tuned_model / "best" / "run_1").iterdir()
  assert run(f"'{path}'", "--gin.SCAN_LAYERS=True") == 2
  assert "Set SCAN_LAYERS as in its training" in capsys.readouterr().err


def test_the_plain_model(run, tmp_path, capsys):
  assert run("None") == 0
  table = capsys.readouterr().out
  assert re.search(r"^ frozen model ", table, re.MULTILINE), table
  assert "vote" not in table
  (metrics,) = (tmp_path / "out").rglob(f"{TASK}-metrics.jsonl")
  assert json.loads(metrics.read_text())["step"] == 1_100_000


def test_prompts_named_like_tasks_go_to_their_task(
  run, finished, tmp_path, capsys
):
  """Also those of a bank, which have names of their own."""
  (path,) = (finished / "best" / "run_1").iterdir()
  assert run(repr({TASK: str(path)})) == 0
  table = capsys.readouterr().out
  assert re.search(rf"^ {TASK} ", table, re.MULTILINE), table
  assert "vote" not in table
  written = [path.name for path in (tmp_path / "out/inference_eval").iterdir()]
  assert written == [TASK]


def test_another_backbone_is_refused(
  run, finished, tmp_path, random_params, capsys
):
  from prompt_tuning.checkpoints import restore, t5x_writer
  from prompt_tuning.models.t5 import config

  other = tmp_path / "checkpoint_5"
  params = random_params(config.get("t5_1_1_tiny"), seed=1)
  t5x_writer.write_t5x(other, restore.leaves_of(params), step=5)
  assert run(f"'{finished}'", f"--gin.CHECKPOINT_PATH='{other}'") == 2
  message = capsys.readouterr().err
  assert re.search(r"was tuned with the backbone \w{16}, but", message)


@pytest.mark.parametrize(
  ("prompt_file", "message"),
  [
    ("'nowhere'", "nowhere"),
    ("'{finished}/config.gin'", "config.gin"),
  ],
)
def test_no_prompt_there(run, finished, prompt_file, message, capsys):
  assert run(prompt_file.format(finished=finished)) == 2
  assert message in capsys.readouterr().err


def test_every_task_has_a_table():
  rows = [
    Row("a", 1, {"cb/f1": 1.0, "cb/accuracy": 2.0}),
    Row("b", 1, {"rte/accuracy": 3.0}),
  ]
  cb, rte = scores_by_task(rows).split("\n\n")
  assert [line.split() for line in cb.splitlines()[:2]] == [
    ["cb"],
    ["run", "step", "f1", "accuracy"],
  ]
  assert rte.splitlines()[-1].split() == ["b", "1", "3.00"]


def test_a_scorer_that_ranks_nothing_is_mentioned(caplog):
  dataset = Dataset("skill_first")
  for by, said in (("generation", True), ("rank", False)):
    caplog.clear()
    evaluate._warn_of_idle_scorer(
      EvaluationSettings(dataset, by=by, scorer=WholeWords())
    )
    assert ("WholeWords is not used" in caplog.text) is said


def test_a_task_that_no_condition_is_of_is_mentioned(caplog):
  method = HyperFormer(tasks=("skill_first", "skill_last_examples"))
  jobs = [
    types.SimpleNamespace(
      run=run, dataset=types.SimpleNamespace(task=spec.task(task))
    )
    for task in ("skill_last", "skill_largest")
    for run in (0, 1)
  ]
  tuned = load.PLAIN._replace(methods=(method, method))
  evaluate._warn_of_other_tasks(jobs, tuned)
  (record,) = caplog.records
  expected = "The run was not trained on skill_largest, only on "
  assert record.getMessage().startswith(f"{expected}skill_first, skill_last.")
  caplog.clear()
  evaluate._warn_of_other_tasks(jobs, load.PLAIN._replace(methods=(None,) * 2))
  assert not caplog.records


def test_steps_that_nobody_knows_take_no_column():
  lines = scores([Row("a", None, {"f1": 1.0})]).splitlines()
  assert lines[0].split() == ["run", "f1"]
  assert lines[2].split() == ["a", "1.00"]


def test_a_table_folds_seeds_and_puts_controls_last():
  rows = [
    Row("frozen model", None, {"t/accuracy": 1.0}, is_control=True),
    Row("seed0", 10, {"t/accuracy": 50.0, "t/gold_share/no": 3.0}, ""),
    Row("seed1", 1_100_020, {"t/accuracy": 70.0}, ""),
  ]
  lines = scores(rows).splitlines()
  assert lines[0].split() == ["run", "step", "t/accuracy"]
  assert lines[2].split() == ["seed0", "10", "50.00"]
  assert lines[3].split() == ["seed1", "1,100,020", "70.00"]
  assert lines[4].split() == ["mean", "±", "sd", "60.00", "±", "14.14"]
  assert lines[5].split() == ["frozen", "model", "1.00"]


def test_another_vocabulary_of_the_same_size(
  run, finished, other_vocabulary_file, capsys
):
  setting = f"--gin.VOCABULARY_FILE='{other_vocabulary_file}'"
  assert run(f"'{finished}'", setting) == 2
  text = capsys.readouterr().err
  assert f"{finished} was trained with the vocabulary 'embedded:lad" in text
  assert str(other_vocabulary_file) in text
  assert "Set VOCABULARY_FILE" in text


def test_few_shot_in_context(run, tmp_path, capsys):
  """Two answered examples, one of each class, before every input."""
  context = ("--gin_file=contexts/few_shot.gin", "--gin.SHOTS=2")
  assert run("None", *context, "--gin.BETWEEN='label:'") == 0
  assert " 2-shot in context " in capsys.readouterr().out
  folder = tmp_path / "out" / "inference_eval"
  answers = folder / f"{TASK}-{STEP}.jsonl"
  rows = [json.loads(line) for line in answers.read_text().splitlines()]
  for row in rows:
    assert row["input"]["demonstrations"] == 2
    parts = row["input"]["inputs_pretokenized"].split(" label:")
    assert parts[-1] == ""
    assert {part.split()[0] for part in parts[1:-1]} == {"yes", "no"}
    assert all("text:" in part for part in parts[:-1])
  assert len({row["input"]["inputs_pretokenized"] for row in rows}) > 1
  told = json.loads(answers.with_suffix(".COMPLETED").read_text())
  assert told["context"]["shots"] == 2
  assert told["ranked_by"] == "whole targets with EOS, sum over pieces"
  (line,) = (folder / f"{TASK}-metrics.jsonl").read_text().splitlines()
  assert json.loads(line)["step"] == STEP


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (
      ("EVAL_SPLIT='train'",),
      "and so do the examples to answer: set EVAL_SPLIT",
    ),
    (("SHOTS=25",), "SHOTS is 25, but the training split has only 24"),
    (
      ("TASK_FEATURE_LENGTHS={'inputs': 4, 'targets': 4}",),
      "was chosen as a demonstration, and takes",
    ),
  ],
)
def test_demonstrations_that_cannot_be(run, settings, message, capsys):
  flags = [f"--gin.{setting}" for setting in settings]
  assert run("None", "--gin_file=contexts/few_shot.gin", *flags) == 2
  assert message in capsys.readouterr().err
