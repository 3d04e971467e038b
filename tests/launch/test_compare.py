"""`prompt-tuning compare` on a tiny model: every method, one table."""

import csv
import dataclasses
import itertools
import json

import numpy as np
import pytest

from prompt_tuning.data import spec
from prompt_tuning.jobs import compare, comparison, comparison_report, train
from prompt_tuning.jobs.comparison import Comparison, Score
from prompt_tuning.launch import command, main
from prompt_tuning.launch import flags as command_line

RANDOM, PROMPT = "random prompt", "prompt tuning"
FEW_SHOT = "2-shot in context"
TASK = "speaks_of_a_cat"
# The plain task stands in for one with an instruction: their scores must be
# equal then.
IN_WORDS = (
  f"--gin.INSTRUCTED={{'{TASK}': '{TASK}'}}",
  "--gin_file=contexts/few_shot.gin",
  "--gin.SHOTS=2",
)
# One task is a mixture, too.
MULTITASK = (
  "--gin.MULTITASK_TUNING=@multitask/train()",
  f"--gin.MULTITASK_TASKS=('{TASK}',)",
  "--gin.multitask/data.mixture.name='only_cats'",
)


@pytest.fixture(scope="module")
def flags(common_flags, tiny_checkpoint):
  def make(folder, *more):
    return [
      *common_flags("compare", "--gin_file=prompts/uniform_public.gin"),
      f"--gin.MODEL_DIR='{folder}'",
      f"--gin.INITIAL_CHECKPOINT_PATH='{tiny_checkpoint}'",
      "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 4}",
      "--gin.TRAIN_STEPS=None",
      "--gin.TRAIN_STEPS_RELATIVE=4",
      "--gin.MODEL_STEPS=2",
      "--gin.SEEDS=(0, 1)",
      "--gin.MODEL_SEEDS=(0,)",
      "--gin.BATCH_SIZE=4",
      "--gin.BATCHING='fixed'",
      "--gin.EVAL_PERIOD=2",
      "--gin.EVAL_STEPS=0",
      "--gin.EVALUATE_BY='rank'",
      "--gin.TEST_SPLIT='validation'",
      "--gin.train.progress_bar=False",
      "--gin.train.tensorboard=False",
      *more,
    ]

  return make


@pytest.fixture(scope="module")
def compared(tmp_path_factory, flags):
  folder = tmp_path_factory.mktemp("compared") / "run"
  argv = flags(folder, *IN_WORDS, *MULTITASK)
  assert main.main(["compare", *argv]) == 0
  return folder


def test_every_method_has_a_score_per_seed(compared):
  found = comparison.read(compared)
  assert found.tasks == (TASK,)
  assert found.methods == (
    comparison.PLAIN,
    comparison.INSTRUCTION,
    FEW_SHOT,
    RANDOM,
    PROMPT,
    comparison.MODEL,
    comparison.MULTITASK,
  )
  seeds = {
    method: [s.seed for s in found.scores if s.method == method]
    for method in found.methods
  }
  assert seeds == {
    comparison.PLAIN: [None],
    RANDOM: [0, 1],
    comparison.INSTRUCTION: [None],
    FEW_SHOT: [0],
    PROMPT: [0, 1],
    comparison.MODEL: [0],
    comparison.MULTITASK: [0],
  }
  told = found.made_of
  assert told["inputs"][TASK]["count"] > 0
  models = {comparison.MODEL, comparison.MULTITASK}
  assert told["learned"].keys() == {PROMPT, *models}
  assert {"backbone", "vocabulary", "by", "decoder"} <= told.keys()
  (context,) = told["contexts"]
  assert context["context"]["shots"] == 2
  assert context["sha256"] != told["inputs"][TASK]["sha256"]
  plain, asked = (
    found.of(method, TASK)
    for method in (comparison.PLAIN, comparison.INSTRUCTION)
  )
  assert plain == asked


def test_one_model_for_a_mixture_of_one_task_is_that_tasks(compared):
  """The same steps, examples and seed: the same score."""
  found = comparison.read(compared)
  alone, together = (
    found.of(method, TASK)
    for method in (comparison.MODEL, comparison.MULTITASK)
  )
  assert alone == together


def test_costs_and_frozen_weights_are_reported(compared):
  found = comparison.read(compared)
  assert found.frozen
  assert found.parameters == 257_856
  models = (comparison.MODEL, comparison.MULTITASK)
  assert found.trained == {PROMPT: 400, **dict.fromkeys(models, 257_856)}
  assert found.steps == {PROMPT: 4, **dict.fromkeys(models, 2)}
  assert all(seconds > 0 for seconds in found.seconds.values())
  assert found.runs == {PROMPT: 2, **dict.fromkeys(models, 1)}
  assert (
    found.step_seconds.keys() == found.step_bytes.keys() == found.runs.keys()
  )
  # A step has the model and activations, and model tuning a gradient.
  model = 4 * found.parameters
  assert found.step_bytes[PROMPT] > 1.2 * model
  assert found.step_bytes[comparison.MODEL] > 2 * model
  exported = compared / "prompts" / "exports" / "seed0" / "delta"
  on_disk = sum(path.stat().st_size for path in exported.iterdir())
  assert found.disk_bytes == {PROMPT: on_disk, **dict.fromkeys(models, model)}


def test_tables_and_a_picture_stand_beside_the_numbers(compared):
  with (compared / "comparison.csv").open(newline="") as file:
    lines = {line["method"]: line for line in csv.DictReader(file)}
  found = comparison.read(compared)
  assert tuple(lines) == found.methods
  prompt = lines[PROMPT]
  assert float(prompt["score"]) == found.mean(PROMPT)
  assert float(prompt["share"]) == 400 / 257_856
  assert int(prompt["step_bytes"]) == found.step_bytes[PROMPT]
  assert lines[RANDOM]["trained"] == lines[RANDOM]["share"] == ""
  text = (compared / "comparison.md").read_text()
  assert f"| {PROMPT} | " in text
  assert text.endswith("frozen weights: unchanged\n")
  assert (compared / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_the_prompts_are_those_that_eval_scores(
  compared, common_flags, tiny_checkpoint
):
  """The scores are those of another command on the saved prompts."""
  out = compared.parent / "eval"
  argv = [
    *common_flags("prompt_eval"),
    f"--gin.CHECKPOINT_PATH='{tiny_checkpoint}'",
    f"--gin.PROMPT_FILE='{compared / 'prompts'}'",
    f"--gin.EVAL_OUTPUT_DIR='{out}'",
    "--gin.EVALUATE_BY='rank'",
  ]
  assert main.main(["eval", *argv]) == 0
  scores = []
  for seed in (0, 1):
    path = out / "inference_eval" / f"seed{seed}" / f"{TASK}-metrics.jsonl"
    scores.append(json.loads(path.read_text().splitlines()[-1])["accuracy"])
  assert scores == comparison.read(compared).of(PROMPT, TASK)


def test_the_same_command_again_trains_nothing(compared, flags, capsys):
  before = comparison.read(compared)
  stamps = {
    path: path.stat().st_mtime_ns
    for path in compared.rglob("trainable.safetensors")
  }
  argv = flags(compared, *IN_WORDS, *MULTITASK)
  assert main.main(["compare", *argv]) == 0
  after = comparison.read(compared)
  # Costs too are those of the whole, not of what was left to do.
  assert after == before
  assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
  shown = capsys.readouterr().out
  assert "frozen weights: unchanged" in shown
  assert shown.endswith(
    f"\n\nas JSON: {compared / 'comparison.json'}\n"
    "as comparison.csv, comparison.md, comparison.png: beside it\n"
    f"prompts: {compared / 'prompts'}, beginning with summary.txt\n"
    f"models: {compared / 'models'}, beginning with summary.txt\n"
    f"multitask: {compared / 'multitask'}, beginning with summary.txt\n"
  )
  for name in ("prompts", "models"):
    assert TASK in (compared / name / "summary.txt").read_text()


def test_an_instruction_for_a_task_that_is_not_trained(flags, tmp_path, capsys):
  twin = "--gin.INSTRUCTED={'skill_first': 'instructed_skill_first'}"
  assert main.main(["compare", *flags(tmp_path / "run", twin)]) == 2
  assert "'skill_first', but nothing trains on it" in capsys.readouterr().err


def test_the_table_averages_seeds_and_tasks():
  scores = [
    Score(comparison.PLAIN, "a", None, 0.0),
    Score(comparison.PLAIN, "b", None, 10.0),
    Score(PROMPT, "a", 0, 90.0),
    Score(PROMPT, "a", 1, 100.0),
    Score(PROMPT, "b", 0, 50.0),
    Score(PROMPT, "b", 1, 50.0),
  ]
  found = Comparison(
    tuple(scores), {PROMPT: 12.0}, {PROMPT: 200}, 1_000,
    {PROMPT: 10}, True,
  )  # fmt: skip
  np.testing.assert_allclose(found.mean(PROMPT), 72.5)
  lines = comparison_report.table(found).splitlines()
  assert lines[2].split() == ["a", "0.0", "95.0", "±", "7.1"]
  assert lines[3].split() == ["b", "10.0", "50.0", "±", "0.0"]
  assert lines[4].split() == ["mean", "5.0", "72.5"]
  assert lines[-1] == "frozen weights: unchanged"


def many_methods():
  """Ten methods on two tasks, two seeds each, and what trains nothing."""
  names = [f"method {number}" for number in range(10)]
  scores = [
    Score(name, task, seed, 90.0 + number + seed)
    for number, name in enumerate(names)
    for task in ("a", "b")
    for seed in (0, 2)
  ]
  scores += [Score(comparison.PLAIN, task, None, 1.0) for task in ("a", "b")]
  scores += [Score("random thing", "a", 0, 3.0)]
  numbers = dict.fromkeys(names, 7)
  return Comparison(
    tuple(scores), {}, numbers, 700, numbers, True, step_bytes=numbers
  )


def test_many_methods_stand_below_each_other():
  lines = comparison_report.table(many_methods()).splitlines()
  assert lines[0].split() == ["task", "a", "b", "mean"]
  assert lines[2].split() == [
    *("method", "0", "91.0", "±", "1.4", "91.0", "±", "1.4", "91.0")
  ]
  assert max(map(len, lines[:-2])) <= 106


def test_a_long_name_takes_no_column_away():
  name = "random factors on the norms of a tuning method"
  found = Comparison(
    (Score(name, "a", 0, 1.0),),
    {name: 123_456.0}, {name: 9}, 10**9, {name: 10**9}, True, {},
    {name: 1_000}, {name: 1.0}, {name: 2**33}, {name: 2**32},
  )  # fmt: skip
  text = comparison_report.table(found)
  for cell in ("1,000,000,000", "100.00%", "8 GiB", "4 GiB", "123456 s"):
    assert cell in text, text


def test_rows_say_what_is_known():
  (row, *_) = comparison_report.rows(many_methods())
  assert (row.seeds, row.trained, row.share) == (2, 7, 0.01)
  assert row.deviation == pytest.approx(2**0.5)
  assert row.seconds is row.step_seconds is row.disk_bytes is None


def test_names_in_the_picture_do_not_overlap(tmp_path, monkeypatch):
  """Also where marks do: ten methods of one size within ten percent."""
  placed = []
  label = comparison_report._label
  monkeypatch.setattr(
    comparison_report, "_label", lambda *args: placed.append(label(*args))
  )
  comparison_report.draw(many_methods(), tmp_path / "picture.png")
  (names,) = placed
  assert len(names) == 12
  for one, other in itertools.combinations(names, 2):
    assert not one.meets(other)


def test_settings_of_one_method_are_told_apart(flags, tmp_path):
  def configured(*more):
    argv = flags(tmp_path / "never", *more)
    return command.configure("compare", command_line.parse("compare", argv, ""))

  both = "--gin.compare.prompts=(@train(), @longer/train())"
  job = configured(
    both,
    "--gin.longer/train.tuner=@longer/tuners.Prompt",
    "--gin.longer/tuners.Prompt.encoder_length=7",
    "--gin.longer/train.learning_rates=(0.1, 0.3)",
  )
  short, longer = job.trainings
  titles = [f"{PROMPT} encoder_length{n}" for n in (100, 7)]
  assert job.titles == tuple(titles)
  assert job.folder(longer) == titles[1].replace(" ", "_")
  assert set(job.run_titles(short)) == {titles[0]}
  assert set(job.run_titles(longer)) == {
    f"{titles[1]} lr0.1", f"{titles[1]} lr0.3"
  }  # fmt: skip
  with pytest.raises(ValueError, match="prompt tuning tuner0 twice, with"):
    dataclasses.replace(job, prompts=(short, short))


def test_the_model_is_read_once_for_all_trainings(flags, tmp_path, monkeypatch):
  """Also for the tuning of the model itself, which has copies."""
  read, load = [], train.backbone.load

  def counted(*args):
    read.append(args)
    return load(*args)

  monkeypatch.setattr(train.backbone, "load", counted)
  assert main.main(["compare", *flags(tmp_path / "run")]) == 0
  assert len(read) == 1


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"prompts": ()}, r"compare.prompts is \(\); expected @train\(\), or"),
    ({"prompts": 5}, "compare.prompts is 5; expected"),
    ({"models": 5}, r"compare.models is 5; expected @models/train\(\), or No"),
  ],
)
def test_what_is_no_training(flags, tmp_path, settings, message):
  argv = flags(tmp_path / "never")
  job = command.configure("compare", command_line.parse("compare", argv, ""))
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(job, **settings)


def test_a_frozen_weight_that_changes_in_any_training_is_said(
  flags, tmp_path, monkeypatch
):
  results = iter([True, False])
  monkeypatch.setattr(compare, "_is_frozen", lambda outcome: next(results))
  other = (
    "--gin.compare.prompts=(@train(), @other/train())",
    "--gin.other/train.tuner=@tuners.IA3",
    "--gin.MODEL_TUNING=None",
  )
  folder = tmp_path / "run"
  assert main.main(["compare", *flags(folder, *other)]) == 0
  assert not comparison.read(folder).frozen
  folders = {path.name for path in folder.iterdir() if path.is_dir()}
  assert folders == {"prompt_tuning", "(IA)3"}


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (
      ("MULTITASK_TASKS=('skill_first',)",),
      f"compare.multitask does not train on {TASK}, but compare scores",
    ),
    (
      (f"MULTITASK_TASKS=('{TASK}',)", "multitask/train.tuner=@tuners.Prompt"),
      "compare.multitask tunes one model on one mixture, without a TUNER",
    ),
    (
      ("CONTEXTS=(@evaluation.InContext(), @evaluation.InContext())",),
      "compare.contexts has 2-shot in context twice, with the same seed",
    ),
    (
      ("evaluation.Evaluation.context=@evaluation.InContext()",),
      "`test` has a context, which would stand before the inputs of every",
    ),
  ],
)
def test_baselines_that_say_nothing(
  flags, tmp_path, capsys, monkeypatch, settings, message
):
  known = {n: s for n, s in spec._specs.items() if n != "multitask"}
  monkeypatch.setattr(spec, "_specs", known)
  bindings = [f"--gin.{setting}" for setting in settings]
  more = MULTITASK[:1] if "multitask" in message else ()
  argv = flags(tmp_path, *IN_WORDS, *more, *bindings)
  assert main.main(["compare", *argv, "--dry_run"]) == 2
  assert message in capsys.readouterr().err
