"""The objective of a mixture: the likelihood of all its components together."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.types import PAD_ID, Array, Batch
from prompt_tuning.train.errors import DeadComponentError
from prompt_tuning.train.objectives import LOG_WEIGHTS, Objective, Sums


@dataclasses.dataclass(frozen=True)
class Mixture(Objective):
  """-log sum_m w_m p_m(target) of every example, averaged over examples.

  p_m is the probability of the whole target under component m, EOS included,
  and w_m its weight. The derivative by log w_m is minus the responsibility of
  component m for the example.

  Source: Qin and Eisner (2021), section 3.4.
  """

  reads_rows: ClassVar[bool] = False

  def __call__(self, outputs: Outputs, batch: Batch) -> Sums:
    """Score a batch, see `Objective`.

    Args:
      outputs: with logits [B * M, S, V]; those of a row stand together.
      batch: `decoder_target_tokens` [B, S]; `mixture_log_weights` [B, M], or
        none where there is one component; for packed rows,
        `decoder_segment_ids` [B, S].

    Returns:
      [B] sums of `loss`, of `weights` (target tokens), of `sequences`, of
      `target_tokens` with padding, of the `share` of the component that is most
      likely to have given the answer, and of `dead` components.
    """
    targets = batch["decoder_target_tokens"]
    log_weights = batch.get(LOG_WEIGHTS, jnp.zeros((len(targets), 1)))
    there = targets != PAD_ID
    tokens = _log_probs(outputs.logits, targets, log_weights.shape[1])
    tokens = jnp.where(there[:, None], tokens, 0)
    segments = batch.get("decoder_segment_ids")
    if segments is None:
      whole = jnp.broadcast_to(tokens.sum(-1, keepdims=True), tokens.shape)
      length = jnp.broadcast_to(there.sum(-1, keepdims=True), there.shape)
    else:
      same = segments[:, :, None] == segments[:, None, :]
      whole = jnp.where(same[:, None], tokens[:, :, None], 0).sum(-1)
      length = jnp.where(same, there[:, None], False).sum(-1)
    # [B, S], the same at all positions of a sequence, because the sequence has
    # one loss.
    joint = log_weights[..., None] + whole
    total = jax.nn.logsumexp(joint, axis=1)
    share = jnp.where(there, 1 / jnp.maximum(length, 1).astype("f4"), 0)
    largest = jnp.exp(joint.max(1) - total)
    dead = (~jnp.isfinite(log_weights)).sum(-1).astype("f4")
    return {
      "loss": -(share * total).sum(-1),
      "weights": there.sum(-1).astype("f4"),
      "sequences": share.sum(-1),
      "target_tokens": jnp.full(len(targets), targets.shape[1], "f4"),
      "share": (share * largest).sum(-1),
      "dead": dead,
    }

  def divide(self, sums: Sums) -> Array:
    """Turn sums over each run's batch into its loss, see `Objective`."""
    return sums["loss"] / jnp.maximum(sums["sequences"], 1)

  def summarise(self, sums: Sums, num_steps: int) -> dict[str, np.ndarray]:
    """Turn sums over many steps into metrics, see `Objective`.

    Raises:
      DeadComponentError: a component has no weight any more.
    """
    del num_steps
    total = {name: np.asarray(x, np.float64) for name, x in sums.items()}
    dead = np.flatnonzero(total["dead"])
    if dead.size:
      raise DeadComponentError(
        f"Run {', '.join(map(str, dead))}: the weight of a component of the "
        "mixture has reached zero and will stay zero. Lower the learning rate "
        "of the weights (OPTIMIZER: @optimizers.ByPath() with an "
        "@optimizers.AtRate() for them; LEARNING_RATE, if one optimizer "
        "trains all parameters), or use fewer components."
      )
    examples = np.maximum(total["sequences"], 1)
    return {
      "loss": total["loss"] / examples,
      "loss_per_nonpadding_target_token": total["loss"]
      / np.maximum(total["weights"], 1),
      "largest_responsibility": total["share"] / examples,
    }


def _log_probs(logits: Array, targets: Array, components: int) -> Array:
  """Compute log-probabilities of target tokens: [B * M, S, V] -> [B, M, S]."""
  logits = logits.astype(jnp.float32)
  repeated = jnp.repeat(targets, components, axis=0)
  picked = jnp.take_along_axis(logits, repeated[..., None], axis=-1)[..., 0]
  log_probs = picked - jax.nn.logsumexp(logits, axis=-1)
  return log_probs.reshape(-1, components, targets.shape[1])
