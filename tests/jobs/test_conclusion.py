"""The end of a run: which tokens count as class labels."""

import types

import numpy as np
import pytest

from prompt_tuning.checkpoints import bundle, fingerprint
from prompt_tuning.core import placement
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.infer import evaluate
from prompt_tuning.jobs import conclusion
from prompt_tuning.tuners.initializers import ClassLabels
from prompt_tuning.tuners.prompt import Prompt

RTE, RECORD = "taskless_super_glue_rte_v102", "taskless_super_glue_record_v102"


def label_pieces(vocabulary):
  """Make what names the label pieces of one run, per stack."""

  def found(task, stack="encoder", **settings):
    outcome = types.SimpleNamespace(
      vocabulary=vocabulary,
      runs=[types.SimpleNamespace(task=task)],
      setup=types.SimpleNamespace(tuners=[Prompt(4, 3, 2, **settings)]),
    )
    return set(vocabulary.pieces(conclusion._label_ids(outcome, 0, stack)))

  return found


@pytest.fixture
def pieces(vocabulary_file):
  return label_pieces(vocabularies.load(vocabulary_file))


def test_the_tasks_own_words_in_published_pieces(published_vocabulary_file):
  pieces = label_pieces(vocabularies.load(published_vocabulary_file))
  assert pieces(RTE) == {"en", "tail", "ment", "\u2581not", "_"}


def test_the_tasks_own_words(pieces):
  expected = {"\u2581en", "ta", "il", "ment", "\u2581not", "_", "ent", "a"}
  assert pieces(RTE) == expected
  assert pieces(RTE, encoder_init=ClassLabels()) == expected


def test_words_that_were_given(pieces):
  given = {"encoder_init": ClassLabels(("yes", "no"))}
  assert pieces(RTE, **given) == {"\u2581yes", "\u2581no"}
  assert "ment" in pieces(RTE, "decoder", **given)


def test_a_bare_space_is_no_label(pieces, vocabulary_file):
  words = vocabularies.load(vocabulary_file)
  assert words.pieces(words.encode("True")) == ["\u2581", "True"]
  assert pieces(RTE, encoder_init=ClassLabels(("True",))) == {"True"}


def test_the_papers_words_for_a_task_without_labels(pieces):
  assert "\u2581reading" in pieces(RECORD)


def test_a_frozen_weight_that_changed_is_reported():
  """One bit of one number suffices."""
  frozen = {"model": {"a": np.zeros(3, np.float32), "b": np.ones(2)}}
  outcome = types.SimpleNamespace(
    setup=types.SimpleNamespace(frozen=frozen),
    checksum=fingerprint.checksum(frozen),
  )
  assert "frozen weights: unchanged (" in conclusion._proof(outcome)
  frozen["model"]["a"][1] = -0.0
  text = conclusion._proof(outcome)
  assert "frozen weights: CHANGED (sha256 " in text
  assert "unchanged" not in text
  assert outcome.checksum[:16] in text


def test_runs_that_diverged_are_named():
  outcome = types.SimpleNamespace(
    runs=[types.SimpleNamespace(name=name) for name in ("a", "b", "c")],
    result=types.SimpleNamespace(diverged=[None, 1_500, None]),
    start_step=1_100_000,
  )
  text = conclusion._lost(outcome)
  assert "1 of 3 runs diverged: b, whose loss is not finite at step " in text
  assert "1,101,500" in text
  outcome.result.diverged = [None] * 3
  assert not conclusion._lost(outcome)


@pytest.mark.parametrize("keep_best", [True, False])
def test_without_best_bundles_the_last_values_count(tmp_path, keep_best):
  last = {"tuner": {"a": np.arange(2, dtype=np.float32)}}
  record = {"step": 3, "score": 1.0, "metrics": {}}
  outcome = types.SimpleNamespace(
    result=types.SimpleNamespace(
      state=types.SimpleNamespace(trainable=last, step=5),
      best=[record, record],
    ),
    output=types.SimpleNamespace(model_dir=tmp_path, keep_best=keep_best),
    start_step=100,
  )
  for run in range(2):
    path = bundle.step_path(tmp_path / "best" / f"run_{run}", 3)
    kept = np.full(1, 7.0 + run, np.float32)
    if keep_best:
      manifest = {"run": {}, "step": 3}
      bundle.write(path, bundle.Bundle(manifest, {"tuner/a": kept}))
  steps, found = conclusion.best(outcome)
  assert steps == ([103, 103] if keep_best else [105, 105])
  np.testing.assert_array_equal(
    found["tuner"]["a"], [7, 8] if keep_best else [0, 1]
  )


def test_the_model_alone_is_not_asked_where_texts_have_soft_tokens(caplog):
  """It has nothing to put there, and the run's end must not fail by it."""
  task = types.SimpleNamespace(
    name="soft", evaluate=lambda *_: {"accuracy": 0.0}
  )
  example = {"targets_pretokenized": "a"}
  text = np.array([5, 1])
  plain = evaluate.EvalSet(task, [text, text], [example] * 2)
  soft = evaluate.EvalSet(
    task, [text, np.array([placement.FIRST_SOFT, 1])], [example] * 2
  )
  assert conclusion.without_soft([plain, soft]) == [plain]
  assert "soft: the model alone is not scored" in caplog.text


def test_without_any_control_nothing_is_evaluated(monkeypatch):
  dataset = types.SimpleNamespace(
    task=types.SimpleNamespace(name="soft"), has_soft=True
  )
  outcome = types.SimpleNamespace(
    output=types.SimpleNamespace(controls=True),
    run_evaluator=types.SimpleNamespace(sets={"soft": [dataset]}),
    runs=[types.SimpleNamespace(task="soft")],
    setup=types.SimpleNamespace(tuners=[None], slots=None),
  )
  monkeypatch.setattr(conclusion, "runs_of", lambda *_: None)
  monkeypatch.setattr(conclusion, "random_control", lambda *_: None)
  monkeypatch.setattr(conclusion.slots, "find", lambda *_: 0)
  assert conclusion._controls(outcome, {}) == []


def test_no_delta_is_exported_of_a_run_that_tuned_the_model(tmp_path):
  """With the model that the run started from, it would answer otherwise."""
  program = types.SimpleNamespace(tunes_model=True)
  outcome = types.SimpleNamespace(setup=types.SimpleNamespace(program=program))
  exported = conclusion._export(outcome, None, [], tmp_path)
  assert exported.lines == ()
  assert "the model was tuned too" in exported.notes[0]
  assert not list(tmp_path.iterdir())
