"""Metrics of relations, against confusion matrices and cases by hand."""

import json
import types
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.catalog.relation import CLASS_NAMES
from prompt_tuning.data.metrics import relation
from prompt_tuning.data.prepare import relations

SEMEVAL = CLASS_NAMES["semeval2010_task8"]
OTHER = SEMEVAL.index("Other")
labels = st.lists(
  st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=40
)


def ids(*names):
  return [SEMEVAL.index(name) if name else -1 for name in names]


@given(labels)
def test_micro_f1_equals_sklearn_over_the_other_classes(pairs):
  targets, predictions = zip(*pairs, strict=True)
  # An answer that names no class is a guess: a class of its own.
  expected = oracle.f1_score(
    targets,
    predictions,
    labels=[-1, 0, 1, 3],
    average="micro",
    zero_division=0,
  )
  metric = relation.micro_f1_without(("a", "b", "none", "c"), "none")
  assert metric(targets, predictions) == {
    "micro_f1_without_none": pytest.approx(100 * expected)
  }


def test_semeval_by_a_confusion_matrix():
  # Cause-Effect: 3 there, 2 right, 1 the wrong way round, and 1 guess too many:
  # precision 2/4, recall 2/3. Entity-Origin: 2 there, 1 right, 1 taken for
  # Other: precision 1, recall 1/2. Others: nothing there.
  cause, effect = "Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)"
  origin = "Entity-Origin(e1,e2)"
  targets = ids(cause, cause, effect, origin, origin, "Other", "Other")
  answers = ids(cause, effect, effect, origin, "Other", effect, "Other")
  first, second = 2 * 2 / (4 + 3), 2 * 1 / (1 + 2)
  macro = relation.official_macro_f1(SEMEVAL)(targets, answers)
  assert macro == {
    "official_macro_f1": pytest.approx(100 * (first + second) / 9)
  }
  # Micro: 5 there, 5 guessed, 3 right.
  micro = relation.micro_f1_without(SEMEVAL, "Other")(targets, answers)
  assert micro == {"micro_f1_without_Other": pytest.approx(60)}


def test_semevals_nine_relations_have_two_ways_round_each():
  targets = [i for i in range(len(SEMEVAL)) if i != OTHER]
  assert len(targets) == 18
  task = spec.task("semeval2010_task8_v100")
  examples = [{"targets_pretokenized": SEMEVAL[i]} for i in targets]
  scores = task.evaluate([SEMEVAL[i] for i in targets], examples)
  assert scores["official_macro_f1"] == 100
  assert scores["micro_f1_without_Other"] == 100


def test_an_illegal_answer_costs_recall_alone_in_the_official_score():
  cause = "Cause-Effect(e1,e2)"
  targets, answers = ids(cause, cause), ids(cause, "")
  macro = relation.official_macro_f1(SEMEVAL)(targets, answers)
  assert macro["official_macro_f1"] == pytest.approx(100 * 2 / 3 / 9)
  micro = relation.micro_f1_without(SEMEVAL, "Other")(targets, answers)
  assert micro["micro_f1_without_Other"] == pytest.approx(50)


def test_always_other_is_zero_and_no_warning():
  targets = list(range(len(SEMEVAL)))
  answers = [OTHER] * len(targets)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    for metric in (
      relation.official_macro_f1(SEMEVAL),
      relation.micro_f1_without(SEMEVAL, "Other"),
    ):
      assert list(metric(targets, answers).values()) == [0.0]
      assert list(metric(answers, answers).values()) == [0.0]


def test_a_class_without_relation_must_be_one():
  with pytest.raises(ValueError, match="names the class 'NA'"):
    relation.micro_f1_without(CLASS_NAMES["tacred"], "NA")


def pair(group, gold, evaluable=(), seen=True):
  return {
    "value": list(gold),
    "group": group,
    "evaluable": list(evaluable),
    "seen": seen,
  }


def answers(*texts):
  return [postprocessors.relations(text) for text in texts]


def test_dialogues_f1_by_hand():
  targets = [pair(0, ["a", "b"]), pair(1, ["a"]), pair(2, ["unanswerable"])]
  # 3 relations, of which one is right of two guesses.
  got = relation.dialogue_f1(targets, answers("a", "unanswerable", "c"))
  assert got == {"f1": pytest.approx(100 * 2 * 1 / (2 + 3))}
  assert relation.dialogue_f1(targets[2:], answers("unanswerable")) == {
    "f1": 0.0
  }


def test_conversational_f1_by_hand():
  targets = [
    # Turn 1: an argument is missing, so that nothing is judged. 2: both are
    # there and b's trigger. 3: all.
    pair("x", ["a", "b"], (), seen=False),
    pair("x", ["a", "b"], ["b"]),
    pair("x", ["a", "b"], ["a", "b"]),
    pair("y", ["unanswerable"]),
  ]
  got = relation.conversational_f1(targets, answers("a", "c", "a", "c"))
  # x: right 0 + 0 + 1, guesses 0 + 1 + 1, there 0 + 1 + 2. y: a wrong guess.
  precision, recall = (1 / 2 + 0) / 2, (1 / 3 + 0) / 2
  expected = 200 * precision * recall / (precision + recall)
  assert got == {"f1c": pytest.approx(expected)}
  # A relation of the pair that cannot be judged yet is neither right nor wrong.
  got = relation.conversational_f1(targets[1:2], answers("a"))
  assert got == {"f1c": 0.0}
  # Without any guess the precision is 1.
  none = "unanswerable"
  got = relation.conversational_f1(targets, answers(none, none, "b", none))
  precision, recall = (1 + 1) / 2, (1 / 3 + 0) / 2
  expected = 200 * precision * recall / (precision + recall)
  assert got == {"f1c": pytest.approx(expected)}


def test_metrics_of_dialogres_own_dev_file(shared_data):
  path = shared_data / "relation/dialogre/dev.json"
  names = CLASS_NAMES["dialogre"]
  pairs = sum(len(pairs) for _, pairs in json.loads(path.read_text()))
  for task, every_turn in (("dialogre", 0), ("dialogre_conversational", 1)):
    layout = relations.Dialogues(bool(every_turn))
    rows = list(layout.check(path, "validation", builder(names)))
    examples = [
      {**row.values, "targets_pretokenized": row.values["label"]}
      for row in rows
    ]
    got = spec.task(f"{task}_v100").evaluate(
      [example["label"] for example in examples], examples
    )
    if not every_turn:
      assert len(rows) == pairs == 1928
      total = sum(
        len(set(e["relations"]) - {relation.UNANSWERABLE}) for e in examples
      )
      answerable = sum(e["label"] != relation.UNANSWERABLE for e in examples)
      # The first relation of every pair is right, the others are missing.
      expected = 200 * answerable / (answerable + total)
      assert got["f1"] == pytest.approx(expected)
      assert 95 < got["f1"] < 100
    else:
      assert len(rows) > pairs
      assert 80 < got["f1c"] < 2 * 100 * answerable / (pairs + answerable)


def builder(names):
  """Return what a layout reads of a TFDS builder."""
  features = {"label": types.SimpleNamespace(names=list(names))}
  return types.SimpleNamespace(info=types.SimpleNamespace(features=features))
