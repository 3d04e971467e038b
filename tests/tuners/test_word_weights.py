"""Learned refinement of label words (KPT), against numpy and by its purpose."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from scipy.special import log_softmax, softmax

from prompt_tuning.core.delta import NO_WORD, Delta
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.data import custom, templated
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.jobs import classes, setup, slots
from prompt_tuning.jobs.settings import Dataset
from prompt_tuning.jobs.train_job import Experiment, build_tuner
from prompt_tuning.models import scorers
from prompt_tuning.models.scorers import ClassTable
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.prompting.label_words import WordPieces
from prompt_tuning.train.classes import Classes
from prompt_tuning.train.objectives import WORD_WEIGHTS, Setting
from prompt_tuning.tuners.method import Inputs
from prompt_tuning.tuners.word_weights import WordWeights

V = 12
# Class a has the words 5, 6, 7, b has 8, 9, c has 10; 7 is planted: it goes
# with b.
TABLE = ClassTable(
  ("a", "b", "c"),
  np.array([[5, 1], [8, 1], [10, 1]], np.int32),
  WordPieces(
    np.array([[[5], [6], [7]], [[8], [9], [0]], [[10], [0], [0]]], np.int32),
    np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32),
  ),
)
THERE = TABLE.words.weights > 0
GROUPS = [[5, 6], [7, 8, 9], [10]]
WORDS = (("5", "6", "7"), ("8", "9"), ("10",))
METHOD = WordWeights(words=WORDS)


def batch(gold):
  targets = jnp.asarray(TABLE.targets)[gold]
  return {
    "encoder_input_tokens": jnp.ones((len(gold), 4), jnp.int32),
    "decoder_input_tokens": jnp.zeros_like(targets),
    "decoder_target_tokens": targets,
  }


def objective():
  chosen = Classes(scorers.FirstPiece(aggregate="learned"))
  return chosen.for_runs(Setting([lambda words: TABLE], V, 1))


def initial():
  return meta.unbox(METHOD.init(jax.random.key(0), Inputs())["params"])


def loss(params, logits, gold):
  """The mean over examples of one run."""
  delta = METHOD.apply({"params": params}, Inputs())
  rows = jnp.broadcast_to(delta.word_weights[None], (len(gold), *THERE.shape))
  sums = objective()(Outputs(logits), {**batch(gold), WORD_WEIGHTS: rows})
  return sums["loss"].mean()


@pytest.fixture(scope="module")
def drawn():
  """Logits in which a word of an example's class, planted ones apart, is up."""
  rng = np.random.default_rng(0)
  gold = rng.integers(0, 3, 60)
  logits = rng.normal(size=(60, 1, V))
  for row, label in zip(logits[:, 0], gold, strict=True):
    row[GROUPS[label]] += 2
  return jnp.asarray(logits, jnp.float32), gold


def test_they_start_as_the_mean_of_log_probabilities(drawn, tolerance):
  logits, gold = drawn
  zeros = initial()
  log_probs = log_softmax(np.asarray(logits, np.float64)[:, 0], axis=-1)
  scores = np.stack(
    [log_probs[:, ids].mean(-1) for ids in ([5, 6, 7], [8, 9], [10])], axis=-1
  )
  expected = -log_softmax(scores, axis=-1)[np.arange(len(gold)), gold].mean()
  found = loss(zeros, logits, gold)
  np.testing.assert_allclose(found, expected, **tolerance["oracle"])


def test_gradients_are_those_of_numpy(drawn, tolerance):
  logits, gold = drawn
  rng = np.random.default_rng(1)
  weights = np.where(THERE, rng.normal(size=THERE.shape), 0).astype(np.float32)
  found = jax.grad(loss)({"word_weights": weights}, logits, gold)
  values = log_softmax(np.asarray(logits, np.float64)[:, 0], axis=-1)
  values = np.where(THERE, values[:, TABLE.words.pieces[..., 0]], 0)
  shares = softmax(np.where(THERE, weights, -np.inf), axis=-1)
  scores = (values * shares).sum(-1)
  wrong = softmax(scores, axis=-1) - np.eye(3)[gold]
  expected = shares * (wrong[..., None] * (values - scores[..., None]))
  np.testing.assert_allclose(
    found["word_weights"], expected.mean(0), **tolerance["oracle"]
  )


def test_a_planted_word_ends_with_the_smallest_weight(drawn):
  logits, gold = drawn
  params = initial()
  step = jax.jit(jax.grad(loss))
  for _ in range(30):
    gradient = step(params, logits, gold)
    params = jax.tree.map(lambda p, g: p - g, params, gradient)
  weights = np.asarray(params["word_weights"])
  shares = softmax(np.where(THERE, weights, -np.inf), axis=-1)
  assert shares[0].argmin() == 2
  assert shares[0, 2] < 0.15 < shares[0, :2].min()
  assert not weights[~THERE].any()


def test_weights_of_other_words_are_errors(drawn):
  logits, gold = drawn
  with pytest.raises(ValueError, match=r"\[3, 3\] label words, but TUNER has"):
    objective()(Outputs(logits), batch(gold))
  scorer = scorers.FirstPiece(aggregate="learned")
  none = np.full((1, 4, 3), NO_WORD)
  assert scorer.applies(Delta(word_weights=none), 0, TABLE.words)
  assert scorer.applies(Delta(), 0, TABLE.words)
  fewer = none.copy()
  fewer[0, :3, :2] = 0
  with pytest.raises(ValueError, match=r"for 2, 2, 2 words .* 3, 2, 1"):
    scorer.applies(Delta(word_weights=fewer), 0, TABLE.words)
  fewer[0, :, 2] = 0
  more = np.zeros((1, 3, 5), np.float32)  # of five words, where three are asked
  for other in (fewer, more):
    with pytest.raises(ValueError, match="to those of the training"):
      scorer.applies(Delta(word_weights=other), 0, TABLE.words)


def test_words_are_the_tasks_or_those_of_label_words(
  own_tasks, tmp_path, vocabulary_file
):
  path = tmp_path / "rows.jsonl"
  path.write_text(json.dumps({"text": "sea", "kind": 0}))
  custom.declare(
    "weighed_rows",
    {"train": str(path)},
    template="{text}",
    target_column="kind",
    label_words=("no", "yes"),
  )
  words = {"no": ["no", "never"], "yes": ["yes"]}
  task = templated.declare(
    "weighed",
    "weighed_rows",
    template='{"field": "text"} {"mask"}',
    label_words=words,
  )
  model = t5_config.get("t5_1_1_tiny")
  given = WordWeights(words={"no": ["none"], "yes": ["sure", "yes"]})
  built = build_tuner(given, model, task.name)
  assert built.words == (("none",), ("sure", "yes"))
  built = build_tuner(WordWeights, model, task.name)
  assert built.words == tuple(map(tuple, words.values()))
  delta = Delta(word_weights=jnp.zeros((1, 2, 2)))
  runs = slots.runs(delta, [built], [slots.Slot(0)])
  assert runs.one(0).weighed_words_of(0) == built.words
  assert join([Runs(), runs]).weighed_words_of(1) == built.words
  scorer = scorers.WholeWords("learned")
  for of_run in (built.words, ()):
    classes.insist_on_weighed(task.name, None, scorer, of_run)
  others = (built.words[::-1], (("no", "nay"), ("yes",)))
  for other in others:
    with pytest.raises(
      ValueError,
      match="class 'no' of weighed has 2 label words, no, never, but ",
    ):
      classes.insist_on_weighed(task.name, None, scorer, other)
  with pytest.raises(ValueError, match=r"2 classes, but the run has .* of 1"):
    classes.insist_on_weighed(task.name, None, scorer, others[0][:1])
  experiment = Experiment(
    model,
    Dataset(task.name),
    WordWeights,
    objective=Classes(scorer, {"no": ["nay", "no"], "yes": ["yes"]}),
    learning_rates=(0.1,),
  )
  with pytest.raises(ValueError, match="2 label words, nay, no, but the run"):
    setup.objective_of(experiment)
  with pytest.raises(ValueError, match="has no label words: set LABEL_WORDS"):
    build_tuner(WordWeights, model, "skill_first")
  with pytest.raises(ValueError, match="no label words of several classes"):
    WordWeights().init(jax.random.key(0), Inputs())
