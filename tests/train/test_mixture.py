"""The mixture's loss and its weights against numpy; nothing needs a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from prompt_tuning.core.outputs import Outputs
from prompt_tuning.train.errors import DeadComponentError
from prompt_tuning.train.mixture import Mixture
from prompt_tuning.train.objectives import CrossEntropy, sum_by_run
from prompt_tuning.tuners.soft_words import em_log

B, M, S, V = 4, 3, 5, 7


def make_batch(seed=0):
  rng = np.random.default_rng(seed)
  targets = rng.integers(2, V, (B, S)).astype(np.int32)
  for row, length in enumerate((5, 3, 1, 0)):
    targets[row, length:] = 0
  logits = rng.normal(size=(B, M, S, V)).astype(np.float32)
  weights = rng.dirichlet(np.ones(M), size=1).astype(np.float32)
  return logits, targets, np.repeat(weights, B, axis=0)


def whole(logits, targets):
  """Log-probability of every target under every component: [B, M]."""
  log_probs = log_softmax(logits.astype(np.float64), axis=-1)
  picked = np.take_along_axis(
    log_probs, np.repeat(targets[:, None], M, 1)[..., None], axis=-1
  )[..., 0]
  return np.where(targets[:, None] > 0, picked, 0).sum(-1)


def sums_of(logits, targets, weights, **more):
  batch = {
    "decoder_target_tokens": jnp.asarray(targets),
    "mixture_log_weights": jnp.log(weights),
    **more,
  }
  return Mixture()(Outputs(jnp.asarray(logits).reshape(-1, S, V)), batch)


def test_the_loss_is_that_of_the_mean_probability(tolerance):
  logits, targets, weights = make_batch()
  sums = sums_of(logits, targets, weights)
  joint = np.log(weights) + whole(logits, targets)
  losses = -logsumexp(joint, axis=1) * [1, 1, 1, 0]
  np.testing.assert_allclose(sums["loss"], losses, **tolerance["oracle"])
  np.testing.assert_array_equal(sums["weights"], [5, 3, 1, 0])
  of_run = sum_by_run(sums, None, 1)
  np.testing.assert_allclose(of_run["sequences"], 3, **tolerance["same"])
  np.testing.assert_allclose(
    Mixture().divide(of_run), losses.sum() / 3, **tolerance["oracle"]
  )
  largest = np.exp(joint.max(1) - logsumexp(joint, axis=1))[:3].mean()
  metrics = Mixture().summarise(of_run, 1)
  np.testing.assert_allclose(
    metrics["largest_responsibility"], largest, **tolerance["oracle"]
  )


def test_packed_rows_lose_what_their_sequences_do(tolerance):
  logits, targets, weights = make_batch()
  apart = sum_by_run(sums_of(logits, targets, weights), None, 1)
  # The second and third row follow each other in one of five positions.
  packed = np.zeros((1, S), np.int32)
  packed[0, :4] = [*targets[1, :3], targets[2, 0]]
  together = np.zeros((1, M, S, V), np.float32)
  together[0, :, :3], together[0, :, 3] = logits[1, :, :3], logits[2, :, 0]
  segments = jnp.asarray([[1, 1, 1, 2, 0]])
  sums = sums_of(together, packed, weights[:1], decoder_segment_ids=segments)
  first = sums_of(logits[:1], targets[:1], weights[:1])
  for name in ("loss", "weights", "sequences", "share"):
    np.testing.assert_allclose(
      sums[name] + first[name], apart[name], **tolerance["oracle"]
    )


def test_one_component_is_the_plain_loss(tolerance):
  logits, targets, _ = make_batch()
  outputs = Outputs(jnp.asarray(logits[:, 0]))
  batch = {"decoder_target_tokens": jnp.asarray(targets)}
  ours = Mixture()(outputs, batch)["loss"]
  theirs = CrossEntropy(z_loss=0.0)(outputs, batch)["loss"]
  np.testing.assert_allclose(ours, theirs, **tolerance["oracle"])


def test_a_step_of_the_weights_is_the_m_step_of_em(tolerance):
  """Of full size to the mean responsibilities; of half of it, half the way."""
  logits, targets, weights = make_batch()

  def loss(shares):
    log_weights = jnp.broadcast_to(em_log(shares)[None], (B, M))
    batch = {
      "decoder_target_tokens": jnp.asarray(targets),
      "mixture_log_weights": log_weights,
    }
    outputs = Outputs(jnp.asarray(logits).reshape(-1, S, V))
    sums = sum_by_run(Mixture()(outputs, batch), None, 1)
    return Mixture().divide(sums)[0]

  joint = np.log(weights) + whole(logits, targets)
  responsibilities = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
  mean = responsibilities[:3].mean(0)
  gradient = jax.grad(loss)(jnp.asarray(weights[0]))
  np.testing.assert_allclose(weights[0] - gradient, mean, **tolerance["oracle"])
  half = weights[0] - gradient / 2
  np.testing.assert_allclose(
    half, (weights[0] + mean) / 2, **tolerance["oracle"]
  )


@pytest.mark.parametrize("weight", [0.0, -0.1])
def test_a_weight_that_reaches_zero_is_an_error(weight):
  logits, targets, _ = make_batch()
  log_weights = em_log(jnp.asarray([weight, 0.5, 0.5]))
  batch = {
    "decoder_target_tokens": jnp.asarray(targets),
    "mixture_log_weights": jnp.broadcast_to(log_weights[None], (B, M)),
  }
  sums = Mixture()(Outputs(jnp.asarray(logits).reshape(-1, S, V)), batch)
  assert np.isfinite(sums["loss"]).all()
  with pytest.raises(
    DeadComponentError, match=r"Run 0: .*zero.*OPTIMIZER.*RATE"
  ):
    Mixture().summarise(sum_by_run(sums, None, 1), 1)
