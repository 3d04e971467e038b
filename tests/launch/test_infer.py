"""`prompt-tuning infer` and `score`: JSON lines from tasks and files."""

import json
import shutil

import pytest

from prompt_tuning.jobs import load
from prompt_tuning.launch import main


@pytest.fixture
def run(common_flags, tiny_checkpoint, tmp_path, finished):
  """Infer with the first exported prompt; returns the status."""

  def infer(*more, command="infer", prompt=None):
    prompt = prompt or f"'{finished}/exports/seed0/prompt.npy'"
    return main.main(
      [
        command,
        *common_flags(f"prompt_{command}"),
        f"--gin.CHECKPOINT_PATH='{tiny_checkpoint}'",
        f"--gin.PROMPT_FILE={prompt}",
        f"--gin.INFER_OUTPUT_DIR='{tmp_path / 'out'}'",
        "--gin.MAX_DECODE_LENGTH=3",
        *more,
      ]
    )

  return infer


@pytest.fixture
def questions(tmp_path):
  """Inputs that name one of two prompts."""
  rows = [
    {"inputs": f"text: {word}", "targets": "yes", "prompt": name}
    for word in ("a cat", "a dog")
    for name in ("one", "two")
  ]
  path = tmp_path / "questions.jsonl"
  path.write_text("\n".join(map(json.dumps, rows)))
  return str(path)


def from_file(path):
  """Answer a file instead of the task."""
  return (f"--gin.INPUT_FILE='{path}'", "--gin.MIXTURE_OR_TASK_NAME=None")


def lines(tmp_path, name):
  (path,) = [
    p for p in (tmp_path / "out").glob(f"{name}-*") if p.name[-5:].isdigit()
  ]
  assert path.with_name(f"{path.name}.COMPLETED").exists()
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_text_file(run, tmp_path, capsys):
  (tmp_path / "in.txt").write_text("text: a cat\ntext: a dog\n")
  assert run(*from_file(tmp_path / "in.txt")) == 0
  assert "in-predict.jsonl-00000-of-00001" in capsys.readouterr().out
  found = lines(tmp_path, "in")
  assert [line["inputs"]["inputs_pretokenized"] for line in found] == [
    "text: a cat",
    "text: a dog",
  ]
  assert all(isinstance(line["prediction"], str) for line in found)


def test_texts_do_not_say_where_a_template_places_tokens(
  run, finished, tmp_path, capsys
):
  export = shutil.copytree(finished / "exports/seed0", tmp_path / "export")
  manifest = export / "delta" / "delta.json"
  described = json.loads(manifest.read_text())
  described["about"]["soft_tokens"] = True
  manifest.write_text(json.dumps(described))
  (tmp_path / "in.txt").write_text("text: a cat\ntext: a dog\n")
  flags = from_file(tmp_path / "in.txt")
  assert run(*flags, "--gin.BATCH_SIZE=1", prompt=f"'{export}'") == 0
  warned = capsys.readouterr().err
  assert warned.count("`infer` with MIXTURE_OR_TASK_NAME") == 1
  assert load.load(finished / "exports/seed0").runs.in_template == (False,)
  assert load.load(export).runs.in_template == (True,)


def test_an_answered_file_that_changed_is_refused(run, tmp_path, capsys):
  """`dev.en.txt` and `dev.de.txt` are two; so are two texts of one name."""
  for language, text in (("en", "text: a cat\n"), ("de", "text: ein Hund\n")):
    (tmp_path / f"dev.{language}.txt").write_text(text)
    assert run(*from_file(tmp_path / f"dev.{language}.txt")) == 0
  for language, text in (("en", "text: a cat"), ("de", "text: ein Hund")):
    (line,) = lines(tmp_path, f"dev.{language}")
    assert line["inputs"]["inputs_pretokenized"] == text
  (tmp_path / "dev.en.txt").write_text("text: another\n")
  assert run(*from_file(tmp_path / "dev.en.txt")) == 2
  error = capsys.readouterr().err
  assert "has another input at number 0" in error
  assert "choose another INFER_OUTPUT_DIR" in error
  (marker,) = (tmp_path / "out").glob("dev.en-*.COMPLETED")
  told = json.loads(marker.read_text())
  assert told["inputs"]["count"] == 1
  assert {"backbone", "delta", "decoder", "seed", "vocabulary"} <= told.keys()


def test_every_example_gets_the_prompt_it_names(
  run, questions, finished, tmp_path, tolerance
):
  """A batch of two prompts equals two jobs of one."""
  two = {
    "one": f"{finished}/exports/seed0/prompt.npy",
    "two": f"{finished}/exports/seed1/peft",
  }
  file = from_file(questions)
  assert run(*file, prompt=repr(two), command="score") == 0
  mixed = [line["score"] for line in lines(tmp_path, "questions")]
  alone = {}
  for name, path in two.items():
    out = f"--gin.INFER_OUTPUT_DIR='{tmp_path}/{name}/out'"
    assert run(*file, out, prompt=repr(path), command="score") == 0
    alone[name] = [
      line["score"] for line in lines(tmp_path / name, "questions")
    ]
  expected = [alone[name][i] for i, name in enumerate(["one", "two"] * 2)]
  assert mixed == pytest.approx(expected, rel=tolerance["sum"]["rtol"])
  assert mixed[0] != mixed[1]


def test_an_example_without_a_prompt_is_refused(
  run, tmp_path, finished, capsys
):
  (tmp_path / "in.txt").write_text("text: a cat\n")
  file = from_file(tmp_path / "in.txt")
  assert run(*file, prompt=f"'{finished}'") == 2
  message = capsys.readouterr().err
  assert "names 2 prompts (seed0, seed1), so every example must" in message


def test_a_task_in_shards(run, tmp_path):
  more = ("--gin.INFER_SPLIT='validation'", "--gin.NUM_SHARDS=2")
  for shard in (0, 1):
    assert run(*more, f"--shard_id={shard}") == 0
  shards = [
    [json.loads(line) for line in path.read_text().splitlines()]
    for path in sorted((tmp_path / "out").glob("*-of-00002"))
  ]
  indices = [[line["inputs"]["idx"] for line in part] for part in shards]
  assert indices == [
    [str(i) for i in range(0, 10, 2)],
    [str(i) for i in range(1, 10, 2)],
  ]


def test_a_file_begun_with_another_prompt_is_refused(
  run, questions, finished, capsys
):
  file = from_file(questions)
  assert run(*file) == 0
  assert run(*file) == 0, "a complete file stays"
  assert run(*file, prompt=f"'{finished}/exports/seed1/prompt.npy'") == 2
  assert "cannot be continued" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (
      ["--gin.MIXTURE_OR_TASK_NAME=None"],
      "No inputs: set MIXTURE_OR_TASK_NAME or INPUT_FILE.",
    ),
    (
      ["--gin.INFER_MODE='predcit'", "--gin.INFER_SPLIT='validation'"],
      "Did you mean 'predict'?",
    ),
    (from_file("nowhere.txt"), "nowhere.txt"),
    (["--shard_id=1", "--gin.INFER_SPLIT='train'"], "Shard 1 of 1 does not"),
    ([], "has no split 'test'"),
  ],
)
def test_bad_input(run, flags, message, capsys):
  assert run(*flags) == 2
  assert message in capsys.readouterr().err
