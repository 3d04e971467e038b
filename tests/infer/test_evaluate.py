"""Metrics of several runs and tasks at once, computed by hand here."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import pytest

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.metrics import classification, qa
from prompt_tuning.infer import rank
from prompt_tuning.infer.evaluate import EvalSet, Evaluator, Job
from prompt_tuning.infer.runs import Runs
from prompt_tuning.models.t5.decoding import BeamSearch

LABELS = ("choice 1", "choice 2", "cat")


def make_task(name, label_words=(), **fields):
  metrics, postprocess = (qa.squad,), postprocessors.qa
  if label_words:
    postprocess = postprocessors.LabelId(label_words)
    metrics = (
      classification.accuracy,
      lambda t, p: classification.label_statistics(label_words, t, p),
    )
  settings = {"metrics": metrics, "postprocess": postprocess} | fields
  return spec.TaskSpec(
    name=name,
    benchmark="custom",
    dataset=name,
    module="",
    source="file",
    splits={"validation": "validation"},
    label_words=label_words,
    **settings,
  )


def make_set(predictor, task, texts, targets):
  examples = [
    {
      "inputs_pretokenized": text,
      "targets_pretokenized": target,
      "answers": [target],
    }
    for text, target in zip(texts, targets, strict=True)
  ]
  return EvalSet(task, predictor.encode(texts).rows, examples)


@pytest.fixture(scope="module")
def free(predictor, texts):
  """Free text: half of the gold answers are what run 0 says."""
  said = predictor.predict(predictor.encode(texts[:6]), length=4)
  targets = [p.text if i % 2 else "dog 3 dog" for i, p in enumerate(said)]
  assert all(said[i].text != "dog 3 dog" for i in range(6))
  return make_set(predictor, make_task("free"), texts[:6], targets)


@pytest.fixture(scope="module")
def labelled(predictor, texts):
  targets = [LABELS[i % 3] for i in range(5)]
  return make_set(predictor, make_task("few", LABELS), texts[5:], targets)


@pytest.fixture(scope="module")
def evaluator(predictor, free, labelled):
  """Three jobs of two tasks and two runs, both ways to evaluate."""
  jobs = [Job(free, 0), Job(labelled, 2), Job(labelled, 0)]
  return Evaluator(predictor, jobs, ("generation", "rank"), length=4)


@pytest.fixture(scope="module")
def results(evaluator):
  return evaluator()


def test_outputs_are_what_each_run_says(
  results, predictor, texts, brute_score, tolerance
):
  for result, run, own in zip(
    results, (0, 2, 0), (texts[:6], texts[5:], texts[5:]), strict=True
  ):
    said = predictor.predict(predictor.encode(own, run), length=4)
    assert result.outputs["prediction"] == [p.text for p in said]
    assert result.outputs["score"] == pytest.approx(
      [p.score for p in said], rel=tolerance["sum"]["rtol"]
    )
  found = results[1].outputs
  for number, text in enumerate(texts[5:]):
    scores = [brute_score(predictor, 2, text, label) for label in LABELS]
    assert found["rank_scores"][number] == pytest.approx(
      scores, rel=tolerance["sum"]["rtol"]
    )
    chosen = LABELS[scores.index(max(scores))]
    assert found["rank_prediction"][number] == chosen


def test_metrics_by_generation(results):
  """Run 0 was asked for its own words in three of six cases."""
  assert results[0].metrics["em"] == 50.0
  assert results[0].by == ("generation",)
  assert "rank_prediction" not in results[0].outputs
  # No answer is a label: all of them are illegal, and wrong.
  assert results[1].metrics["accuracy"] == 0.0
  assert results[1].metrics["legal_label_rate"] == 0.0


def test_metrics_by_rank(results):
  for result in results[1:]:
    chosen = result.outputs["rank_prediction"]
    correct = [chosen[i] == LABELS[i % 3] for i in range(5)]
    assert result.metrics["rank/accuracy"] == pytest.approx(
      100 * sum(correct) / 5
    )
    assert result.metrics["rank/legal_label_rate"] == 100.0
    assert result.metrics["rank/gold_share/cat"] == pytest.approx(20.0)
  # Not all of it by chance: the runs choose differently.
  first, second = (r.outputs["rank_prediction"] for r in results[1:])
  assert first != second


def test_the_first_way_has_the_plain_names(evaluator, results):
  jobs = evaluator.jobs[1:2]
  (other,) = dataclasses.replace(evaluator, jobs=jobs, by=("rank",))()
  assert other.metrics == {
    name.removeprefix("rank/"): value
    for name, value in results[1].metrics.items()
    if name.startswith("rank/")
  }
  assert set(other.outputs) == {"rank_prediction", "rank_scores"}
  assert other.score == other.metrics["accuracy"]


def test_ranking_passes_over_tasks_without_label_words(predictor, free):
  both = Evaluator(predictor, [Job(free)], ("rank", "generation"), length=4)
  (result,) = both()
  assert result.by == ("generation",)
  assert result.metrics["em"] == 50.0


def test_score_leaves_label_shares_out(results):
  assert results[0].score == pytest.approx(
    (results[0].metrics["em"] + results[0].metrics["f1"]) / 2
  )
  assert results[1].score == 0.0


def test_other_deltas_and_parameters(evaluator, results, predictor):
  """As the training loop calls it, and back."""
  delta = jax.tree.map(lambda a: a[jnp.array([1, 1, 1])], predictor.runs.delta)
  changed = evaluator(delta=delta)
  assert changed[0].outputs != results[0].outputs
  same = evaluator(delta=predictor.runs.delta, params=predictor.params)
  assert [r.outputs for r in same] == [r.outputs for r in results]
  params = jax.tree.map(lambda a: 2 * a, predictor.params)
  assert evaluator(params=params)[0].outputs != results[0].outputs


def test_the_longest_gold_answer_is_the_default_length(predictor, texts):
  """Two words and EOS: three tokens decoded at most."""
  dataset = make_set(
    predictor, make_task("short"), texts[:4], ["cat dog", "cat", "", "dog"]
  )
  (result,) = Evaluator(predictor, [Job(dataset)])()
  expected = predictor.predict(predictor.encode(texts[:4]), length=3)
  assert result.outputs["prediction"] == [p.text for p in expected]
  assert max(len(p.text.split()) for p in expected) == 3


def test_the_decoder_is_a_choice(evaluator, results):
  job = evaluator.jobs[0]
  other = Evaluator(evaluator.predictor, [job], length=4, method=BeamSearch(3))
  assert other()[0].outputs["score"] != results[0].outputs["score"]


def test_texts_are_logged_where_the_name_asks(predictor, free, caplog):
  logged = dataclasses.replace(free.task, log_examples=True)
  datasets = [free, dataclasses.replace(free, task=logged)]
  for dataset, count in zip(datasets, (0, 3), strict=True):
    caplog.clear()
    with caplog.at_level(logging.INFO, "prompt_tuning"):
      Evaluator(predictor, [Job(dataset)], length=4)()
    assert caplog.text.count("prediction: ") == count


def test_what_cannot_be_evaluated(predictor, free, labelled, texts):
  with pytest.raises(ValueError, match="no gold label"):
    make_set(predictor, make_task("t", LABELS), texts[:1], ["<unk>"])
  with pytest.raises(ValueError, match="no examples"):
    make_set(predictor, make_task("t", LABELS), [], [])
  with pytest.raises(ValueError, match="'t' has no metric"):
    make_set(predictor, make_task("t", LABELS, metrics=()), ["cat"], ["cat"])
  with pytest.raises(ValueError, match="5 inputs and 2 examples"):
    dataclasses.replace(labelled, examples=labelled.examples[:2])
  with pytest.raises(ValueError, match="no jobs"):
    Evaluator(predictor, [])
  with pytest.raises(ValueError, match="EVALUATE_BY"):
    Evaluator(predictor, [Job(free)], ["ranking"])
  with pytest.raises(ValueError, match="no run 3; there are 3"):
    Evaluator(predictor, [Job(free, 3)])
  with pytest.raises(ValueError, match="no label words"):
    Evaluator(predictor, [Job(free)], ["rank"])


def test_placements_stay_when_the_delta_changes(evaluator):
  with pytest.raises(ValueError, match="one placement for each run"):
    evaluator(delta=Runs().delta)


def test_a_task_may_say_that_it_is_ranked(predictor, labelled, texts):
  """Whatever the settings; by means, and among each row's own candidates."""
  words = LABELS
  by_mean = make_set(
    predictor,
    make_task("means", words, ranked="mean"),
    texts[5:],
    labelled.targets,
  )
  own = ("bird", "red green", "bird", "sings 1 2 3")
  task = make_task("own", ranked="sum", candidates="answers")
  among = make_set(predictor, task, texts[:3], ["bird"] * 3)
  for example in among.examples:
    example["answers"] = list(own)
  results = Evaluator(predictor, [Job(by_mean, 1), Job(among, 0)], length=4)()
  assert [result.by for result in results] == [("rank",)] * 2
  assert all("prediction" not in result.outputs for result in results)
  assert results[0].metrics.keys() >= {"accuracy"}
  asked = predictor.encode(texts[5:], [1] * 5)
  expected = rank.rank(predictor, asked, words, "mean")
  assert results[0].outputs["rank_scores"] == [list(r.scores) for r in expected]
  # "bird" is there twice, and counts once.
  assert [len(scores) for scores in results[1].outputs["rank_scores"]] == [
    3
  ] * 3
  assert set(results[1].outputs["rank_prediction"]) <= set(own)
