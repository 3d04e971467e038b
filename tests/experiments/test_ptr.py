"""PTR's experiment: its sentences, its tasks, and what is written down."""

import json
from collections import Counter

import pytest

from experiments.ptr import run
from prompt_tuning.data import spec, templated
from prompt_tuning.launch import command, flags

pytestmark = pytest.mark.usefixtures("own_tasks")


def test_unseen_pairs_of_kinds_never_train():
  seen, known = list(run.rows("train", False)), {*run.PAIRS} - {*run.UNSEEN}
  counts = Counter(tuple(row["pair"].split()) for row in seen)
  assert counts == dict.fromkeys(known, run.ROWS["train"])
  new = list(run.rows("validation", True))
  assert {tuple(row["pair"].split()) for row in new} == {*run.UNSEEN}
  # Each of their kinds does, on either side.
  for side in (0, 1):
    assert {pair[side] for pair in known} == {*run.KINDS}
  # And nothing that is scored stood in training.
  things = {(row["head"], row["tail"]) for row in seen}
  scored = new + list(run.rows("validation", False))
  assert not things & {(row["head"], row["tail"]) for row in scored}
  assert all(row["head"] in row["text"] for row in scored)


def test_ways_to_say_a_class(tmp_path):
  sources = run.declare_rows(tmp_path)
  first = {}
  for kind in ("rules", "word"):
    name = run.declare_task(kind, sources, soft=True)
    mixture = spec.get(name)
    (trains, _), *others = mixture.components("train")
    assert not others
    assert "unseen" not in trains.name
    assert len(mixture.components("validation")) == 2
    first[kind] = trains.label_words[1]
    assert len(set(trains.label_words)) == len(run.PAIRS)
    assert '"soft": 8' in trains.content["template"]
  assert first == {
    "rules": "<extra_id_0> animal <extra_id_1> food",
    "word": "<extra_id_0> two",
  }
  assert templated.rules(spec.task("ptr_rows_unseen_rules_True"))


def test_semevals_command_resolves():
  argv = [
    f"--gin_file={run.HERE / 'semeval.gin'}",
    "--gin.MODEL_DIR='x'",
  ]
  job = command.configure("train", flags.parse("train", argv, ""))
  task = spec.task(job.experiment.runs[0].task)
  assert task.dataset == "semeval2010_task8"
  rules = templated.rules(task)
  back = dict(zip(rules.classes, rules.words, strict=True))
  assert back["Cause-Effect(e2,e1)"] == ("effect", "cause")
  assert back["Component-Whole(e1,e2)"] == ("part", "whole")


def test_what_is_written_down_is_what_was_scored():
  found = json.loads((run.HERE / "results.json").read_text())
  assert run.table(found) == (run.HERE / "table.md").read_text()
  for ways in found.values():
    rules = ways["two masks, both losses"]
    # Chance is 100 / 16; README says 96.9 and 100, and 0.
    assert min(rules["unseen"]) >= 90
    assert max(ways["one mask, a word per class"]["unseen"]) <= 10
