"""The loss against numpy, torch and T5X's gradient formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from prompt_tuning.core import axes
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.train.objectives import CrossEntropy, sum_by_run

B, S, V = 5, 6, 11
FACTORS = [
  None,
  3.5,
  "NUM_REAL_TARGET_TOKENS",
  "NUM_TOTAL_TARGET_TOKENS",
  "AVERAGE_PER_SEQUENCE",
]


def _batch(seed=0, shape=(B, S)):
  """Targets of different lengths, the last row empty; logits that favour them.

  The arithmetic of the oracles is float64.
  """
  rng = np.random.default_rng(seed)
  targets = rng.integers(1, V, shape).astype(np.int32)
  lengths = rng.integers(1, shape[1] + 1, shape[0])
  lengths[-1] = 0
  targets[np.arange(shape[1]) >= lengths[:, None]] = 0
  logits = rng.normal(size=(*shape, V)) * 3
  np.put_along_axis(logits, targets[..., None], 6.0, axis=-1)
  logits[0, 0] = np.roll(logits[0, 0], 1)
  return logits.astype(np.float32), {"decoder_target_tokens": targets}


def _numpy_token_losses(logits, targets, z_loss, smoothing):
  """T5X's formula with one-hot targets, [B, S] cross-entropy and z-loss."""
  logits = logits.astype(np.float64)
  classes = logits.shape[-1]
  log_z = np.log(np.exp(logits).sum(-1))
  high, low = 1 - smoothing, smoothing / (classes - 1)
  soft = np.where(np.arange(classes) == targets[..., None], high, low)
  constant = -(high * np.log(high) + (classes - 1) * low * np.log(low + 1e-20))
  loss = -(soft * (logits - log_z[..., None])).sum(-1)
  return loss - constant, z_loss * log_z**2


def _numpy_loss(logits, targets, z_loss, smoothing, factor):
  weights = (targets != 0).astype(np.float64)
  tokens = sum(_numpy_token_losses(logits, targets, z_loss, smoothing))
  if factor == "NUM_REAL_TARGET_TOKENS":
    return (tokens * weights).sum() / weights.sum()
  if factor == "NUM_TOTAL_TARGET_TOKENS":
    return (tokens * weights).sum() / targets.size
  if factor == "AVERAGE_PER_SEQUENCE":
    means = [
      (t * w).sum() / w.sum()
      for t, w in zip(tokens, weights, strict=True)
      if w.sum()
    ]
    return np.mean(means)
  return (tokens * weights).sum() / (factor or 1)


def _total(objective, logits, batch, runs=1, run_ids=None):
  sums = sum_by_run(objective(Outputs(logits), batch), run_ids, runs)
  return objective.divide(sums)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
  ("z_loss", "smoothing"), [(0, 0), (1e-4, 0), (0.1, 0.2)]
)
def test_loss_equals_the_formula(factor, z_loss, smoothing, tolerance):
  logits, batch = _batch()
  objective = CrossEntropy(z_loss, smoothing, factor)

  loss = _total(objective, jnp.asarray(logits), batch)

  expected = _numpy_loss(
    logits, batch["decoder_target_tokens"], z_loss, smoothing, factor
  )
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, [expected], **tolerance["oracle"])


@pytest.mark.parity
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_equal_torch(smoothing, tolerance):
  torch = pytest.importorskip("torch")
  logits, batch = _batch(1)
  targets = batch["decoder_target_tokens"]
  objective = CrossEntropy(z_loss=0.0, label_smoothing=smoothing)

  loss, gradient = jax.value_and_grad(
    lambda x: _total(objective, x, batch).sum()
  )(jnp.asarray(logits))

  x = torch.tensor(logits, requires_grad=True)
  # T5X spreads the smoothing over the V - 1 other classes, torch over all V,
  # and only T5X subtracts the entropy of the smoothed targets.
  spread = smoothing * V / (V - 1)
  theirs = torch.nn.functional.cross_entropy(
    x.reshape(-1, V),
    torch.tensor(targets.reshape(-1), dtype=torch.long),
    ignore_index=0,
    label_smoothing=spread,
    reduction="sum",
  )
  theirs.backward()
  constant = 0.0
  if smoothing:
    constant = -(1 - smoothing) * np.log(1 - smoothing)
    constant -= smoothing * np.log(smoothing / (V - 1))
  expected = float(theirs.detach()) - constant * (targets != 0).sum()
  np.testing.assert_allclose(loss, expected, **tolerance["parity"])
  np.testing.assert_allclose(gradient, x.grad.numpy(), **tolerance["parity"])


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_gradient_is_the_one_t5x_writes_by_hand(smoothing, tolerance):
  # T5X: (1 + 2 z_loss log Z) softmax - soft targets, times the weight.
  logits, batch = _batch(2)
  targets = batch["decoder_target_tokens"]
  objective = CrossEntropy(z_loss=0.05, label_smoothing=smoothing)

  gradient = jax.grad(lambda x: _total(objective, x, batch).sum())(
    jnp.asarray(logits)
  )

  exponents = np.exp(logits.astype(np.float64))
  z = exponents.sum(-1, keepdims=True)
  soft = np.where(
    np.arange(V) == targets[..., None], 1 - smoothing, smoothing / (V - 1)
  )
  expected = (1 + 0.1 * np.log(z)) * exponents / z - soft
  expected *= (targets != 0)[..., None]
  np.testing.assert_allclose(gradient, expected, **tolerance["oracle"])


def test_arithmetic_is_float32_whatever_the_logits():
  logits, batch = _batch(3)
  rounded = jnp.asarray(logits, jnp.bfloat16)

  low = CrossEntropy()(Outputs(rounded), batch)
  high = CrossEntropy()(Outputs(rounded.astype(jnp.float32)), batch)

  for name, values in low.items():
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, high[name])


@pytest.mark.parametrize("factor", FACTORS)
def test_runs_of_a_bank_have_their_own_divisor(factor, tolerance):
  logits, batch = _batch(4, (8, S))
  run_ids = np.array([0, 2, 0, 2, 2, 0, 2, 2], np.int32)
  objective = CrossEntropy(loss_normalizing_factor=factor)

  losses = _total(
    objective, jnp.asarray(logits), batch, 3, jnp.asarray(run_ids)
  )

  for k in (0, 2):
    rows = run_ids == k
    alone = _total(
      objective,
      jnp.asarray(logits[rows]),
      {"decoder_target_tokens": batch["decoder_target_tokens"][rows]},
    )
    np.testing.assert_allclose(losses[k], alone[0], **tolerance["same"])
  assert losses[1] == 0


@pytest.mark.parametrize("factor", FACTORS)
def test_a_run_without_examples_has_no_gradient(factor):
  logits, batch = _batch(4)
  objective = CrossEntropy(loss_normalizing_factor=factor)
  empty = {"decoder_target_tokens": 0 * batch["decoder_target_tokens"]}

  gradient = jax.grad(lambda x: _total(objective, x, empty).sum())(
    jnp.asarray(logits)
  )

  np.testing.assert_array_equal(gradient, np.zeros_like(logits))


@pytest.mark.parametrize("factor", FACTORS)
def test_packing_changes_nothing(factor, tolerance):
  logits, batch = _batch(8, (4, S))
  targets = batch["decoder_target_tokens"]
  packed = {
    "decoder_target_tokens": targets.reshape(2, 2 * S),
    "decoder_segment_ids": np.repeat([[1, 2]] * 2, S, axis=1)
    * (targets.reshape(2, 2 * S) != 0),
  }
  objective = CrossEntropy(loss_normalizing_factor=factor)

  apart = sum_by_run(objective(Outputs(jnp.asarray(logits)), batch), None, 1)
  together = sum_by_run(
    objective(Outputs(jnp.asarray(logits.reshape(2, 2 * S, V))), packed),
    None,
    1,
  )

  for name, value in apart.items():
    np.testing.assert_allclose(together[name], value, **tolerance["same"])


def test_loss_weights_select_and_scale(tolerance):
  logits, batch = _batch(5)
  targets = batch["decoder_target_tokens"]
  weights = np.random.default_rng(0).uniform(0, 2, targets.shape).astype("f4")
  weights[1] = 0

  sums = CrossEntropy()(
    Outputs(jnp.asarray(logits)), batch | {"decoder_loss_weights": weights}
  )

  tokens = sum(_numpy_token_losses(logits, targets, 1e-4, 0.0))
  np.testing.assert_allclose(
    sums["loss"], (tokens * weights).sum(-1), **tolerance["oracle"]
  )
  assert sums["loss"][1] == 0


def test_unweighted_positions_may_hold_anything():
  logits, batch = _batch(6)
  broken = logits.copy()
  broken[batch["decoder_target_tokens"] == 0] = np.nan

  clean = CrossEntropy()(Outputs(jnp.asarray(logits)), batch)
  sums = CrossEntropy()(Outputs(jnp.asarray(broken)), batch)

  np.testing.assert_array_equal(sums["loss"], clean["loss"])


@pytest.mark.parametrize("unknown", [-1, V])
def test_a_target_that_is_no_class_is_not_silent(unknown):
  logits, batch = _batch(7)
  targets = batch["decoder_target_tokens"].copy()
  targets[0, 0] = unknown

  loss = CrossEntropy()(
    Outputs(jnp.asarray(logits)), {"decoder_target_tokens": targets}
  )["loss"]

  assert np.isnan(loss[0])
  assert np.isfinite(loss[1:]).all()


def test_of_equal_logits_the_first_is_the_prediction():
  logits = np.zeros((1, 3, V), np.float32)
  logits[0, :, [4, 7]] = 1.0
  targets = np.array([[4, 7, 1]], np.int32)

  sums = CrossEntropy()(
    Outputs(jnp.asarray(logits)), {"decoder_target_tokens": targets}
  )

  np.testing.assert_array_equal(logits.argmax(-1), 4)
  assert sums["correct"].tolist() == [1]


@pytest.mark.parametrize("where", [slice(None), slice(0, 1), slice(4, 5)])
def test_logits_that_are_no_numbers_predict_nothing(where):
  logits = np.zeros((1, 1, V), np.float32)
  logits[..., 4] = 1.0
  logits[..., where] = np.nan
  targets = np.array([[4]], np.int32)

  sums = CrossEntropy()(
    Outputs(jnp.asarray(logits)), {"decoder_target_tokens": targets}
  )

  assert sums["correct"].tolist() == sums["exact"].tolist() == [0]


def test_devices_that_share_the_vocabulary_do_not_exchange_logits():
  mesh = axes.make_mesh(data=2, model=4)

  def array(shape, dtype, *spec):
    where = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

  def loss(logits, targets):
    sums = CrossEntropy()(Outputs(logits), {"decoder_target_tokens": targets})
    return sums["loss"].sum(), sums

  compiled = (
    jax.jit(jax.grad(loss, has_aux=True))
    .lower(
      array((4, S, 64), jnp.float32, "data", None, "model"),
      array((4, S), jnp.int32, "data"),
    )
    .compile()
  )

  # Numbers per position are added up across devices; nothing else moves.
  text = compiled.as_text()
  assert "all-reduce" in text
  assert "all-gather" not in text
  assert "all-to-all" not in text
  assert "collective-permute" not in text


def test_counts():
  logits = np.zeros((3, 3, V), np.float32)
  targets = np.array([[4, 5, 0], [4, 0, 0], [0, 0, 0]], np.int32)
  for row, column, prediction in [(0, 0, 4), (0, 1, 6), (1, 0, 4), (0, 2, 9)]:
    logits[row, column, prediction] = 1.0

  sums = CrossEntropy()(
    Outputs(jnp.asarray(logits)), {"decoder_target_tokens": targets}
  )

  assert sums["weights"].tolist() == [2, 1, 0]
  assert sums["correct"].tolist() == [1, 1, 0]
  assert sums["target_tokens"].tolist() == [3, 3, 3]
  assert sums["sequences"].tolist() == [1, 1, 0]
  assert sums["exact"].tolist() == [0, 1, 0]


def test_metrics_have_the_names_and_values_of_t5x(tolerance):
  batches = [_batch(seed) for seed in (0, 1)]
  objective = CrossEntropy()
  sums = [
    objective(Outputs(jnp.asarray(logits)), batch) for logits, batch in batches
  ]
  total = {
    name: np.stack([np.sum(sums[0][name]) + np.sum(sums[1][name])])
    for name in sums[0]
  }

  metrics = objective.summarise(total, num_steps=2)

  targets = np.stack([b["decoder_target_tokens"] for _, b in batches])
  logits = np.stack([x for x, _ in batches])
  cross, z = _numpy_token_losses(logits, targets, 1e-4, 0.0)
  mask = targets != 0
  expected = {
    "loss": ((cross + z) * mask).sum() / 2,
    "z_loss": (z * mask).sum() / 2,
    "cross_ent_loss": (cross * mask).sum() / 2,
    "accuracy": ((logits.argmax(-1) == targets) & mask).sum() / mask.sum(),
    "sequence_accuracy": (
      ((logits.argmax(-1) == targets) | ~mask).all(-1) & mask.any(-1)
    ).sum()
    / mask.any(-1).sum(),
    "loss_per_nonpadding_target_token": ((cross + z) * mask).sum() / mask.sum(),
    "loss_per_all_target_tokens": ((cross + z) * mask).sum() / mask.size,
    "z_loss_per_all_target_tokens": (z * mask).sum() / mask.size,
    "cross_ent_loss_per_all_target_tokens": (cross * mask).sum() / mask.size,
    "non_padding_fraction/loss_weights": mask.mean(),
  }
  assert metrics.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], [value], **tolerance["oracle"])


def test_summary_of_a_divided_loss_is_a_quotient_of_totals():
  objective = CrossEntropy(loss_normalizing_factor="num_real_target_tokens")
  names = "loss z_loss cross_ent_loss weights correct exact"
  names = [*names.split(), "sequences", "target_tokens"]
  total = dict.fromkeys(names, np.array([6.0, 0.0])) | {
    "weights": np.array([4.0, 0.0])
  }

  metrics = objective.summarise(total, num_steps=3)

  assert metrics["loss"][0] == 1.5
  assert np.isnan(metrics["loss"][1])
  assert np.isnan(metrics["accuracy"][1])


def test_no_array_of_one_hot_targets_is_made():
  shape = (8, 16, 4_096)
  batch = {"decoder_target_tokens": jnp.ones(shape[:2], jnp.int32)}
  logits = jax.ShapeDtypeStruct(shape, jnp.float32)

  step = jax.jit(jax.grad(lambda x: _total(CrossEntropy(), x, batch).sum()))
  memory = step.lower(logits).compile().memory_analysis()

  # Scratch beyond arguments and gradient: at most one more array of logits.
  assert memory.temp_size_in_bytes < 1.1 * np.prod(shape) * 4


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (
      {"loss_normalizing_factor": "NUM_REAL_TOKENS"},
      "Did you mean 'NUM_REAL_TARGET_TOKENS'",
    ),
    ({"loss_normalizing_factor": 0.0}, "must be positive; got 0"),
    ({"label_smoothing": 1.0}, r"LABEL_SMOOTHING must be in \[0, 1\)"),
  ],
)
def test_malformed_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    CrossEntropy(**settings)


def test_logits_of_another_shape_are_an_error():
  logits, batch = _batch()
  with pytest.raises(ValueError, match="do not belong to targets"):
    CrossEntropy()(Outputs(jnp.asarray(logits[:, 1:])), batch)
