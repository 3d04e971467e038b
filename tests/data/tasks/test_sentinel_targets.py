"""Tasks whose targets begin with a sentinel: text, tokens, answers."""

import pytest
import seqio

from prompt_tuning.core import embedded
from prompt_tuning.data import sentinel_targets, skills, spec, vocabulary
from prompt_tuning.data.tasks import registry
from prompt_tuning.jobs import setup

NAME = "sentinel_skill_last"


@pytest.fixture
def _known(monkeypatch):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  vocabulary.configure(embedded.vocabulary("embedded:ladder_1"))
  yield
  vocabulary.configure(None)
  for name in {NAME, f"{NAME}_k2_seed0"} & set(seqio.TaskRegistry.names()):
    seqio.TaskRegistry.remove(name)


def first_row(name):
  dataset = registry.get(name).get_dataset(
    {"inputs": 32, "targets": 16}, "validation", shuffle=False
  )
  return next(dataset.as_numpy_iterator())


@pytest.mark.usefixtures("_known")
def test_only_the_target_gets_a_sentinel():
  row, own = first_row(NAME), first_row("skill_last")
  words = vocabulary.load()
  (sentinel,) = words.encode("<extra_id_0>")
  assert sentinel == words.size - 1
  assert row["targets"].tolist() == [sentinel, *own["targets"].tolist()]
  assert row["inputs"].tolist() == own["inputs"].tolist()
  example = next(skills.examples("last", "validation"))
  target = row[spec.TARGETS].decode()
  assert target == f"<extra_id_0> {example['targets']}"
  assert words.decode(row["targets"][:-1]) == target
  assert len(registry.get(f"{NAME}_k2_seed0").source.splits) == 3


@pytest.mark.usefixtures("_known")
def test_answers_are_read_without_it():
  task = spec.task(NAME)
  examples = [
    {spec.INPUTS: text, spec.TARGETS: "<extra_id_0> hot", "idx": "0"}
    for text in ("a", "b", "c", "d")
  ]
  answers = ["<extra_id_0> hot", "hot", "<extra_id_0> cold", "<extra_id_1> hot"]
  assert task.evaluate(answers, examples) == {"accuracy": 50.0}


@pytest.mark.usefixtures("_known")
def test_classes_are_ranked_with_it_and_named_without():
  name = "sentinel_taskless_super_glue_rte_v102"
  base = spec.task("taskless_super_glue_rte_v102")
  task = spec.task(name)
  assert task.label_words == (
    "<extra_id_0> entailment",
    "<extra_id_0> not_entailment",
  )
  assert [task.postprocess(word) for word in task.label_words] == [0, 1]
  assert setup.task_words(name) == base.label_words
  assert task.identity() != base.identity()


@pytest.mark.usefixtures("_known")
def test_the_tasks_of_a_mixture_get_them():
  whole = spec.get("taskless_super_glue_wsc_and_dev_v102_simple")
  mixture = spec.get(f"sentinel_{whole.name}")
  for split in ("train", "validation"):
    members = [task.name for task, _ in mixture.components(split)]
    assert members == [
      f"sentinel_{task.name}" for task, _ in whole.components(split)
    ]


@pytest.mark.usefixtures("_known")
def test_names_of_no_task():
  with pytest.raises(ValueError, match=r"'skill_lasst'.*'skill_last'"):
    spec.get("sentinel_skill_lasst")
  with pytest.raises(ValueError, match="cannot begin with a sentinel"):
    spec.get(f"sentinel_{NAME}")
  assert sentinel_targets.adopt("skill_lasst") is False
