"""The corpus of twelve relations, and the table that is there."""

import collections
import json
import pathlib

import pytest

from experiments.knowprompt import corpus, run
from prompt_tuning.data import spec, templated
from prompt_tuning.data.skills import CATEGORIES
from prompt_tuning.launch import command, flags
from prompt_tuning.tuners.method import name_of

FOLDER = pathlib.Path(run.__file__).parent


pytestmark = pytest.mark.usefixtures("own_tasks")


def results():
  return json.loads((FOLDER / "results.json").read_text())


def test_the_table_is_that_of_the_results():
  assert run.table(results()) == (FOLDER / "table.md").read_text()


def test_the_tuned_model_reaches_nine_tenths():
  found = results()
  assert list(found) == list(run.TRAININGS)
  for name, scores in found.items():
    assert list(scores) == list(run.TASKS), name
  assert min(found["tuned"].values()) >= 90


def test_a_relation_is_its_kinds_and_its_verb():
  assert len(set(corpus.relations())) == 12
  rows = list(corpus.rows("train"))
  counts = collections.Counter(row["relation"] for row in rows)
  assert set(counts.values()) == {corpus.SPLITS["train"]}
  for row in rows:
    subject, verb, object_ = row["relation"].split()
    assert row["subject"] in CATEGORIES[subject]
    assert row["object"] in CATEGORIES[object_]
    assert row["between"] == f"{verb} the"
    # Nothing else in the sentence is of an argument's kind.
    others = {row[name].split()[-1] for name in ("before", "after")}
    others |= {row["before"].split()[2]}
    kinds = (*corpus.SUBJECTS, *corpus.OBJECTS)
    assert not others & {word for kind in kinds for word in CATEGORIES[kind]}
  assert rows == list(corpus.rows("train"))
  assert rows != list(corpus.rows("train", seed=1))


def configure(*argv):
  flag = [*argv, "--gin.MODEL_DIR='runs/never'"]
  return command.configure("train", flags.parse("train", flag, "")).experiment


@pytest.mark.parametrize("name", run.TRAININGS)
def test_frozen_and_tuned_are_named_as_such(tmp_path, name):
  run.declare(tmp_path)
  file, *settings = run.TRAININGS[name]
  experiment = configure(
    "--gin_file=models/embedded.gin",
    f"--gin_file={FOLDER / 'common.gin'}",
    f"--gin_file={file}.gin",
    f"--gin.MIXTURE_OR_TASK_NAME={run.TASKS!r}",
    *(f"--gin.{setting}" for setting in settings),
  )
  method, *_ = experiment.tuners
  kind, _, left_out = name.partition(", ")
  assert name_of(type(method)) == f"KnowPrompt, {kind} model"
  assert (method.structure == 0) == bool(left_out)
  assert len(experiment.run_stages) == (kind == "tuned")
  trains_model = any(rule.pattern == ".*" for rule in experiment.rules)
  assert {rule.mode for rule in experiment.rules if rule.pattern == ".*"} <= {
    "train" if kind == "tuned" else "freeze"
  }
  assert trains_model or kind == "frozen"


def test_semevals_own_relations_are_read():
  experiment = configure(
    "--gin_file=models/embedded.gin",
    f"--gin_file={run.FROZEN}.gin",
    f"--gin_file={FOLDER / 'semeval.gin'}",
  )
  (method,) = experiment.tuners
  assert len(method.answers) == 19
  assert len(set(method.answers)) == 19
  scores = {"micro_f1_without_Other", "official_macro_f1"}
  task = spec.task("my_relations")
  examples = [{spec.TARGETS: text} for text in task.label_words]
  assert scores <= set(task.evaluate(task.label_words, examples))


def test_the_task_has_a_word_for_every_relation(tmp_path):
  run.declare(tmp_path)
  task = spec.task(run.TASKS[0])
  assert task.label_words[0] == "<extra_id_0> animal saw food"
  assert len(task.label_words) == 12
  assert templated.label_words(task).classes == corpus.relations()
