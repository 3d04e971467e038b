"""What should train and has no gradient is an error that names it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core import partition
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.train import optimizers, reach, state, step
from prompt_tuning.train.errors import UnreachedError
from prompt_tuning.train.objectives import Objective

RUNS, ROWS, H = 2, 3, 4
WITHOUT_OTHER = (("tuner/other", "freeze"), *partition.TUNER_ONLY)


class Sum(Objective):
  """The sum of all logits."""

  def __call__(self, outputs, batch):
    return {"loss": outputs.logits.sum((1, 2)), "rows": batch["weights"]}

  def divide(self, sums):
    return sums["loss"] / sums["rows"]

  def summarise(self, sums, num_steps):
    return {"loss": np.asarray(sums["loss"]) / num_steps}


def program(produce, rules=partition.TUNER_ONLY, **settings):
  """Two runs of a method of two leaves; the model adds what it is given."""
  leaves = {name: jnp.ones((RUNS, H)) for name in ("used", "other")}
  whole = {"tuner": leaves, "model": {"table": jnp.ones((H,))}}
  parts = partition.build(rules, whole)
  trainable, frozen = parts.split(whole)
  optimizer = optimizers.bank_optimizer(
    optimizers.Optax("sgd"), [1.0] * RUNS, start_step=0
  )
  built = step.StepProgram(
    forward=lambda p, b, d, k: Outputs(
      d.virtual[b["run_ids"]]
      * p["table"][None, None]
      * b["scale"][:, None, None]
    ),
    produce=produce,
    partition=parts,
    objective=Sum(),
    optimizer=optimizer,
    num_runs=RUNS,
    dropout=False,
    **settings,
  )
  first = state.create(trainable, optimizer, range(RUNS))
  return built, first, frozen


def batch(rows=ROWS):
  ids = jnp.repeat(jnp.arange(RUNS), rows)
  return {
    "encoder_input_tokens": jnp.ones((RUNS * rows, 1), jnp.int32),
    "run_ids": ids,
    "scale": jnp.arange(1.0, RUNS * rows + 1),
    "weights": jnp.ones((RUNS * rows,)),
  }


def both(params, keys):
  return Delta(virtual=(params["used"] * params["other"])[:, None])


def only_used(params, keys):
  return Delta(virtual=params["used"][:, None])


def stopped(params, keys):
  other = jax.lax.stop_gradient(params["other"])
  return Delta(virtual=(params["used"] * other)[:, None])


@pytest.mark.parametrize("num_microbatches", [1, 3])
@pytest.mark.parametrize("produce", [only_used, stopped])
def test_a_leaf_without_gradient_is_named(produce, num_microbatches):
  built, first, frozen = program(produce, num_microbatches=num_microbatches)
  with pytest.raises(UnreachedError, match=r"tuner/other.*PARTITION_RULES"):
    jax.eval_shape(built.step, first, frozen, batch())


def test_what_the_rules_freeze_needs_none():
  built, first, frozen = program(only_used, WITHOUT_OTHER)
  jax.eval_shape(built.step, first, frozen, batch())


def test_a_gradient_that_stays_zero_shows_in_the_metrics():
  """Of the second run it is zero: what it is multiplied with is."""
  built, first, frozen = program(both)
  zero = first.trainable["tuner"]["used"].at[1].set(0)
  first = state.create(
    {"tuner": {**first.trainable["tuner"], "used": zero}},
    built.optimizer,
    range(RUNS),
  )
  _, metrics = built.step(first, frozen, batch())
  zero_leaves = reach.zero_leaves(first.trainable, [metrics.squares])
  assert {n: r.tolist() for n, r in zero_leaves.items()} == {
    "tuner/other": [False, True]
  }


def params(*names):
  return {"tuner": {name: np.ones((RUNS, H)) for name in names}}


def test_one_that_is_zero_in_all_runs_is_an_error():
  squares = [np.array([[1.0, 1.0], [0.0, 0.0]])] * 3
  with pytest.raises(UnreachedError, match=r"tuner/b was zero at each of 3"):
    reach.insist_nonzero(params("a", "b"), squares, "tuner")
  for folder in ("model", None):
    assert len(reach.insist_nonzero(params("a", "b"), squares, folder)) == 1


def test_one_that_had_a_gradient_once_is_none():
  never = np.array([[1.0, 1.0], [0.0, np.nan]])
  once = np.array([[1.0, 1.0], [1.0, 0.0]])
  assert not reach.insist_nonzero(params("a", "b"), [never, once], "tuner")


def test_one_that_is_zero_in_some_runs_is_a_remark():
  squares = [np.array([[1.0, 1.0], [0.0, 2.0]])]
  (remark,) = reach.insist_nonzero(params("a", "b"), squares, "tuner")
  assert "tuner/b" in remark
  assert "run 0" in remark


# What a method adds.


@pytest.mark.parametrize("num_microbatches", [1, 3])
def test_a_penalty_is_paid_once_whatever_the_batch(num_microbatches):
  def penalty(tuner):
    return (tuner["other"] ** 2).sum(-1)

  built, first, frozen = program(
    only_used, penalty=penalty, num_microbatches=num_microbatches
  )
  after, metrics = built.step(first, frozen, batch())
  np.testing.assert_array_equal(metrics.sums["penalty"], [H, H])
  # Rate 1, and the derivative of x^2 at 1 is 2.
  np.testing.assert_array_equal(after.trainable["tuner"]["other"], -1.0)
  mean = np.asarray(batch()["scale"]).reshape(RUNS, ROWS).mean(-1)
  np.testing.assert_array_equal(
    after.trainable["tuner"]["used"], np.tile(1 - mean[:, None], H)
  )
  summary = built.summarise({**metrics.sums}, 1)
  np.testing.assert_array_equal(summary["penalty"], [H, H])


def test_what_is_added_to_every_example_is_divided_as_the_loss_is():
  def extra(delta, outputs, rows, keys):
    assert keys.shape == (RUNS,)
    return {"length": 3 * outputs.logits[:, 0, 0] * rows["weights"]}

  built, first, frozen = program(only_used, WITHOUT_OTHER, extra=extra)
  after, metrics = built.step(first, frozen, batch())
  rows = batch()
  scale = np.asarray(rows["scale"]).reshape(RUNS, ROWS)
  np.testing.assert_array_equal(metrics.sums["extra/length"], 3 * scale.sum(-1))
  np.testing.assert_array_equal(metrics.sums["loss"], 7 * scale.sum(-1))
  summary = built.summarise(metrics.sums, 2)
  np.testing.assert_array_equal(summary["extra/length"], 1.5 * scale.sum(-1))
  expected = np.ones((RUNS, H)) - scale.mean(-1)[:, None]
  expected[:, 0] -= 3 * scale.mean(-1)
  np.testing.assert_array_equal(after.trainable["tuner"]["used"], expected)


def test_states_cost_nothing_where_nobody_reads_them():
  """The program is the same, to the letter, as of a model without any."""
  built, first, frozen = program(only_used, WITHOUT_OTHER)
  forward = built.forward

  def with_states(*args):
    logits = forward(*args).logits
    return Outputs(logits, jnp.tanh(logits), jnp.sin(logits))

  def text(forward):
    changed = dataclasses.replace(built, forward=forward)
    lowered = jax.jit(changed.step).lower(first, frozen, batch())
    return lowered.as_text()

  def with_none(*args):
    return Outputs(forward(*args).logits)

  assert text(with_states) == text(with_none)
