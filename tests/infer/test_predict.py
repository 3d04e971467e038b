"""Predictions: mixed batches, order, shapes, decoding methods."""

import dataclasses
import functools
import gc

import jax
import numpy as np
import pytest

from prompt_tuning.core import axes
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import FIRST_SOFT
from prompt_tuning.infer import programs
from prompt_tuning.infer.batching import Batching
from prompt_tuning.infer.inputs import Inputs
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.models.t5 import cost, network
from prompt_tuning.models.t5.decoding import BeamSearch, Sampling

# Of the ten texts; neighbours differ.
RUN_IDS = [0, 1, 2, 1, 0, 2, 2, 0, 1, 1]
LENGTH = 5


@pytest.fixture(scope="module")
def mixed(predictor, texts):
  """All texts, three runs side by side in every batch."""
  asked = predictor.encode(texts, RUN_IDS)
  return predictor.predict(asked, length=LENGTH)


def same(found, expected, tolerance):
  assert [p.texts for p in found] == [p.texts for p in expected]
  np.testing.assert_allclose(
    [p.scores for p in found], [p.scores for p in expected], **tolerance["same"]
  )


def test_predictions_are_greedy_for_each_example_alone(
  predictor, texts, mixed, teacher_forced, brute_score, tolerance
):
  """Whatever the batch: no token is other than the most likely one."""
  finished = 0
  for text, run, prediction in zip(texts, RUN_IDS, mixed, strict=True):
    ids = predictor.vocabulary.encode_batch([prediction.text])[0]
    ends = len(ids) < LENGTH
    # One position more than was decoded: there stands EOS.
    logits = teacher_forced(predictor, run, text, [*ids, 1])
    expected = [*ids, 1] if ends else ids
    assert logits.argmax(-1).tolist()[: len(expected)] == expected
    if ends:
      finished += 1
      np.testing.assert_allclose(
        prediction.score,
        brute_score(predictor, run, text, prediction.text),
        **tolerance["oracle"],
      )
  assert finished > 2
  assert len({prediction.text for prediction in mixed}) > 5


@pytest.mark.parametrize("run", [0, 1, 2])
def test_a_mixed_batch_equals_each_run_alone(
  run, solo, texts, mixed, tolerance
):
  own = [i for i in range(len(texts)) if RUN_IDS[i] == run]
  alone = solo(run)
  found = alone.predict(alone.encode([texts[i] for i in own]), length=LENGTH)
  same(found, [mixed[i] for i in own], tolerance)


def test_runs_matter(predictor, texts, mixed):
  other = predictor.encode(texts, [(run + 1) % 3 for run in RUN_IDS])
  changed = predictor.predict(other, length=LENGTH)
  scores = np.array(
    [[a.score, b.score] for a, b in zip(mixed, changed, strict=True)]
  )
  assert (abs(scores[:, 0] - scores[:, 1]) > 1e-3).all()


@pytest.mark.parametrize("order", [range(9, -1, -1), [3, 1, 4, 1, 5, 9, 2, 6]])
def test_predictions_come_in_the_order_of_the_inputs(
  order, predictor, texts, mixed, tolerance
):
  asked = predictor.encode(
    [texts[i] for i in order], [RUN_IDS[i] for i in order]
  )
  found = predictor.predict(asked, length=LENGTH)
  same(found, [mixed[i] for i in order], tolerance)


@pytest.mark.parametrize(
  "shapes", [Batching(1, 1), Batching(10, 1), Batching(5, 2)]
)
def test_batch_shapes_do_not_matter(shapes, predictor, texts, mixed, tolerance):
  other = dataclasses.replace(predictor, batching=shapes)
  found = other.predict(other.encode(texts, RUN_IDS), length=LENGTH)
  same(found, mixed, tolerance)


def test_the_plain_model_is_a_run_like_any_other(predictor, texts, tolerance):
  """Ids without virtual tokens, in a bank and in no bank."""
  plain = dataclasses.replace(predictor, runs=Runs())
  expected = plain.predict(plain.encode(texts[:4]), length=LENGTH)
  bank = dataclasses.replace(predictor, runs=join([predictor.runs, Runs()]))
  found = bank.predict(bank.encode(texts[:4], 3), length=LENGTH)
  same(found, expected, tolerance)


def test_nothing_in_nothing_out(predictor):
  assert predictor.predict(predictor.encode([])) == []


def test_samples_do_not_depend_on_the_batch(predictor, texts):
  method = Sampling(temperature=2.0, num_decodes=2)
  # Short ones, which share one compiled length.
  asked = predictor.encode([texts[i] for i in (0, 2, 6, 8)], [0, 1, 2, 1])
  settings = {"length": LENGTH, "method": method}
  whole = predictor.predict(asked, seed=7, **settings)
  # The same inputs in another order, two at a time.
  other = dataclasses.replace(predictor, batching=Batching(2, 1))
  order = [2, 0, 3, 1]
  moved = Inputs([asked.rows[i] for i in order], asked.run_ids[order])
  found = other.predict(moved, seed=7, numbers=order, **settings)
  assert [p.texts for p in found] == [whole[i].texts for i in order]
  assert whole != predictor.predict(asked, seed=8, **settings)
  # Equal inputs are sampled apart.
  twice = predictor.encode(["cat dog"] * 4, 0)
  assert len({p.texts for p in predictor.predict(twice, **settings)}) > 1


def test_beam_search_returns_its_beams(
  predictor, texts, brute_score, tolerance
):
  alpha = 0.6
  asked = predictor.encode(texts[:4], RUN_IDS[:4])
  found = predictor.predict(asked, length=LENGTH, method=BeamSearch(3, alpha))
  for text, run, prediction in zip(texts, RUN_IDS, found, strict=False):
    # Fewer than three only where no more came to an end.
    assert 1 <= len(prediction.texts) == len(set(prediction.texts)) <= 3
    assert list(prediction.scores) == sorted(prediction.scores, reverse=True)
    length = len(prediction.text.split()) + 1
    expected = brute_score(predictor, run, text, prediction.text)
    expected /= ((5 + length) / 6) ** alpha
    if length <= LENGTH:
      assert prediction.score == pytest.approx(
        expected, rel=tolerance["sum"]["rtol"]
      )
  assert max(len(prediction.texts) for prediction in found) == 3


def test_sharded_predictions_equal_those_of_one_device(
  predictor, texts, mixed, tolerance
):
  """Two ways of data, four of model, parameters divided by T5X's rules."""
  config = predictor.config
  mesh = axes.make_mesh(2, 4)
  # Dimensions of this tiny model that four ways cannot share stay whole.
  rules = [("vocab", "model"), ("mlp", "model"), ("joined_kv", "model")]
  rules += [(name, None) for name in ("embed", "heads", "relpos_buckets")]
  target = axes.restore_target(
    network.abstract_params(config), network.logical_axes(config), mesh, rules
  )
  sharded = dataclasses.replace(
    predictor,
    params=jax.tree.map(
      lambda a, to: jax.device_put(a, to.sharding), predictor.params, target
    ),
    runs=Runs(
      axes.replicated(mesh, predictor.runs.delta), predictor.runs.placements
    ),
    mesh=mesh,
  )
  asked = sharded.encode(texts[:4], RUN_IDS[:4])
  same(sharded.predict(asked, length=LENGTH), mixed[:4], tolerance)


def test_other_runs_and_parameters_compile_nothing(
  predictor, texts, mixed, compiled
):
  del mixed  # its programs are compiled by now
  compiled.clear()
  delta = jax.tree.map(lambda a: a + 1, predictor.runs.delta)
  params = jax.tree.map(lambda a: a * 1.5, predictor.params)
  other = dataclasses.replace(
    predictor, params=params, runs=Runs(delta, predictor.runs.placements)
  )
  other.predict(other.encode(texts, RUN_IDS), length=LENGTH)
  assert "decode" not in compiled


def test_a_long_session_keeps_some_programs(monkeypatch):
  """Any number of shapes and settings; what was used last stays."""
  built = []

  def build(number):
    built.append(number)
    return lambda params, delta, batch: batch["x"] + number

  def asked(number, size):
    program = programs._Program(build, (number,), None)
    batch = {"x": np.zeros(size, np.int32)}
    out = program({}, Delta(), batch)
    assert out.tolist() == [number] * size

  # A few instead of hundreds, which would have to be compiled here.
  few = functools.lru_cache(maxsize=3)(programs._jitted.__wrapped__)
  assert programs._jitted.cache_info().maxsize == 256
  monkeypatch.setattr(programs, "_jitted", few)
  client = jax.devices()[0].client
  for number, size in ((1, 1), (1, 2), (1, 1), (2, 1)):
    asked(number, size)
  assert built == [1, 1, 2]
  gc.collect()
  before = len(client.live_executables())
  for size in range(2, 6):
    asked(2, size)
  asked(2, 5)
  gc.collect()
  assert len(client.live_executables()) <= before
  assert few.cache_info().currsize == 3
  assert built == [1, 1, 2, 2, 2, 2, 2]


def test_long_inputs_are_cut_as_in_training(predictor, texts, tolerance):
  short = dataclasses.replace(predictor, input_length=6)
  asked = short.encode([texts[1], texts[0]])
  assert asked.truncated == 1
  kept = " ".join(texts[1].split()[:5])
  expected = predictor.predict(
    predictor.encode([kept, texts[0]]), length=LENGTH
  )
  same(short.predict(asked, length=LENGTH), expected, tolerance)


def test_a_run_or_a_length_that_does_not_exist(predictor):
  with pytest.raises(ValueError, match=r"ask for runs \[3\]; there are 3"):
    predictor.predict(predictor.encode(["cat"], 3))
  with pytest.raises(ValueError, match="Cannot decode 0 tokens"):
    predictor.predict(predictor.encode(["cat"]), length=0)


def test_inputs_that_do_not_mark_a_templates_places_are_warned_of(
  predictor, solo_runs, caplog
):
  """Once for what was tuned, in whatever predictor and bank it stands."""
  runs = dataclasses.replace(predictor.runs, in_template=(True, True, False))
  given = dataclasses.replace(predictor, runs=runs, _warned_of=set())
  marked = np.array([FIRST_SOFT, 3, FIRST_SOFT + 1, 1], np.int32)
  plain = np.array([3, 1], np.int32)

  def warnings(asking, rows, run_ids):
    caplog.clear()
    asked = Inputs(rows, np.array(run_ids))
    # Any program does: what is warned of is where the inputs place tokens.
    list(asking.map_batches(lambda *_: np.zeros(4), asked, lambda _: {}))
    return caplog.text.count("at the places of a task's template")

  assert warnings(given, [marked, plain], [0, 2]) == 0
  assert warnings(given, [marked, plain], [0, 0]) == 1
  alone = dataclasses.replace(solo_runs[0], in_template=(True,))
  again = dataclasses.replace(given, runs=alone)
  assert warnings(again, [plain], [0]) == 0
  assert warnings(given, [plain, plain], [0, 1]) == 1, "another run"


def test_long_inputs_without_a_limit_are_said_to_take_memory(
  predictor, monkeypatch, caplog
):
  monkeypatch.setattr(cost, "_LONG_BYTES", 100)
  monkeypatch.setattr(cost, "_told", set())
  asked = predictor.encode(["red cat", "green dog sings"])
  predictor.predict(asked, length=LENGTH)  # its inputs have a limit
  assert not caplog.text
  unlimited = dataclasses.replace(predictor, input_length=None)
  unlimited.predict(asked, length=LENGTH)
  assert "Inputs have no limit, and one has" in caplog.text
