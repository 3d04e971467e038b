"""Objectives of training, such as T5X's summed cross-entropy with z-loss.

An objective turns logits and a batch into sums per example. These are added up
over the examples of a run, over microbatches and over steps. Only at the end a
division turns them into a loss or metrics. So there are no means of means, and
the runs of a bank never share a divisor.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.core import tree
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.types import PAD_ID, Array, Batch

# Named sums. As an objective returns them, each is a float32 [B].
Sums = Mapping[str, Array]

# The batch's feature [B, M] if answers are a mixture of M components.
LOG_WEIGHTS = "mixture_log_weights"
# The batch's feature [B, C, W] if runs have learned weights of label words: the
# weights of the row's run.
WORD_WEIGHTS = "label_word_weights"

# T5X's names of divisors that depend on the batch -> the sum to divide by.
_DIVISORS = {
  "NUM_REAL_TARGET_TOKENS": "weights",
  "NUM_TOTAL_TARGET_TOKENS": "target_tokens",
  "AVERAGE_PER_SEQUENCE": "sequences",
}


class Setting(NamedTuple):
  """Facts about the runs that an objective may need before training.

  Attributes:
    classes: one function for every run: from the user's label words to the
      classes of its task, see `models.scorers.ClassTable`.
    vocab_rows: rows of the embedding table (V).
    start_length: largest number of tokens with which a decoder starts: its
      virtual tokens and the start token.
  """

  classes: Sequence[Callable[[Any], Any]]
  vocab_rows: int
  start_length: int


class Choice(Protocol):
  """The choice of an objective, before data and model are known."""

  def for_runs(self, setting: Setting) -> "Objective":
    """Build the objective.

    Args:
      setting: facts about the runs.

    Returns:
      The objective.
    """
    ...


class Objective(Protocol):
  """Turns the model's outputs into sums per example.

  Attributes:
    can_be_flat: whether the gradient is exactly zero if all examples are right.
      Then a zero gradient is not a sign of a mistake.
    reads_rows: whether it, or its scorer, asks for learned output rows. One
      that does not would only make them less likely than all else.
  """

  can_be_flat: ClassVar[bool] = False
  reads_rows: ClassVar[bool] = True

  def for_runs(self, setting: Setting) -> "Objective":
    """Build it, see `Choice`; by default it needs no setting.

    Args:
      setting: facts about the runs.

    Returns:
      The objective.
    """
    del setting
    return self

  def prepare(self, batch: Batch) -> Batch:
    """Make the batch for the model; by default the given one.

    Args:
      batch: features of `models.t5.network`.

    Returns:
      Features with the same number of rows.
    """
    return batch

  def __call__(self, outputs: Outputs, batch: Batch) -> Sums:
    """Score a batch.

    Args:
      outputs: of the model, for what `prepare` made of the batch.
      batch: features of `models.t5.network`, and what the objective needs.

    Returns:
      Float32 [B] arrays, `loss` among them, to be added up per run.
    """
    ...

  def divide(self, sums: Sums) -> Array:
    """Turn sums over the batch of each run into its loss.

    Args:
      sums: the objective's sums, [K] each.

    Returns:
      [K] losses. No divisor depends on the model, so that one may divide the
      gradients of summed losses instead.
    """
    ...

  def summarise(self, sums: Sums, num_steps: int) -> dict[str, np.ndarray]:
    """Turn sums over many steps into metrics.

    Args:
      sums: the objective's sums, [K] each, added up over the steps.
      num_steps: number of these steps.

    Returns:
      T5X's tag names (without the `train/` prefix) -> [K].
    """
    ...


@dataclasses.dataclass(frozen=True)
class CrossEntropy(Objective):
  """Cross-entropy over target tokens plus z_loss * log(Z)^2.

  Attributes:
    z_loss: weight of the squared log of the softmax normaliser.
    label_smoothing: probability spread over the other classes; the loss of a
      perfect prediction is subtracted, so that the minimum stays at 0.
    loss_normalizing_factor: None sums over tokens (the default of T5 and of the
      public code). A number divides this sum. Three names refer to the run's
      batch: `NUM_REAL_TARGET_TOKENS` divides by the sum of its weights,
      `NUM_TOTAL_TARGET_TOKENS` by its number of positions, padding included,
      and `AVERAGE_PER_SEQUENCE` takes the mean over the tokens of a sequence
      and then over sequences.

  Source: T5X `losses.py` and `models.py` at cc342d4. Deviations: a batch
  without `decoder_loss_weights` always weighs padding 0 (T5X then weighs it 1
  when the factor is a number or None); the divisor counts the examples of one
  run; accuracy ignores the weights of AVERAGE_PER_SEQUENCE; a run without
  examples has loss 0 instead of NaN.
  """

  reads_rows: ClassVar[bool] = False

  z_loss: float = 1e-4
  label_smoothing: float = 0.0
  loss_normalizing_factor: float | str | None = None

  def __post_init__(self) -> None:
    factor = self.loss_normalizing_factor
    if isinstance(factor, str):
      if factor.upper() not in _DIVISORS:
        raise ValueError(
          f"Unknown LOSS_NORMALIZING_FACTOR {factor!r}."
          f"{tree.nearest(factor.upper(), _DIVISORS)} Expected a number, None, "
          f"or one of {', '.join(_DIVISORS)}."
        )
      object.__setattr__(self, "loss_normalizing_factor", factor.upper())
    elif factor is not None and not factor > 0:
      raise ValueError(
        f"LOSS_NORMALIZING_FACTOR must be positive; got {factor}."
      )
    if not 0 <= self.label_smoothing < 1:
      raise ValueError(
        f"LABEL_SMOOTHING must be in [0, 1); got {self.label_smoothing}."
      )

  def __call__(self, outputs: Outputs, batch: Batch) -> Sums:
    """Score a batch, see `Objective`.

    Args:
      outputs: with logits [B, S, V].
      batch: `decoder_target_tokens` [B, S]; optionally `decoder_loss_weights`
        [B, S] and, for packed rows, `decoder_segment_ids` [B, S].

    Returns:
      [B] sums of `loss`, of its parts `z_loss` and `cross_ent_loss`, of
      `weights`, of `correct` weights (most probable token is the target), of
      `target_tokens` with padding, of `sequences` with any weight, and of
      `exact` ones, whose tokens are all correct.

    Raises:
      ValueError: logits and targets differ in shape.
    """
    targets, logits = batch["decoder_target_tokens"], outputs.logits
    if logits.shape[:-1] != targets.shape:
      raise ValueError(
        f"Logits of shape {logits.shape} do not belong to targets of shape "
        f"{targets.shape}."
      )
    logits = logits.astype(jnp.float32)
    weights = _weights(batch)
    target_logits = _pick(logits, targets)
    right = _is_argmax(logits, targets, target_logits)
    share, wrong_in_sequence = _per_sequence(
      weights, ~right, batch.get("decoder_segment_ids")
    )
    cross_entropy, z_loss = self._token_losses(logits, target_logits)
    averaged = self.loss_normalizing_factor == "AVERAGE_PER_SEQUENCE"
    scale = share if averaged else weights
    # Selecting first keeps NaN at unweighted positions out of the sums.
    cross_entropy = jnp.where(weights != 0, cross_entropy, 0) * scale
    z_loss = jnp.where(weights != 0, z_loss, 0) * scale
    correct = jnp.where(right, weights, 0)
    tokens = {
      "loss": cross_entropy + z_loss,
      "z_loss": z_loss,
      "cross_ent_loss": cross_entropy,
      "weights": weights,
      "correct": correct,
      "target_tokens": jnp.ones_like(weights),
      "sequences": share,
      "exact": jnp.where(wrong_in_sequence, 0, share),
    }
    return {name: values.sum(-1) for name, values in tokens.items()}

  def divide(self, sums: Sums) -> Array:
    """Turn sums over each run's batch into its loss, see `Objective`."""
    factor = self.loss_normalizing_factor
    if factor is None:
      return sums["loss"]
    if not isinstance(factor, str):
      return sums["loss"] / factor
    divisor = sums[_DIVISORS[factor]]
    return sums["loss"] / jnp.where(divisor > 0, divisor, 1)

  def summarise(self, sums: Sums, num_steps: int) -> dict[str, np.ndarray]:
    """Turn sums over many steps into T5X's metrics, see `Objective`.

    If the loss is a sum, `loss`, `z_loss` and `cross_ent_loss` are its averages
    per step, as in T5X. If the divisor depends on the batch, they are totals
    divided by totals.
    """
    total = {name: np.asarray(x, np.float64) for name, x in sums.items()}
    factor = self.loss_normalizing_factor
    if isinstance(factor, str):
      divisor = total[_DIVISORS[factor]]
    else:
      divisor = np.full_like(total["loss"], (factor or 1) * num_steps)
    metrics = {
      name: _ratio(total[name], divisor)
      for name in ("loss", "z_loss", "cross_ent_loss")
    }
    per_token = (
      ("accuracy", "correct", "weights"),
      ("sequence_accuracy", "exact", "sequences"),
      ("loss_per_nonpadding_target_token", "loss", "weights"),
      ("loss_per_all_target_tokens", "loss", "target_tokens"),
      ("z_loss_per_all_target_tokens", "z_loss", "target_tokens"),
      (
        "cross_ent_loss_per_all_target_tokens",
        "cross_ent_loss",
        "target_tokens",
      ),
      ("non_padding_fraction/loss_weights", "weights", "target_tokens"),
    )
    for name, numerator, denominator in per_token:
      metrics[name] = _ratio(total[numerator], total[denominator])
    return metrics

  def _token_losses(
    self, logits: Array, target_logits: Array
  ) -> tuple[Array, Array]:
    """Compute cross-entropy and z-loss of every position, [B, S] each."""
    classes = logits.shape[-1]
    log_z = jax.nn.logsumexp(logits, axis=-1)
    loss = log_z - target_logits
    if self.label_smoothing:
      high = 1.0 - self.label_smoothing
      low = self.label_smoothing / max(classes - 1, 1)
      others = (classes - 1) * log_z - (logits.sum(-1) - target_logits)
      best = -high * np.log(high) - (classes - 1) * low * np.log(low + 1e-20)
      loss = high * loss + low * others - float(best)
    return loss, self.z_loss * jnp.square(log_z)


def sum_by_run(sums: Sums, run_ids: Array | None, num_runs: int) -> Sums:
  """Add up the examples of each run.

  Args:
    sums: [B] each.
    run_ids: [B] run of each example; None if there is one run.
    num_runs: K.

  Returns:
    [K] each.
  """
  if run_ids is None:
    run_ids = jnp.zeros(next(iter(sums.values())).shape, jnp.int32)
  return {
    name: jax.ops.segment_sum(values, run_ids, num_runs)
    for name, values in sums.items()
  }


def _weights(batch: Batch) -> Array:
  """Return the float32 weight of every target token."""
  weights = batch.get("decoder_loss_weights")
  if weights is None:
    weights = batch["decoder_target_tokens"] != PAD_ID
  return weights.astype(jnp.float32)


def _pick(logits: Array, targets: Array) -> Array:
  """Gather the logit of every target, [B, S]; NaN where there is no such class.

  T5X sums over one-hot targets; on CPUs that sum and its gradient each make an
  array of the logits' size more. Where devices share the vocabulary, each looks
  into its own part: nothing is gathered across them.
  """
  index = jnp.where(targets < 0, logits.shape[-1], targets)[..., None]
  picked = jnp.take_along_axis(
    logits, index, axis=-1, mode="fill", fill_value=jnp.nan
  )
  return picked[..., 0]


def _is_argmax(logits: Array, targets: Array, target_logits: Array) -> Array:
  """Say where `logits.argmax(-1)` is the target, [B, S]; NaN is wrong.

  Comparisons with the target's logit, which XLA turns into faster code than a
  reduction of (value, index) pairs. Of equal logits the first one wins.
  """
  of_target, target = target_logits[..., None], targets[..., None]
  ids = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
  return ((logits < of_target) | ((logits == of_target) & (ids >= target))).all(
    -1
  )


def _per_sequence(
  weights: Array, is_wrong: Array, segment_ids: Array | None
) -> tuple[Array, Array]:
  """Compute every token's share of its sequence's weight.

  Args:
    weights: [B, S] float32.
    is_wrong: [B, S] booleans, whether the prediction misses.
    segment_ids: [B, S] of packed rows; None when a row is one sequence.

  Returns:
    [B, S] share of its sequence's weight, which adds up to 1 for a sequence
    with any weight and to 0 otherwise; and [B, S] booleans, whether any token
    of its sequence with weight is wrong.
  """
  if segment_ids is None:
    total = jnp.broadcast_to(weights.sum(-1, keepdims=True), weights.shape)
    misses = jnp.where(weights != 0, is_wrong, False).any(-1, keepdims=True)
  else:
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    total = jnp.where(same, weights[:, None, :], 0).sum(-1)
    misses = (same & (is_wrong & (weights != 0))[:, None, :]).any(-1)
  share = jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), 0)
  return share, jnp.broadcast_to(misses, weights.shape)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Divide; NaN where the divisor is zero."""
  valid = denominator > 0
  return np.where(valid, numerator / np.where(valid, denominator, 1), np.nan)
