"""Evaluation files: T5X's names and lines; steps that come again."""

import json

import pytest

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.metrics import classification
from prompt_tuning.infer import reports
from prompt_tuning.infer.evaluate import EvalSet, Job, Result

TASK = spec.TaskSpec(
  name="invented",
  benchmark="custom",
  dataset="invented",
  module="",
  source="file",
  splits={"validation": "validation"},
  label_words=("no", "yes"),
  postprocess=postprocessors.LabelId(("no", "yes")),
  metrics=(classification.accuracy,),
)
EXAMPLES = [
  {"inputs_pretokenized": f"é {i}", "targets_pretokenized": "yes", "idx": i}
  for i in range(3)
]


def result(accuracy):
  outputs = {"prediction": ["yes", "no", "?"], "score": [-0.5, -1.0, -2.0]}
  dataset = EvalSet(TASK, [[1]] * 3, EXAMPLES)
  metrics = {"accuracy": accuracy}
  return Result(Job(dataset), ("generation",), metrics, outputs)


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_files_of_one_step(tmp_path):
  reports.write(tmp_path / "inference_eval", 50, result(25.0))
  folder = tmp_path / "inference_eval"
  assert {path.name for path in folder.iterdir()} == {
    "invented-metrics.jsonl",
    "invented-000050.jsonl",
  }
  metrics = read(folder / "invented-metrics.jsonl")
  assert metrics == [{"step": 50, "accuracy": 25.0}]
  assert read(folder / "invented-000050.jsonl") == [
    {"input": EXAMPLES[0], "target": 1, "prediction": "yes", "score": -0.5},
    {"input": EXAMPLES[1], "target": 1, "prediction": "no", "score": -1.0},
    {"input": EXAMPLES[2], "target": 1, "prediction": "?", "score": -2.0},
  ]


def test_steps_are_appended_and_a_repeated_one_replaced(tmp_path):
  for step, accuracy in ((10, 1.0), (20, 2.0), (30, 3.0), (20, 4.0)):
    reports.write(tmp_path, step, result(accuracy), limit=1)
  assert read(tmp_path / "invented-metrics.jsonl") == [
    {"step": 10, "accuracy": 1.0},
    {"step": 20, "accuracy": 4.0},
    {"step": 30, "accuracy": 3.0},
  ]
  assert len(read(tmp_path / "invented-000020.jsonl")) == 1


@pytest.mark.parametrize("foreign", ["not JSON", "[1]", '{"x": 1}', "3"])
def test_lines_of_others_are_kept(foreign, tmp_path):
  path = tmp_path / "invented-metrics.jsonl"
  path.write_text(foreign + "\n")
  reports.write(tmp_path, 1, result(5.0))
  assert path.read_text() == foreign + '\n{"step": 1, "accuracy": 5.0}\n'


def test_lines_of_somebody_else_stay(tmp_path):
  path = tmp_path / "invented-metrics.jsonl"
  path.write_bytes(b"caf\xe9\n[" + 5_000 * b"[" + b"\n")
  reports.write(tmp_path, 10, result(1.0))
  lines = path.read_bytes().split(b"\n")
  assert lines[0] == b"caf\xe9"
  assert json.loads(lines[2]) == {"step": 10, "accuracy": 1.0}
