"""Sample texts: some of all, and some of the wrong ones."""

from prompt_tuning.data import spec
from prompt_tuning.data.metrics import samples


def example(text, target, **more):
  return {spec.INPUTS: text, spec.TARGETS: target, **more}


def test_wrong_samples_are_wrong_by_the_tasks_own_rule():
  task = spec.task("squad_v010_allanswers_examples")
  examples = [
    example("q1", "Oslo", answers=["Oslo", "Kristiania"]),
    example("q2", "Rome", answers=["Rome"]),
  ]
  got = samples.sample_texts(task, ["Kristiania", "Paris"], examples)
  assert "q1" in got["samples"]
  assert "q2" in got["samples"]
  assert got["wrong_samples"] == "input: q2\ntarget: Rome\nprediction: Paris"


def test_no_more_than_asked_for_and_repeatable():
  task = spec.task("taskless_super_glue_boolq_v102_examples")
  examples = [example(f"row {i}", "True", idx=i) for i in range(20)]
  predictions = ["False"] * 20
  got = samples.sample_texts(task, predictions, examples, num_samples=3)
  assert got["samples"].count("input:") == 3
  assert got == samples.sample_texts(task, predictions, examples, num_samples=3)
  other = samples.sample_texts(
    task, predictions, examples, num_samples=3, seed=1
  )
  assert got != other


def test_nothing_wrong_gives_an_empty_text():
  task = spec.task("taskless_super_glue_multirc_v102_examples")
  rows = [example("x", "True", **{"idx/paragraph": 0, "idx/question": 0})]
  got = samples.sample_texts(task, ["True"], rows)
  assert got["wrong_samples"] == ""
