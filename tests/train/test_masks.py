"""The objective of rules against numpy and OpenPrompt; no model is needed."""

import dataclasses
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from prompt_tuning.core.outputs import Outputs
from prompt_tuning.models.scorers import ClassTable, FirstPiece, Sentinels
from prompt_tuning.prompting.label_words import WordPieces
from prompt_tuning.prompting.rules import RulePieces
from prompt_tuning.train.classes import Classes
from prompt_tuning.train.masks import Masks
from prompt_tuning.train.objectives import Setting
from prompt_tuning.train.step import sum_by_run
from tests.train import conftest as tiny

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "openprompt"
V = 24
# As in the script that wrote the numbers.
IDS = [[5, 9, 13], [5, 10, 14], [6, 9, 13], [6, 9, 5]]
SENTINELS = (23, 22, 21)


def table(ids=IDS, sentinels=SENTINELS):
  """Rules of ids; the target of a class is its number and EOS."""
  targets = np.array([[number + 2, 1] for number in range(len(ids))], np.int32)
  words = RulePieces(
    targets[:, None, :1],
    np.ones((len(ids), 1), np.float32),
    sentinels[:1],
    at_masks=np.array(ids, np.int32),
    sentinels=sentinels,
  )
  return ClassTable(tuple(map(str, range(len(ids)))), targets, words)


def objective(of=None, vocab_rows=V, **settings):
  classes = of or table()
  asked = [lambda words: classes]
  return Masks(**settings).for_runs(Setting(asked, vocab_rows, 1))


def rows(*gold):
  """Rows as `data.assembly` writes them, None without a target."""
  targets = [[0, 0] if g is None else [g + 2, 1] for g in gold]
  inputs = [[0, target[0]] for target in targets]
  return {
    "encoder_input_tokens": jnp.ones((len(gold), 4), jnp.int32),
    "decoder_input_tokens": jnp.asarray(inputs, jnp.int32),
    "decoder_target_tokens": jnp.asarray(targets, jnp.int32),
  }


def outputs(at_masks):
  """What the model gives: the start token's logits come first."""
  start = np.full_like(at_masks[:, :1], 7)
  both = np.concatenate([start, at_masks], 1)
  return Outputs(jnp.asarray(both, jnp.float32))


@pytest.fixture(scope="module")
def golden():
  with np.load(GOLDEN / "rules.npz") as arrays:
    return dict(arrays)


def by_hand(at_masks, gold, ids=IDS):
  """Compute (scores, masks' loss, classes' loss) of one example."""
  p = np.exp(log_softmax(at_masks.astype(np.float64), axis=-1))
  joint = np.array([np.prod([p[k, w] for k, w in enumerate(of)]) for of in ids])
  of_masks = []
  for k in range(len(ids[0])):
    words = sorted({of[k] for of in ids})
    of_masks.append(-np.log(p[k, ids[gold][k]] / p[k, words].sum()))
  return (
    joint / joint.sum(),
    np.mean(of_masks),
    -np.log(joint[gold] / sum(joint)),
  )


def test_the_product_of_masks_normalised_and_both_losses(golden, tolerance):
  """By brute force, per example; a row without a target has no part in it."""
  gold = (0, 1, 2, 3, None)
  sums = objective(masks_weight=0.5, classes_weight=2.0)(
    outputs(golden["logits"]), rows(*gold)
  )
  assert sums["weights"].tolist() == [1, 1, 1, 1, 0]
  for row, g in enumerate(gold[:-1]):
    scores, of_masks, of_classes = by_hand(golden["logits"][row], g)
    assert bool(sums["correct"][row]) == (scores.argmax() == g)
    found = [sums[name][row] for name in ("masks_loss", "classes_loss", "loss")]
    expected = [of_masks, of_classes, 0.5 * of_masks + 2 * of_classes]
    np.testing.assert_allclose(found, expected, **tolerance["oracle"])
  assert sums["loss"][4] == sums["masks_loss"][4] == 0
  made = sum_by_run(sums, None, 1)
  metrics = objective().summarise(made, 2)
  np.testing.assert_allclose(
    metrics["masks_loss"], sums["masks_loss"].sum() / 2, **tolerance["same"]
  )
  assert set(metrics) >= {"loss", "classes_loss", "accuracy"}


def test_openprompts_verbalizer_in_both_modes(golden, tolerance):
  """As it scores, and as it trains: minus the loss of PTR's code."""
  made = outputs(golden["logits"])
  scores = Sentinels()(made.logits, table().words, V)
  np.testing.assert_allclose(
    log_softmax(scores, axis=-1), golden["scores"], **tolerance["formula"]
  )
  for gold in range(len(IDS)):
    sums = objective()(made, rows(*[gold] * len(golden["logits"])))
    np.testing.assert_allclose(
      -sums["loss"], golden["training"][:, gold], **tolerance["formula"]
    )


def test_the_order_of_masks_does_not_matter(golden, tolerance):
  """Where words and sentinels change their places together."""
  gold = rows(3, 1, 0, 2, 2)
  expected = objective()(outputs(golden["logits"]), gold)
  for order in itertools.permutations(range(3)):
    own = table(
      [[of[k] for k in order] for of in IDS],
      tuple(SENTINELS[k] for k in order),
    )
    found = objective(own)(outputs(golden["logits"][:, order]), gold)
    for name in ("loss", "masks_loss", "classes_loss", "correct"):
      np.testing.assert_allclose(
        found[name], expected[name], **tolerance["same"]
      )


def test_gradients_are_finite_differences(golden, tolerance):
  gold = 3

  def loss(logits):
    start = jnp.zeros((1, 1, V))
    both = jnp.concatenate([start, logits[None]], 1)
    return objective()(Outputs(both), rows(gold))["loss"].sum()

  logits = golden["logits"][0]
  found = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(logits)))
  step, expected = 1e-5, np.zeros(logits.shape)
  for at in np.ndindex(*logits.shape):
    sides = []
    for sign in (1, -1):
      moved = logits.astype(np.float64)
      moved[at] += sign * step
      _, of_masks, of_classes = by_hand(moved, gold)
      sides.append(of_masks + of_classes)
    expected[at] = (sides[0] - sides[1]) / (2 * step)
  np.testing.assert_allclose(found, expected, **tolerance["oracle"])
  assert np.abs(found).max() > 0.1


def test_microbatches_and_repeated_rows_change_nothing(golden, tolerance):
  """The loss is a sum over examples, whatever stands beside them."""
  whole = objective()(outputs(golden["logits"]), rows(0, 1, 2, 3, 0))["loss"]
  for row, gold in enumerate((0, 1, 2, 3, 0)):
    alone = objective()(outputs(golden["logits"][row : row + 1]), rows(gold))
    np.testing.assert_allclose(
      alone["loss"], whole[row : row + 1], **tolerance["same"]
    )


def test_classes_that_training_never_had_are_known_by_their_words():
  """A linear model of two features, some pairs of which it never saw.

  With a word at each of two masks it knows them; with a word per class it has
  never been told to say theirs.
  """
  pairs = list(itertools.product(range(3), range(3)))
  unseen = [pair for pair in pairs if (pair[0] + 1) % 3 == pair[1]]
  features = np.zeros((len(pairs), 7), np.float32)
  features[:, 6] = 1
  for row, (a, b) in enumerate(pairs):
    features[row, [a, 3 + b]] = 1
  of_masks = objective(table([[2 + a, 6 + b] for a, b in pairs], (23, 22)))
  alone = WordPieces(
    np.arange(9, 18, dtype=np.int32)[:, None, None],
    np.ones((9, 1), np.float32),
  )
  one_mask = Classes(FirstPiece()).for_runs(
    Setting([lambda _: dataclasses.replace(of_masks.table, words=alone)], V, 1)
  )
  seen = [row for row, pair in enumerate(pairs) if pair not in unseen]
  right = {}
  for name, own, masks in (("two", of_masks, 2), ("one", one_mask, 1)):

    def scores(weights, rows, own=own, masks=masks):
      logits = jnp.reshape(features[rows] @ weights, (len(rows), masks, V))
      return jnp.concatenate([jnp.zeros_like(logits[:, :1]), logits], 1)

    def loss(weights, own=own, scores=scores):
      return own(Outputs(scores(weights, seen)), rows(*seen))["loss"].sum()

    @jax.jit
    def descend(weights, loss=loss):
      step = lambda w, _: (w - 0.1 * jax.grad(loss)(w), None)  # noqa: E731
      return jax.lax.scan(step, weights, None, 200)[0]

    weights = descend(jnp.zeros((7, masks * V)))
    everything = range(len(pairs))
    sums = own(Outputs(scores(weights, list(everything))), rows(*everything))
    correct = np.asarray(sums["correct"])
    assert correct[seen].all()
    right[name] = correct[[pairs.index(pair) for pair in unseen]].mean()
  assert right == {"two": 1.0, "one": 0.0}


def test_a_prompt_that_trains_by_rules_learns_words_and_classes(
  random_params, setup, counted_batches, tolerance
):
  """Through a whole model, which reads the sentinels; both losses fall."""
  own = objective(vocab_rows=tiny.CONFIG.vocab_size, masks_weight=3.0)
  trained = setup(random_params(tiny.CONFIG), objective=own)
  # Each class begins with a token of its own.
  gold = np.arange(8) % len(IDS)
  batch = next(counted_batches((0,), len(gold)))
  batch["encoder_input_tokens"][:, tiny.P] = 2 + gold
  batch |= jax.tree.map(np.asarray, rows(*gold)) | {
    "encoder_input_tokens": batch["encoder_input_tokens"]
  }
  state, first = trained.step(trained.state, trained.frozen, batch)
  for _ in range(60):
    state, last = trained.step(state, trained.frozen, batch)
  for sums in (first.sums, last.sums):
    both = 3 * sums["masks_loss"] + sums["classes_loss"]
    np.testing.assert_allclose(sums["loss"], both, **tolerance["sum"])
  for name in ("masks_loss", "classes_loss"):
    assert last.sums[name] < 0.9 * first.sums[name]
  assert last.sums["correct"] > first.sums["correct"]


def test_the_decoder_reads_all_sentinels():
  made = objective().prepare(rows(0, 1))
  np.testing.assert_array_equal(
    made["decoder_input_tokens"], [[0, *SENTINELS]] * 2
  )


def test_settings_that_make_no_sense():
  with pytest.raises(ValueError, match="reads all masks at once: set SCORER"):
    Masks(FirstPiece())
  with pytest.raises(ValueError, match="MASKS_WEIGHT is -1; expected a number"):
    Masks(masks_weight=-1)
  with pytest.raises(ValueError, match="are both 0, so there is nothing"):
    Masks(masks_weight=0, classes_weight=0)
  one = dataclasses.replace(
    table(), words=WordPieces(np.ones((4, 1, 1), np.int32), np.ones((4, 1)))
  )
  with pytest.raises(ValueError, match="label words of one mask: give the ta"):
    objective(one)
