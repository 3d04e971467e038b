"""The lines of T5X's three modes, made by the model."""

import json

import pytest

from prompt_tuning.infer import modes
from prompt_tuning.infer.outputs import Output
from prompt_tuning.models.t5.decoding import Sampling

RUN_IDS = [0, 2, 1, 1]


@pytest.fixture(scope="module")
def texts(texts):
  return [texts[i] for i in (0, 3, 6, 8)]


@pytest.fixture(scope="module")
def examples(texts):
  return [
    {"inputs_pretokenized": text, "targets_pretokenized": "cat dog", "run": run}
    for text, run in zip(texts, RUN_IDS, strict=True)
  ]


def run_of(example):
  return example["run"]


def test_predict(predictor, texts, examples):
  compute = modes.compute("predict", predictor, run_of, length=4)
  expected = predictor.predict(predictor.encode(texts, RUN_IDS), length=4)
  assert compute(range(4), examples) == [
    {"prediction": p.text} for p in expected
  ]


def test_rows_of_a_template_are_taken_as_they_are(predictor, texts, examples):
  """By the numbers of examples; their texts are for people."""
  rows = predictor.encode(texts[::-1]).rows
  compute = modes.compute("predict", predictor, run_of, rows, length=4)
  numbers = range(3, -1, -1)
  backwards = [examples[n] for n in numbers]
  asked = predictor.encode([texts[3 - n] for n in numbers], RUN_IDS[::-1])
  expected = predictor.predict(asked, length=4)
  assert compute(numbers, backwards) == [
    {"prediction": p.text} for p in expected
  ]


def test_predict_with_aux(predictor, texts, examples):
  compute = modes.compute("predict_with_aux", predictor, run_of, length=4)
  expected = predictor.predict(predictor.encode(texts, RUN_IDS), length=4)
  assert compute(range(4), examples) == [
    {"prediction": p.text, "aux": {"scores": p.score}} for p in expected
  ]


def test_score(predictor, examples, brute_score, tolerance):
  compute = modes.compute("score", predictor, run_of)
  for line, example in zip(compute(range(4), examples), examples, strict=True):
    expected = brute_score(
      predictor, example["run"], example["inputs_pretokenized"], "cat dog"
    )
    assert line == {
      "score": pytest.approx(expected, rel=tolerance["sum"]["rtol"])
    }


def test_samples_survive_a_restart(predictor, examples, tmp_path):
  """A chunk computed later samples what it would have sampled."""
  method = Sampling(temperature=2.0)
  compute = modes.compute(
    "predict", predictor, run_of, length=4, method=method, seed=3
  )

  def lines(folder, *computes):
    output = Output(tmp_path / folder, "t", "predict", {}, chunk_size=2)
    for made in computes:
      try:
        output.write(examples, made)
      except KeyboardInterrupt:
        continue
    return output.path.read_bytes()

  def killed(numbers, chunk):
    if 2 in numbers:
      raise KeyboardInterrupt
    return compute(numbers, chunk)

  whole = lines("a", compute)
  assert lines("b", killed, compute) == whole
  assert len(whole.splitlines()) == 4
  predictions = {json.loads(line)["prediction"] for line in whole.splitlines()}
  assert len(predictions) > 1


def test_what_cannot_be_done(predictor):
  with pytest.raises(ValueError, match="Did you mean 'predict'"):
    modes.compute("predic", predictor)
  compute = modes.compute("score", predictor)
  with pytest.raises(ValueError, match="Input 7 has no targets"):
    compute([7], [{"inputs_pretokenized": "cat"}])
