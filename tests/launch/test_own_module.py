"""MIXTURE_OR_TASK_MODULE names a user's own seqio module."""

import json

from prompt_tuning.launch import main


def test_a_mixture_of_own_tasks_trains_by_command(
  own_module, tmp_path, train_flags
):
  """Own preprocessor, own metric; each task is evaluated by it."""
  flags = train_flags(
    tmp_path / "run",
    "--gin.MIXTURE_OR_TASK_NAME='own_pets'",
    f"--gin.MIXTURE_OR_TASK_MODULE={own_module.__name__!r}",
    f"--gin.TOKEN_CACHE_DIR='{tmp_path}/tokens'",
    "--gin.EVALUATE_BY='generation'",
    "--gin.MAX_DECODE_LENGTH=4",
    prompt=("--gin_file=prompts/from_sampled_vocab.gin",),
  )
  assert main.main(["train", *flags]) == 0
  lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  names = {name for line in lines for name in json.loads(line)}
  for task in ("own_cats", "own_dogs"):
    assert any(f"{task}/close" in name for name in names), names
    assert any(f"{task}/seen" in name for name in names)
  assert not any("text" in name for name in names)


def test_without_the_two_features_one_line_says_what_to_do(
  own_module, tmp_path, train_flags, capsys
):
  own_module.add(
    "own_without_targets",
    output_features={"inputs": own_module.FEATURES["inputs"]},
  )
  flags = train_flags(
    tmp_path / "run",
    "--gin.MIXTURE_OR_TASK_NAME='own_without_targets'",
    f"--gin.MIXTURE_OR_TASK_MODULE={own_module.__name__!r}",
  )
  assert main.main(["train", *flags]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert "expected inputs and targets. Rename its features" in line
