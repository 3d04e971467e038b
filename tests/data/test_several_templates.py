"""Several templates of one task: what is declared, and what is summed up."""

import dataclasses
import json
import re

import numpy as np
import pytest

from prompt_tuning.data import custom, several_templates, spec
from prompt_tuning.infer import ensemble
from prompt_tuning.infer.evaluate import RANKING, EvalSet, Job, Result
from prompt_tuning.jobs import evaluate

pytestmark = pytest.mark.usefixtures("own_tasks")
WORDS = {"no": ["cold"], "yes": ["wide"]}
TEMPLATES = ('{"field": "text"} {"mask"}', 'Is {"field": "text"} ? {"mask"}')


@pytest.fixture
def rows(tmp_path, monkeypatch):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  path = tmp_path / "rows.jsonl"
  lines = [json.dumps({"text": f"sea {k}", "kind": k % 2}) for k in range(4)]
  path.write_text("\n".join(lines))
  return custom.declare(
    "seas",
    {"train": str(path), "test": str(path)},
    template="{text}",
    target_column="kind",
    label_words=("no", "yes"),
  ).name


def declare(rows, name="both", **given):
  return several_templates.declare(
    name, rows, label_words=WORDS, target_format="plain", **given
  )


def test_every_template_is_a_task_of_a_group(rows):
  names = declare(rows, templates=TEMPLATES)
  assert names == ("both_t0", "both_t1")
  sources = [spec.task(name).content["template"] for name in names]
  assert sources == list(TEMPLATES)
  other = declare(rows, "other", templates=TEMPLATES)
  assert several_templates.groups([*names, rows, *other]) == {
    "both": ["both_t0", "both_t1"],
    "other": ["other_t0", "other_t1"],
  }
  shots = [f"{name}_k1_seed{seed}" for seed in (0, 1) for name in names]
  assert several_templates.groups(shots) == {
    "both_k1_seed0": shots[:2],
    "both_k1_seed1": shots[2:],
  }
  assert several_templates.groups([names[0], other[0]]) == {}


def test_templates_of_a_file(rows, tmp_path):
  path = tmp_path / "templates.txt"
  path.write_text("\n\n".join([*TEMPLATES, '{"mask"}']))
  names = declare(rows, template_file=str(path))
  assert names == ("both_t0", "both_t1", "both_t2")
  names = declare(rows, "two", template_file=str(path), template_numbers=(0, 2))
  assert names == ("two_t0", "two_t2")


def test_templates_need_as_many_masks(rows, tmp_path):
  more = '{"field": "text"} {"mask"} and {"mask"}'
  with pytest.raises(
    ValueError, match="both: template 1: 2 masks, but both: template 0 has 1"
  ):
    declare(rows, templates=(TEMPLATES[0], more))
  path = tmp_path / "templates.txt"
  path.write_text(f"{TEMPLATES[0]}\n\n{more}\n")
  with pytest.raises(ValueError, match=re.escape(f"{path}:")) as caught:
    declare(rows, template_file=str(path))
  assert f"{path}:3" in str(caught.value)
  with pytest.raises(ValueError, match="1 template; expected two or more"):
    declare(rows, templates=TEMPLATES[:1])
  with pytest.raises(
    ValueError, match="give either templates or template_file"
  ):
    declare(rows)
  assert not any(name.startswith("both") for name in spec._specs)


def result(name, scores):
  task = spec.task(name)
  targets = [task.label_words[k % 2] for k in range(4)]
  examples = [{spec.TARGETS: text, spec.INPUTS: ""} for text in targets]
  dataset = EvalSet(task, [np.array([1])] * 4, examples)
  names = [task.label_words[int(np.argmax(row))] for row in scores]
  metrics = task.evaluate(names, examples)
  outputs = {"rank_prediction": names, "rank_scores": scores}
  return Result(Job(dataset, 0), (RANKING,), metrics, outputs)


def test_they_are_summed_up_and_answer_together(rows):
  """Two of four are right by either; where one errs it is the less sure."""
  names = declare(rows, templates=TEMPLATES)
  sure, unsure = np.log([0.9, 0.1]), np.log([0.6, 0.4])
  first = [sure, -sure, -unsure, unsure]
  second = [-unsure, unsure, sure, -sure]
  first, second = (
    [(row - row.max()).tolist() for row in rows] for rows in (first, second)
  )
  both = [result(n, s) for n, s in zip(names, (first, second), strict=True)]
  found = ensemble.over_templates(both)
  assert found.mean["accuracy"] == 50
  assert found.deviation["accuracy"] == 0
  assert found.together["accuracy"] == 100
  text = evaluate.table(both, ["a prompt"], [None])
  summed = text[text.index("both, 2 templates") :].splitlines()
  (row,) = (line for line in summed if "a prompt together" in line)
  assert "100.00" in row
  fewer = EvalSet(
    spec.task(names[1]),
    both[1].job.dataset.inputs[:2],
    both[1].job.dataset.examples[:2],
  )
  other = dataclasses.replace(both[1], job=Job(fewer))
  with pytest.raises(ValueError, match="have different examples; expected"):
    ensemble.over_templates([both[0], other])
