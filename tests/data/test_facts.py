"""LAMA's facts: rows by a template, and ranks among all objects."""

import json

import numpy as np
import pytest

from prompt_tuning.data import facts, spec
from prompt_tuning.data.metrics import classification
from prompt_tuning.infer import evaluate
from prompt_tuning.infer.evaluate import RANKING, EvalSet

pytestmark = pytest.mark.usefixtures("own_tasks")
ROWS = [("Mira", "Orn"), ("Tom", "Lund"), ("Ann", "Orn"), ("Bo", "Vik")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  lines = [json.dumps({"sub_label": s, "obj_label": o}) for s, o in ROWS]
  (tmp_path / "P19.jsonl").write_text("\n".join(lines))
  relations = [
    {"relation": "P17", "template": "[X] lies in [Y] ."},
    {"relation": "P19", "template": "[X] was born in [Y] ."},
  ]
  text = "\n".join(map(json.dumps, relations))
  (tmp_path / "relations.jsonl").write_text(text)
  return tmp_path


def declare(folder, **settings):
  return facts.declare("born", str(folder / "P19.jsonl"), **settings)


def test_a_relation_is_a_task_of_its_objects(folder):
  task = declare(folder, relations_file=str(folder / "relations.jsonl"))
  assert (
    task.content["template"] == '{"field": "sub_label"} was born in {"mask"} .'
  )
  words = task.content["label_words"]["words"]
  assert words == [["Lund"], ["Orn"], ["Vik"]]
  assert tuple(task.splits) == ("test",)
  targets = [task.label_words[words.index([o])] for _, o in ROWS]
  examples = [{spec.TARGETS: text, "idx": "0"} for text in targets]
  scores = [[-3.0, -1, -2], [-2, -1, -3], [-1, -2, -3], [-1, -1, -1]]
  answers = [task.label_words[int(np.argmax(row))] for row in scores]
  outputs = {"rank_prediction": answers, "rank_scores": scores}
  dataset = EvalSet(task, [np.array([1])] * 4, examples)
  found = evaluate.metrics(dataset, outputs, (RANKING,))
  assert found["accuracy"] == 25
  assert found["mean_reciprocal_rank"] == 100 * (1 + 1 / 2 + 1 / 2 + 1 / 3) / 4
  del outputs["rank_scores"]  # as of a vote
  assert "accuracy" in evaluate.metrics(dataset, outputs, (RANKING,))


def test_equal_scores_are_no_help():
  found = classification.reciprocal_ranks([0, 1], [[0, 0, 0], [0, 1, 0]])
  assert found["mean_reciprocal_rank"] == 100 * (1 / 3 + 1) / 2


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({}, "give either template or relations_file"),
    ({"template": "[X] was born ."}, r"\[X\] and \[Y\] once each"),
    ({"template": "[X] [Y]", "object_column": "obj"}, "no column 'obj'"),
    (
      {"relations_file": "relations.jsonl", "relation": "P1"},
      "no relation 'P1'; it has P17, P19",
    ),
  ],
)
def test_malformed_arguments(folder, settings, message, monkeypatch):
  monkeypatch.chdir(folder)
  with pytest.raises(ValueError, match=message):
    declare(folder, **settings)


def test_braces_of_a_template_stay_text(folder):
  task = declare(folder, template="[X] {a} [Y]")
  assert '{"text": "{"}a}' in task.content["template"]
