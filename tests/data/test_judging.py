"""One prediction is right where the task's own metric says so."""

import pytest

from prompt_tuning.data import judging, spec
from prompt_tuning.data.metrics import classification

WSC = {"targets_pretokenized": "the tall boy", "idx": 0}
ANSWERS = {"targets_pretokenized": "Paris", "answers": ["Paris", "The Seine"]}
RELATIONS = {
  "targets_pretokenized": "per:title",
  "relations": ["per:title", "per:age"],
  "pair": "0",
  "evaluable": [],
  "arguments_seen": 1,
}
RECORD = {"idx/passage": 0, "idx/query": 1}


def label(word):
  return {"targets_pretokenized": word}


@pytest.mark.parametrize(
  ("task", "prediction", "example", "is_right"),
  [
    # What is named is the candidate, or is not; the label says which is right.
    ("super_glue_wsc_v102_simple_eval", "boy", {**WSC, "label": 1}, True),
    ("super_glue_wsc_v102_simple_eval", "boy", {**WSC, "label": 0}, False),
    ("super_glue_wsc_v102_simple_eval", "girl", {**WSC, "label": 0}, True),
    ("glue_stsb_v002", "3", label("3.0"), True),
    ("glue_stsb_v002", "3.2", label("3.0"), False),
    ("glue_stsb_v002", "none", label("3.0"), False),
    ("squad_v010_allanswers", "seine", ANSWERS, True),
    ("squad_v010_allanswers", "Rome", ANSWERS, False),
    ("super_glue_record_v102", "seine!", {**ANSWERS, **RECORD}, True),
    ("super_glue_record_v102", "Rome", {**ANSWERS, **RECORD}, False),
    # Matthews and F1 say nothing of one row.
    ("glue_cola_v002", "unacceptable", label("unacceptable"), True),
    ("glue_cola_v002", "unacceptable", label("acceptable"), False),
    ("super_glue_cb_v102", "neutral", label("neutral"), True),
    ("glue_mrpc_v002", "not_equivalent", label("not_equivalent"), True),
    ("dialogre_v100", "per:age", RELATIONS, True),
    ("dialogre_v100", "per:origin", RELATIONS, False),
  ],
)
def test_a_row(task, prediction, example, is_right):
  assert judging.of_task(spec.task(task))(prediction, example) is is_right


def test_a_metric_of_many_rows_may_refuse_one():
  def picky(targets, predictions):
    raise ValueError("two rows at least")

  task = spec.TaskSpec(
    *("own", "custom", "own", "module", spec.FILE, {}),
    metrics=(picky, classification.accuracy),
  )
  is_right = judging.of_task(task)
  assert is_right("yes", label("yes"))
  assert not is_right("no", label("yes"))
