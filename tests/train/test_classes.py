"""Cross-entropy over classes against numpy; nothing here needs a model."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from prompt_tuning.core.outputs import Outputs
from prompt_tuning.models import scorers
from prompt_tuning.models.scorers import ClassTable
from prompt_tuning.prompting.label_words import WordPieces
from prompt_tuning.train.classes import Classes
from prompt_tuning.train.errors import UnknownTargetError
from prompt_tuning.train.objectives import Setting
from prompt_tuning.train.perceptron import Perceptron

V = 12
# The answers are `5`, `6 7` and `6`, each with EOS; the first two have words of
# their own.
TABLE = ClassTable(
  ("a", "b", "c"),
  np.array([[5, 1, 0], [6, 7, 1], [6, 1, 0]], np.int32),
  WordPieces(
    np.array([[[5], [8]], [[7], [0]], [[6], [0]]], np.int32),
    np.array([[1, 1], [1, 0], [1, 0]], np.float32),
  ),
)


def objective(tables=(TABLE,), start_length=1):
  asked = [lambda words, table=table: table for table in tables]
  return Classes(scorers.FirstPiece()).for_runs(Setting(asked, V, start_length))


def batch(*targets, prefix=()):
  """Rows as `data.assembly` writes them."""
  length = max(map(len, targets)) + len(prefix)
  rows = np.zeros((len(targets), length), np.int32)
  inputs = np.zeros_like(rows)
  for row, before, ids in zip(rows, inputs, targets, strict=True):
    if ids:
      row[len(prefix) :][: len(ids)] = ids
      before[: len(prefix)] = prefix
      before[len(prefix) + 1 :][: len(ids) - 1] = ids[:-1]
  return {
    "encoder_input_tokens": jnp.ones((len(targets), 4), jnp.int32),
    "decoder_input_tokens": jnp.asarray(inputs),
    "decoder_target_tokens": jnp.asarray(rows),
    "run_ids": jnp.zeros((len(targets),), jnp.int32),
  }


def test_the_loss_is_that_of_choosing_among_the_classes(tolerance):
  rows = batch([5, 1], [6, 7, 1], [6, 1], [], [5, 1, 0, 0])
  logits = np.random.default_rng(0).normal(size=(5, 1, V)).astype("f4")
  sums = objective()(Outputs(jnp.asarray(logits)), rows)

  p = np.exp(log_softmax(logits[:, 0], axis=-1))
  scores = np.log(np.stack([p[:, 5] + p[:, 8], p[:, 7], p[:, 6]], axis=1))
  gold, there = np.array([0, 1, 2, 0, 0]), np.array([1, 1, 1, 0, 1])
  losses = -log_softmax(scores, axis=-1)[np.arange(5), gold] * there
  np.testing.assert_allclose(sums["loss"], losses, **tolerance["oracle"])
  np.testing.assert_array_equal(sums["weights"], there)
  right = (scores.argmax(-1) == gold) * there
  np.testing.assert_array_equal(sums["correct"], right)
  assert not sums["unknown"].any()
  of_run = {
    name: np.sum(values, keepdims=True) for name, values in sums.items()
  }
  metrics = objective().summarise(of_run, 2)
  np.testing.assert_allclose(
    metrics["loss"], losses.sum() / 2, **tolerance["oracle"]
  )
  assert metrics["accuracy"] == right.sum() / 4


@pytest.mark.parametrize("target", [[6, 7, 8, 1], [7, 1], [5]])
def test_a_target_that_is_no_class_is_an_error(target):
  rows = batch([5, 1], target)
  sums = objective()(Outputs(jnp.zeros((2, 1, V))), rows)
  assert sums["loss"][1] == 0
  of_run = {
    name: np.sum(values, keepdims=True) for name, values in sums.items()
  }
  with pytest.raises(UnknownTargetError, match=r"1 examples .* 3 label"):
    objective().summarise(of_run, 1)


def test_the_decoder_reads_its_virtual_tokens_and_the_start():
  """Also those of runs of one bank that have more or fewer of them."""
  own = objective(start_length=3)
  made = own.prepare(batch([5, 1], [6, 7, 1], prefix=(V, V + 1)))
  np.testing.assert_array_equal(
    made["decoder_input_tokens"], [[V, V + 1, 0]] * 2
  )
  np.testing.assert_array_equal(made["decoder_target_tokens"], [[0, 0, 1]] * 2)
  made = own.prepare(batch([5, 1], prefix=(V,)))
  np.testing.assert_array_equal(made["decoder_input_tokens"], [[0, V, 0]])
  assert "run_ids" in made


def test_packed_rows_are_refused():
  packed = batch([5, 1]) | {"decoder_segment_ids": jnp.ones((1, 2), jnp.int32)}
  with pytest.raises(ValueError, match="BATCHING to 'buckets'"):
    objective().prepare(packed)


def test_runs_need_the_same_words():
  other = ClassTable(TABLE.names[:2], TABLE.targets[:2], TABLE.words)
  with pytest.raises(ValueError, match=r"different label words.*LABEL_WORDS"):
    objective((TABLE, other))


def test_the_perceptron_compares_the_right_score_with_the_best(tolerance):
  rows = batch([5, 1], [6, 7, 1], [6, 1], [])
  logits = np.random.default_rng(1).normal(size=(4, 1, V)).astype("f4")
  chosen = Perceptron(scorers.FirstPiece(), margin=0.2)
  own = chosen.for_runs(Setting([lambda words: TABLE], V, 1))
  sums = own(Outputs(jnp.asarray(logits)), rows)

  p = np.exp(log_softmax(logits[:, 0], axis=-1))
  scores = np.log(np.stack([p[:, 5] + p[:, 8], p[:, 7], p[:, 6]], axis=1))
  gold, there = np.array([0, 1, 2, 0]), np.array([1, 1, 1, 0])
  right = scores[np.arange(4), gold]
  losses = np.maximum(0, 0.2 + scores.max(-1) - right) * there
  np.testing.assert_allclose(sums["loss"], losses, **tolerance["oracle"])
  assert (losses[:3] >= 0.2 - 1e-6).all()
  assert Perceptron().scorer.length == "mean"
  with pytest.raises(ValueError, match="PERCEPTRON_MARGIN is -1"):
    Perceptron(margin=-1)
