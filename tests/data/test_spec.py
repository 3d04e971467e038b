"""The registry of specs: names, variants, mixtures, evaluation, errors."""

import dataclasses
import json
import subprocess
import sys

import pytest

from prompt_tuning.data import skills, spec

SUPER_GLUE = (
  *("boolq", "cb", "copa", "multirc", "record", "rte", "wic"),
  *("axb", "axg"),
)
GLUE = (
  *("cola", "sst2", "mrpc", "qqp", "stsb", "qnli", "rte", "wnli", "ax"),
  *("mnli", "mnli_mismatched", "mnli_matched"),
)
OUT_OF_DOMAIN = (
  *("bio_asq", "drop", "duo_rc", "race", "relation_extraction"),
  "textbook_qa",
)
IN_DOMAIN = (
  *("news_qa", "trivia_qa", "search_qa", "hotpot_qa"),
  "natural_questions",
)


def original_names():
  """What the original registers, written out.

  Its modules super_glue, glue, glue_transfer and qa, and the names that they
  take from the T5 library.
  """
  tasks, mixtures = set(), set()
  for prefix in ("", "taskless_", "task_index_"):
    for suffix in ("", "_examples"):
      tasks |= {f"{prefix}super_glue_{d}_v102{suffix}" for d in SUPER_GLUE}
      tasks |= {f"{prefix}dpr_v001_simple{suffix}"}
      tasks |= {
        f"{prefix}super_glue_wsc_v102_simple_{part}{suffix}"
        for part in ("train", "eval")
      }
      mixtures |= {f"{prefix}super_glue_wsc_and_dev_v102_simple{suffix}"}
      for version in ("v002", "v200"):
        tasks |= {f"{prefix}glue_{d}_{version}{suffix}" for d in GLUE}
        mixtures |= {f"{prefix}glue_mnli_and_dev_{version}{suffix}"}
      for pair in ("mrpc_from_qqp", "qqp_from_mrpc"):
        tasks |= {f"{prefix}glue_{pair}_v002{suffix}"}
        mixtures |= {f"{prefix}glue_{pair}_zeroshot_v002{suffix}"}
  tasks |= {"squad_v010_allanswers_examples", "squad_v010_allanswers"}
  for name in OUT_OF_DOMAIN + IN_DOMAIN:
    tasks |= {f"mrqa_{name}_v100_examples"}
  for name in (*OUT_OF_DOMAIN, "mrqa"):
    mixtures |= {f"squad_to_{name}_examples"}
  mixtures |= {"super_glue_v102_proportional", "glue_v002_proportional"}
  mixtures |= {
    f"task_index_super_glue_{part}v102_examples_proportional"
    for part in ("", "with_dpr_")
  }
  return tasks, mixtures


def own_names():
  """Names that the original lacks, in its pattern."""
  tasks = {
    f"{prefix}{d}_v100{suffix}"
    for d in (
      *("ag_news", "dbpedia", "imdb", "amazon", "amazon_polarity"),
      *("yahoo", "sst5", "race"),
      *("semeval2010_task8", "tacred", "tacrev", "retacred"),
      *("dialogre", "dialogre_conversational"),
    )
    for prefix in ("", "taskless_")
    for suffix in ("", "_examples")
  }
  tasks |= {f"mrqa_{d}_v100" for d in OUT_OF_DOMAIN + IN_DOMAIN}
  tasks |= {
    f"{prefix}skill_{name}"
    for name in skills.ALL
    for prefix in ("", "instructed_")
  }
  mixtures = {f"squad_to_{d}" for d in (*OUT_OF_DOMAIN, "mrqa")}
  return tasks, mixtures | {"glue_v200_proportional"}


def test_names_are_those_of_the_original_and_a_few_more():
  tasks, mixtures = original_names()
  own_tasks, own_mixtures = own_names()
  found = [spec.get(name) for name in spec.names()]
  # What other tests declare in this process is not the catalogue's, and its
  # other modules are those of `catalog/test_names.py`.
  modules = ("super_glue", "glue", "glue_transfer", "qa", "skills")
  modules = (*modules, "text_classification", "relation")
  found = [f for f in found if f.module.rpartition(".")[2] in modules]
  assert tasks | own_tasks == {
    f.name
    for f in found
    if isinstance(f, spec.TaskSpec) and f.benchmark != "custom"
  }
  assert mixtures | own_mixtures == {
    f.name for f in found if isinstance(f, spec.MixtureSpec)
  }


def test_a_misspelt_name_suggests_the_nearest():
  with pytest.raises(
    ValueError,
    match=r"'taskles_super_glue_boolq_v102'\. Did you mean 'taskless",
  ):
    spec.get("taskles_super_glue_boolq_v102")
  with pytest.raises(ValueError, match="Did you mean 'glue_cola_v002'"):
    spec.get("glue_colla_v002_k4_seed0")


@pytest.mark.parametrize("name", [
  *("taskless_super_glue_wsc_and_dev_v102_simple", "glue_mnli_and_dev_v200"),
  *("squad_to_mrqa", "taskless_glue_qqp_from_mrpc_zeroshot_v002_examples"),
])  # fmt: skip
def test_a_mixture_has_parts_of_its_own_prefix(name):
  """The original mixes tasked parts under a `taskless_` name."""
  mixture = spec.get(name)
  prefix = "taskless_" if name.startswith("taskless_") else ""
  for part in mixture.rates:
    assert part.startswith("taskless_") == bool(prefix), part


def parts(name, split):
  return [task.name for task, _ in spec.get(name).components(split)]


def test_wsc_trains_on_one_task_and_evaluates_another():
  name = "taskless_super_glue_wsc_and_dev_v102_simple"
  stem = "taskless_super_glue_wsc_v102_simple"
  assert parts(name, "train") == [f"{stem}_train"]
  assert parts(name, "validation") == [f"{stem}_eval"]


def test_mnli_evaluates_both_development_sets():
  assert parts("glue_mnli_and_dev_v002", "train") == ["glue_mnli_v002"]
  assert parts("glue_mnli_and_dev_v002", "validation") == [
    "glue_mnli_mismatched_v002",
    "glue_mnli_matched_v002",
  ]


def test_squad_transfer_trains_on_squad_and_evaluates_all():
  assert parts("squad_to_mrqa", "train") == ["squad_v010_allanswers"]
  assert parts("squad_to_race", "validation") == [
    "squad_v010_allanswers",
    "mrqa_race_v100",
  ]


def test_zero_shot_transfer_trains_on_the_source_only():
  name = "taskless_glue_mrpc_from_qqp_zeroshot_v002"
  assert parts(name, "train") == ["taskless_glue_qqp_v002"]
  assert parts(name, "validation") == [
    "taskless_glue_qqp_v002",
    "taskless_glue_mrpc_from_qqp_v002",
  ]


def test_rate_zero_is_evaluated_only():
  name = "super_glue_v102_proportional"
  rates = {t.dataset: r for t, r in spec.get(name).components("train")}
  assert rates["record"] == 138_854
  assert sum(rates.values()) == 185_673
  assert "super_glue_wsc_v102_simple_eval" in parts(name, "validation")
  assert "super_glue_axb_v102" not in parts(name, "train")


def test_rate_zero_never_trains_even_with_a_training_split():
  rates = {"squad_v010_allanswers": 2.0, "glue_cola_v002": 0.0}
  mixture = spec.MixtureSpec("unregistered", rates, "no_module")
  train = [(t.name, rate) for t, rate in mixture.components("train")]
  assert train == [("squad_v010_allanswers", 2.0)]
  evaluated = [t.name for t, _ in mixture.components("validation")]
  assert evaluated == list(rates)


def test_a_task_is_its_own_only_component():
  task = spec.task("taskless_super_glue_axb_v102")
  assert task.components("test") == ((task, 1.0),)
  assert task.components("train") == ()
  assert task.eval_split == "test"


def test_a_mixture_is_refused_where_a_task_is_needed():
  with pytest.raises(ValueError, match="is a mixture of squad_v010"):
    spec.task("squad_to_mrqa")


def test_identity_is_json_and_blind_to_logging():
  task = spec.task("taskless_super_glue_boolq_v102")
  logged = spec.task("taskless_super_glue_boolq_v102_examples")
  assert json.loads(json.dumps(task.identity())) == task.identity()
  assert task.identity() == logged.identity()
  assert logged.log_examples
  assert not task.log_examples
  plain = spec.task("super_glue_boolq_v102")
  assert plain.identity() != task.identity()
  newer = dataclasses.replace(task, preprocessor_version=2)
  assert newer.identity() != task.identity()
  assert spec.task(f"{task.name}_k4_seed1").identity() != task.identity()


def test_every_identity_is_distinct_but_for_logging():
  tasks = [spec.get(name) for name in spec.names()]
  kept = [
    json.dumps(t.identity())
    for t in tasks
    if isinstance(t, spec.TaskSpec) and not t.log_examples
  ]
  assert len(set(kept)) == len(kept)


def test_add_refuses_another_spec_of_the_same_name():
  task = spec.task("taskless_super_glue_boolq_v102")
  spec.add(task)
  with pytest.raises(ValueError, match="A different task or mixture named"):
    spec.add(dataclasses.replace(task, source="elsewhere:1.0.0"))


def rows(*targets):
  return [{spec.TARGETS: target, "idx": i} for i, target in enumerate(targets)]


def test_evaluate_gives_the_tasks_metrics_and_label_statistics():
  task = spec.task("taskless_super_glue_cb_v102")
  got = task.evaluate(
    ["entailment", "neutral", "maybe"],
    rows("entailment", "contradiction", "neutral"),
  )
  assert got["accuracy"] == pytest.approx(100 / 3)
  assert got["mean_3class_f1"] == pytest.approx(100 / 3)
  assert got["legal_label_rate"] == pytest.approx(200 / 3)
  assert got["predicted_share/contradiction"] == 0


@pytest.mark.parametrize("name", [
  n for n in spec.names()
  if n.startswith("taskless_") and isinstance(spec.get(n), spec.TaskSpec)
])  # fmt: skip
def test_every_classification_task_reports_label_statistics(name):
  task = spec.task(name)
  if not task.label_words or not task.metrics:
    return
  example = {
    spec.TARGETS: task.label_words[0],
    **dict.fromkeys(task.eval_features, 0),
  }
  if task.dataset.startswith("dialogre"):
    example |= {"relations": [task.label_words[0]], "evaluable": []}
  got = task.evaluate([task.label_words[0], "xyz"], [example, example])
  assert got["legal_label_rate"] == 50.0
  assert got[f"gold_share/{task.label_words[0]}"] == 100.0


def test_transfer_translates_the_trained_words():
  task = spec.task("taskless_glue_mrpc_from_qqp_v002")
  examples = rows("equivalent", "not_equivalent")
  got = task.evaluate(["duplicate", "not_duplicate"], examples)
  assert (got["f1"], got["accuracy"]) == (100.0, 100.0)
  got = task.evaluate(["duplicate", "nonsense"], examples)
  assert (got["accuracy"], got["legal_label_rate"]) == (50.0, 50.0)


def test_wsc_is_judged_by_the_rule():
  task = spec.task("taskless_super_glue_wsc_v102_simple_eval")
  examples = [
    {spec.TARGETS: "the dog", "label": 1, "idx": 0},
    {spec.TARGETS: "the cat", "label": 0, "idx": 1},
    {spec.TARGETS: "the cat", "label": 0, "idx": 2},
  ]
  got = task.evaluate(["dog", "dog", ""], examples)
  assert got == {"accuracy": pytest.approx(200 / 3)}


@pytest.mark.parametrize(
  ("name", "example"),
  [
    ("taskless_super_glue_boolq_v102", {spec.TARGETS: "<unk>"}),
    ("taskless_glue_stsb_v002", {spec.TARGETS: "<unk>"}),
    (
      "taskless_super_glue_wsc_v102_simple_eval",
      {spec.TARGETS: "dog", "label": -1},
    ),
    (
      "taskless_super_glue_record_v102",
      {
        spec.TARGETS: "<unk>",
        "answers": [],
        "idx/passage": 0,
        "idx/query": 0,
      },
    ),
  ],
)
def test_evaluate_refuses_unlabelled_examples(name, example):
  with pytest.raises(ValueError, match="example 0 has no gold label"):
    spec.task(name).evaluate(["x"], [example])


def test_evaluate_refuses_nothing_and_uneven_lengths():
  task = spec.task("taskless_super_glue_boolq_v102")
  with pytest.raises(ValueError, match="no examples"):
    task.evaluate([], [])
  with pytest.raises(ValueError, match="2 predictions for 1 examples"):
    task.evaluate(["True", "True"], rows("True"))


def test_specs_and_evaluation_import_no_tensorflow():
  code = """
import sys
from prompt_tuning.data import (
  custom, kshot, score, spec, submission, vocabulary)
for name in spec.names():
  spec.get(name).components("train")
task = spec.task("taskless_super_glue_boolq_v102_k4_seed0")
example = {"targets_pretokenized": "True", "idx": 0}
assert task.evaluate(["True"], [example])["accuracy"] == 100
bad = {"tensorflow", "seqio", "tensorflow_datasets"} & set(sys.modules)
assert not bad, bad
"""
  subprocess.run([sys.executable, "-c", code], check=True)
