"""Commands on a templated task with soft tokens, scored by its classes."""

import numpy as np
import pytest

from prompt_tuning.core.delta import NO_WORD
from prompt_tuning.jobs import comparison, conclusion, load
from prompt_tuning.launch import main

TASK, SOFT = "cat_in_a_template", 4
pytestmark = pytest.mark.usefixtures("own_tasks")


@pytest.fixture(scope="module")
def settings(tmp_path_factory, task_gin):
  """What makes any command's task the templated one."""
  path = tmp_path_factory.mktemp("template") / "task.gin"
  path.write_text(f"""
include "{task_gin}"
MIXTURE_OR_TASK_NAME = @data.templated_task()
data.templated_task:
  name = "{TASK}"
  source = @data.custom_task()
  template = '{{"soft": {SOFT}}} {{"field": "text"}} {{"mask"}}'
  target_format = "plain"
  label_words = {{"no": ["no", "none"], "yes": ["yes"]}}
""")
  return (
    "--gin_file=objectives/classes.gin",
    f"--gin_file={path}",
    f"--gin.PROMPT_LENGTH={SOFT}",
    "--gin.EVALUATE_BY='rank'",
  )


def test_a_prompt_trains_in_its_slots_and_ends_with_a_report(
  tmp_path, train_flags, settings, capsys
):
  """The model alone, which has nothing for the slots, is left out of it."""
  prompt = ("--gin_file=prompts/from_template.gin",)
  flags = train_flags(
    tmp_path / "run", *settings, "--gin.CONTROLS=True", prompt=prompt
  )
  assert main.main(["train", *flags]) == 0
  text = (tmp_path / "run" / "summary.txt").read_text()
  assert TASK in text
  assert "random prompt" in text
  assert conclusion.PLAIN not in text
  (export,) = (tmp_path / "run" / "exports").iterdir()
  assert (export / "delta").is_dir()
  assert text.count("where the task's template says, but readers") == 1
  for path in (tmp_path / "run", export):
    assert load.load(path).runs.in_template == (True,)
  again = tmp_path / "again"
  assert main.main(["export", str(export), str(again)]) == 0
  assert "where the task's template says" in capsys.readouterr().out
  argv = ["convert", str(again), str(tmp_path / "p.npy"), "--to", "npy"]
  assert main.main(argv) == 0
  assert "where the task's template says" in capsys.readouterr().out


def test_compare_leaves_the_model_alone_out(
  tmp_path, common_flags, tiny_checkpoint, settings
):
  flags = [
    *common_flags("compare", "--gin_file=prompts/from_template.gin"),
    f"--gin.MODEL_DIR='{tmp_path / 'run'}'",
    f"--gin.INITIAL_CHECKPOINT_PATH='{tiny_checkpoint}'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 4}",
    "--gin.TRAIN_STEPS=None",
    "--gin.TRAIN_STEPS_RELATIVE=2",
    "--gin.MODEL_TUNING=None",
    "--gin.INSTRUCTED={}",
    "--gin.SEEDS=(0,)",
    "--gin.BATCH_SIZE=4",
    "--gin.BATCHING='fixed'",
    "--gin.EVAL_PERIOD=2",
    "--gin.TEST_SPLIT='validation'",
    "--gin.train.progress_bar=False",
    "--gin.train.tensorboard=False",
    *settings,
  ]
  assert main.main(["compare", *flags]) == 0
  found = comparison.read(tmp_path / "run")
  assert found.methods == ("random prompt", "prompt tuning")
  assert found.tasks == (TASK,)
  assert found.frozen


def test_weights_of_words_train_beside_the_model(
  tmp_path, train_flags, task_gin
):
  path = tmp_path / "task.gin"
  path.write_text(f"""
include "{task_gin}"
MIXTURE_OR_TASK_NAME = @data.templated_task()
data.templated_task:
  name = "cat_by_words"
  source = @data.custom_task()
  template = '{{"field": "text"}} {{"mask"}}'
  target_format = "plain"
  label_words = {{"no": ["no", "none"], "yes": ["yes"]}}
""")
  flags = [
    f"--gin_file={path}",
  ]
  own = (
    "--gin_file=methods/word_weights.gin",
    "--gin_file=optimizers/word_weights.gin",
  )
  folder = tmp_path / "run"
  assert main.main(["train", *train_flags(folder, *flags, prompt=own)]) == 0
  loaded = load.load(str(folder))
  weights = np.asarray(loaded.runs.delta.word_weights)
  assert weights.shape == (1, 2, 2)
  assert weights[0, 0, 0] == -weights[0, 0, 1] != 0
  assert weights[0, 1, 1] == NO_WORD
  assert loaded.weights
