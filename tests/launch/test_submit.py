"""`prompt-tuning submit`: from the answers of `infer` to leaderboard files."""

import json

import pytest

from prompt_tuning.infer import outputs
from prompt_tuning.launch import main

CB = "taskless_super_glue_cb_v102"  # 250 rows to submit
LABELS = ("entailment", "contradiction", "neutral")


@pytest.fixture
def answer(tmp_path):
  """Write answers as `infer` does, to so many rows, in two parts."""

  def write(task, rows, say=lambda row: LABELS[row % 3], parts=(0, 1)):
    examples = [{"idx": row, "inputs_pretokenized": "?"} for row in range(rows)]
    for part in parts:
      outputs.Output(
        tmp_path / "answers", task, "predict", {}, outputs.Shard(part, 2)
      ).write(
        examples, lambda numbers, _: [{"prediction": say(n)} for n in numbers]
      )

  return write


@pytest.fixture
def submit(tmp_path, capsys):
  """Run the command; return its status, what it says, and the files."""

  def run(*flags):
    folders = [str(tmp_path / name) for name in ("answers", "out")]
    status = main.main(["submit", *folders, *flags])
    streams = capsys.readouterr()
    files = {path.name: path for path in (tmp_path / "out").glob("*")}
    return status, streams.out + streams.err, files

  return run


def test_files_of_all_tasks(answer, submit):
  answer(CB, 250)
  answer("glue_wnli_v200", 146, lambda row: "entailment")
  status, said, files = submit()
  assert status == 0
  assert f"CB.jsonl: 250 answers to {CB}\n" in said
  assert sorted(files) == ["CB.jsonl", "WNLI.tsv"]
  rows = [json.loads(row) for row in files["CB.jsonl"].read_text().splitlines()]
  assert rows == [{"idx": n, "label": LABELS[n % 3]} for n in range(250)]


def test_the_number_of_rows_is_the_leaderboards(answer, submit):
  answer(CB, 56)  # the validation split has so many
  status, said, files = submit()
  assert (status, files) == (2, {})
  assert f"56 answers to {CB}; the official test split has 250 rows" in said


def test_nothing_is_written_where_one_task_fails(answer, submit):
  answer(CB, 250)
  answer("taskless_super_glue_copa_v102", 500, lambda row: "neither")
  status, said, files = submit()
  assert (status, files) == (2, {})
  assert "500 of 500 predictions are not a legal label" in said
  status, _, files = submit("--illegal=1")
  assert status == 0
  lines = files["COPA.jsonl"].read_text().splitlines()
  assert {json.loads(line)["label"] for line in lines} == {1}


def test_a_part_is_missing(answer, submit):
  answer(CB, 250, parts=(1,))
  status, said, files = submit()
  assert (status, files) == (2, {})
  assert f"{CB} are not complete: of 2 parts, part 0 is missing" in said
  assert "NUM_SHARDS = 2 and --shard_id=0" in said


def test_parts_of_two_jobs(answer, submit, tmp_path):
  answer(CB, 250)
  path = tmp_path / "answers" / f"{CB}-predict.jsonl-00002-of-00003"
  path.touch()
  status, said, files = submit()
  assert (status, files) == (2, {})
  assert f"{path.name} are parts of several jobs" in said


def test_a_marker_is_missing(answer, submit, tmp_path):
  answer(CB, 250)
  name = f"{CB}-predict.jsonl-00001-of-00002"
  (tmp_path / "answers" / f"{name}.COMPLETED").unlink()
  status, said, files = submit()
  assert (status, files) == (2, {})
  assert f"{name}.COMPLETED, which `infer` writes at the end, is not" in said
  assert "or copy that file too" in said


@pytest.mark.parametrize(
  ("task", "message"),
  [
    (None, "expected INFER_OUTPUT_DIR"),
    ("squad_v010_allanswers", "has no submission file. These tasks have one:"),
    ("taskless_super_glue_cbb_v102", f"Did you mean '{CB}'"),
  ],
)
def test_what_has_no_file(answer, submit, task, message):
  if task:
    answer(task, 3)
  status, said, files = submit()
  assert (status, files) == (2, {})
  assert message in said


def test_a_line_that_infer_did_not_write(answer, submit, tmp_path):
  answer(CB, 250)
  path = tmp_path / "answers" / f"{CB}-predict.jsonl-00001-of-00002"
  path.write_text('{"inputs": {"idx": 1}}\n')
  status, said, _ = submit()
  assert status == 2
  assert f"{path}:1: expected an object with `inputs` and `prediction`" in said
