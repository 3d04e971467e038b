"""One training step of K runs at once: loss, gradient, update.

`step(state, frozen, batch)` differentiates with respect to `state.trainable`
only. The frozen tree is a separate argument. It has no gradient and no
optimizer state, and is never donated and never returned.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_tuning.core import tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.partition import TRAIN, Partition
from prompt_tuning.core.types import Array, Batch, Params
from prompt_tuning.train import reach
from prompt_tuning.train.objectives import (
  LOG_WEIGHTS,
  WORD_WEIGHTS,
  Objective,
  Sums,
  sum_by_run,
)
from prompt_tuning.train.optimizers import BankOptimizer
from prompt_tuning.train.state import TrainState

# Folded into a run's key of a step. Rows fold their numbers into the key, too;
# a batch never has this many rows.
_METHOD = 2**31 - 1

# Parameters of the method with a leading run axis, keys [K] or None -> delta.
Produce = Callable[[Params, Array | None], Delta]
# (delta, outputs, batch, keys [K] or None) -> sums per example that are added
# to the loss.
Extra = Callable[[Delta, Outputs, Batch, Array | None], Sums]
# Parameters of the method with a leading run axis -> [K].
Penalty = Callable[[Params], Array]
PENALTY = "penalty"  # under which a step's sums have it
EXTRA = "extra/"  # and how names of extras begin there


class DropoutKeys(NamedTuple):
  """Random keys of one step.

  Attributes:
    rows: [B], for activations of the frozen model; None drops none.
    runs: [K], for random numbers of the method. A run has the same key alone
      and in a bank, whatever its rows and microbatches.
  """

  rows: Array | None
  runs: Array


class Metrics(NamedTuple):
  """The numbers that a step reports for every run.

  Attributes:
    sums: the objective's sums over the batch, [K] each.
    norms: [K] root mean squares over all trained parameters of `weight`,
      `gradient` and `update`.
    squares: [leaves, K] sums of squares of the gradient of every trained
      leaf, in the order of `core.tree.flatten`; None if a batch need not have
      rows for every leaf.
  """

  sums: Sums
  norms: dict[str, Array]
  squares: Array | None = None


@dataclasses.dataclass(frozen=True)
class StepProgram:
  """The parts of a step; plain functions, so that it names no method.

  Attributes:
    forward: (model parameters, batch, delta, dropout keys [B] or None) ->
      outputs of the model.
    produce: (tuner parameters with a leading run axis, keys [K] or None) ->
      delta. Without keys, as in evaluation, the method draws no random numbers.
    partition: decides which leaves of {"model": ..., "tuner": ...} train.
    objective: outputs and batch -> sums per example.
    optimizer: that of the bank.
    num_runs: K.
    num_microbatches: number of pieces of a batch whose gradients are added;
      must divide the number of rows of each run.
    dropout: whether to drop activations of the frozen model in training.
    shardings: a `TrainState` of shardings for the state after a step; None
      leaves them to the compiler.
    conditions: number of conditions of every run; `task_ids` [B] gives the
      condition of a row. Empty if no method has conditions.
    sizes: number of trained parameters of every run, if runs differ; None
      counts those of the bank's arrays.
    components: number of deltas that each run mixes; the model reads every row
      with each of them.
    extra: function that adds to the loss of every example; None for none.
    penalty: function that adds to the loss of every run, once per step,
      whatever the batch, its divisor and its microbatches; None for none.
  """

  forward: Callable[[Params, Batch, Delta, Array | None], Outputs]
  produce: Produce
  partition: Partition
  objective: Objective
  optimizer: BankOptimizer
  num_runs: int = 1
  num_microbatches: int = 1
  dropout: bool = True
  shardings: Any = None
  conditions: tuple[int, ...] = ()
  sizes: tuple[float, ...] | None = None
  components: int = 1
  extra: Extra | None = None
  penalty: Penalty | None = None

  def __post_init__(self) -> None:
    if self.num_runs < 1 or self.num_microbatches < 1:
      raise ValueError(
        "A program needs at least one run and one microbatch; got "
        f"{self.num_runs} runs and {self.num_microbatches} microbatches."
      )

  @property
  def tunes_model(self) -> bool:
    """Whether any parameter of the backbone trains."""
    return any(
      mode == TRAIN and path.startswith("model/")
      for path, mode in self.partition.modes.items()
    )

  def step(
    self, state: TrainState, frozen: Params, batch: Batch
  ) -> tuple[TrainState, Metrics]:
    """Train every run on its rows of a batch.

    Args:
      state: before the step.
      frozen: the frozen part of the parameters.
      batch: features of `models.t5.network`, the same number of rows for every
        run.

    Returns:
      (state after the step, metrics).

    Raises:
      ValueError: in tracing: runs or microbatches cannot divide the rows
        evenly.
      UnreachedError: in tracing: the loss does not depend on a leaf.
    """
    keys = DropoutKeys(self._row_keys(state, batch), self._run_keys(state))
    reached: set[str] = set()
    gradients, sums = self._gradients(
      state.trainable, frozen, batch, keys, reached
    )
    ones = jnp.ones_like(sums["loss"])
    # Divisors do not depend on the parameters: divide the summed gradient.
    scale = self.objective.divide({**sums, "loss": ones})
    gradients = jax.tree.map(lambda g: g * _like(scale, g), gradients)
    if self.penalty is not None:
      gradients, penalties = self._penalised(
        gradients, state.trainable, frozen, reached
      )
      sums = {**sums, PENALTY: penalties}
    reach.insist(state.trainable, reached)
    updates, opt_state = self.optimizer.update(
      gradients, state.opt_state, state.trainable
    )
    trainable = optax.apply_updates(state.trainable, updates)
    squares = _squares(gradients)
    norms = {
      "weight": _rms(state.trainable, self.sizes),
      "gradient": _root_mean(squares, gradients, self.sizes),
      "update": _rms(updates, self.sizes),
    }
    new_state = TrainState(
      state.step + 1, trainable, opt_state, state.dropout_keys
    )
    if self.shardings is not None:  # the next step's input is like this one's
      new_state = jax.lax.with_sharding_constraint(new_state, self.shardings)
    # All rows of a batch may belong to other conditions than a leaf does.
    all_leaves = None if any(self.conditions) else jnp.stack(squares)
    return new_state, Metrics(sums, norms, all_leaves)

  def summarise(self, sums: Sums, num_steps: int) -> dict[str, np.ndarray]:
    """Turn sums over many steps into metrics, see `Objective.summarise`."""
    metrics = self.objective.summarise(sums, num_steps)
    added = [n for n in sums if n == PENALTY or n.startswith(EXTRA)]
    for name in added:
      metrics[name] = np.asarray(sums[name], np.float64) / num_steps
    return metrics

  def losses(
    self,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    keys: DropoutKeys | None = None,
  ) -> Sums:
    """Add up the objective of every run.

    Args:
      trainable: the trainable part, with a leading run axis.
      frozen: the frozen part.
      batch: any rows of any runs. If the model itself trains, it must have the
        same number of rows for every run.
      keys: keys of a training step; None drops nothing.

    Returns:
      The objective's sums, [K] each.
    """
    row_keys, run_keys = (None, None) if keys is None else keys
    if self.tunes_model:
      return self._losses_run_by_run(
        trainable, frozen, batch, row_keys, run_keys
      )
    params = self.partition.merge(trainable, frozen)
    delta = self.produce(params.get("tuner", {}), run_keys)
    rows = self._with_slots(self.objective.prepare(batch), self.conditions)
    rows, row_keys = self._with_components(rows, row_keys)
    outputs = self.forward(params["model"], rows, delta, row_keys)
    sums = self._sums(outputs, batch, rows, delta, run_keys)
    return sum_by_run(sums, batch.get("run_ids"), self.num_runs)

  def _sums(
    self,
    outputs: Outputs,
    batch: Batch,
    rows: Batch,
    delta: Delta,
    keys: Array | None,
  ) -> Sums:
    """Compute the sums of every example; the model read `rows`."""
    if delta.word_weights is not None:
      first = jnp.zeros(len(batch["encoder_input_tokens"]), jnp.int32)
      run_ids = rows.get("run_ids", first)[:: self.components]
      batch = {**batch, WORD_WEIGHTS: delta.word_weights[run_ids]}
    if self.components > 1:
      assert delta.log_weight is not None
      of_runs = delta.log_weight.reshape(-1, self.components)
      run_ids = rows["run_ids"][:: self.components] // self.components
      batch = {**batch, LOG_WEIGHTS: of_runs[run_ids]}
    sums = self.objective(outputs, batch)
    if self.extra is None:
      return sums
    more = self.extra(delta, outputs, rows, keys)
    named = {f"{EXTRA}{name}": values for name, values in more.items()}
    return {**sums, **named, "loss": sums["loss"] + sum(more.values())}

  def _losses_run_by_run(
    self,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    row_keys: Array | None,
    run_keys: Array | None,
  ) -> Sums:
    """Give every run its own backbone: rows grouped by run, then a vmap."""
    if self.num_runs == 1:
      # Keep rows on their devices; a gather would bring all rows to every
      # device.
      grouped = lambda a: a[None]  # noqa: E731
    else:
      rows = self._rows_by_run(batch)
      grouped = lambda a: a[rows]  # noqa: E731
    run_batch = {k: grouped(v) for k, v in batch.items() if k != "run_ids"}
    if row_keys is not None:
      row_keys = grouped(row_keys)
    shared = {k: v for k, v in frozen.items() if k == "model"}
    banked = {k: v for k, v in frozen.items() if k != "model"}

    def one(
      trainable: Params,
      banked: Params,
      batch: Batch,
      row_keys: Array | None,
      run_key: Array | None,
    ) -> Sums:
      params = self.partition.merge(trainable, {**shared, **banked})
      tuner = jax.tree.map(lambda a: a[None], params.get("tuner", {}))
      key = None if run_key is None else run_key[None]
      delta = self.produce(tuner, key)
      rows = self._with_slots(
        self.objective.prepare(batch), self.conditions[:1]
      )
      rows, row_keys = self._with_components(rows, row_keys)
      outputs = self.forward(params["model"], rows, delta, row_keys)
      sums = self._sums(outputs, batch, rows, delta, key)
      return {name: jnp.sum(values) for name, values in sums.items()}

    return jax.vmap(one)(trainable, banked, run_batch, row_keys, run_keys)

  def _with_slots(self, batch: Batch, conditions: tuple[int, ...]) -> Batch:
    """Give every row the delta of its run's condition.

    Only the model sees this; sums are still those of the run.
    """
    if not any(conditions):
      return batch
    sizes = [max(1, count) for count in conditions]
    first = jnp.asarray([sum(sizes[:k]) for k in range(len(sizes))], jnp.int32)
    run_ids = batch.get("run_ids", jnp.zeros_like(batch["task_ids"]))
    return {**batch, "run_ids": first[run_ids] + batch["task_ids"]}

  def _with_components(
    self, rows: Batch, keys: Array | None
  ) -> tuple[Batch, Array | None]:
    """Let the model read every row once for each component of its run."""
    count = self.components
    if count == 1:
      return rows, keys
    repeated = {name: jnp.repeat(a, count, axis=0) for name, a in rows.items()}
    number = jnp.arange(len(repeated["encoder_input_tokens"])) % count
    run_ids = repeated.get("run_ids", jnp.zeros_like(number, jnp.int32))
    repeated["run_ids"] = run_ids * count + number.astype(jnp.int32)
    return repeated, None if keys is None else jnp.repeat(keys, count, axis=0)

  def _penalised(
    self,
    gradients: Params,
    trainable: Params,
    frozen: Params,
    reached: set[str],
  ) -> tuple[Params, Array]:
    """Add the gradient of the penalty that every run has once per step."""

    def total(trainable: Params) -> tuple[Array, Array]:
      watched = reach.watch(trainable, reached)
      params = self.partition.merge(watched, frozen)
      assert self.penalty is not None
      penalties = self.penalty(params["tuner"])
      return jnp.sum(penalties), penalties

    more, penalties = jax.grad(total, has_aux=True)(trainable)
    return jax.tree.map(jnp.add, gradients, more), penalties

  def _gradients(
    self,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    keys: DropoutKeys,
    reached: set[str],
  ) -> tuple[Params, Sums]:
    """Differentiate the summed losses, a microbatch at a time.

    Leaves that they depend on are added to `reached`.
    """

    def total(
      trainable: Params, batch: Batch, keys: DropoutKeys
    ) -> tuple[Array, Sums]:
      watched = reach.watch(trainable, reached)
      sums = self.losses(watched, frozen, batch, keys)
      return jnp.sum(sums["loss"]), sums

    gradient = jax.grad(total, has_aux=True)
    if self.num_microbatches == 1:
      return gradient(trainable, batch, keys)

    rows = self._rows_by_run(batch)
    if rows.shape[1] % self.num_microbatches:
      raise ValueError(
        f"The {rows.shape[1]} rows of each run cannot be split into "
        f"{self.num_microbatches} microbatches; change BATCH_SIZE or "
        "NUM_MICROBATCHES."
      )
    pieces = jnp.stack(jnp.split(rows, self.num_microbatches, axis=1))

    def add(carry: tuple, piece: Array) -> tuple[tuple, None]:
      index = piece.reshape(-1)
      some = jax.tree.map(lambda a: a[index], batch)
      row_keys = None if keys.rows is None else keys.rows[index]
      some_keys = keys._replace(rows=row_keys)
      return jax.tree.map(
        jnp.add, carry, gradient(trainable, some, some_keys)
      ), None

    shapes = jax.eval_shape(gradient, trainable, batch, keys)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    summed, _ = jax.lax.scan(add, zeros, pieces)
    return summed

  def _rows_by_run(self, batch: Batch) -> Array:
    """Find the rows of every run, in order: [K, B / K]."""
    count = batch["encoder_input_tokens"].shape[0]
    per_run, rest = divmod(count, self.num_runs)
    if rest:
      raise ValueError(
        f"A batch of {count} rows cannot be shared by {self.num_runs} runs; "
        "change BATCH_SIZE."
      )
    run_ids = batch.get("run_ids")
    if run_ids is None:
      return jnp.arange(count)[None]
    order = jnp.argsort(run_ids, stable=True)
    return order.reshape(self.num_runs, per_run)

  def _run_keys(self, state: TrainState) -> Array:
    """Give the method of every run its key of this step: [K]."""

    def key(run: Array) -> Array:
      return jax.random.fold_in(jax.random.fold_in(run, state.step), _METHOD)

    return jax.vmap(key)(jax.random.wrap_key_data(state.dropout_keys))

  def _row_keys(self, state: TrainState, batch: Batch) -> Array | None:
    """Give every row the key it would have if its run trained alone."""
    if not self.dropout:
      return None
    run_keys = jax.random.wrap_key_data(state.dropout_keys)
    count = batch["encoder_input_tokens"].shape[0]
    run_ids = batch.get("run_ids", jnp.zeros((count,), jnp.int32))
    # Number of a row within its run.
    member = run_ids[:, None] == jnp.arange(self.num_runs)[None]
    rank = jnp.cumsum(member, axis=0) - 1
    number = jnp.take_along_axis(rank, run_ids[:, None], axis=1)[:, 0]

    def key(run: Array, number: Array) -> Array:
      return jax.random.fold_in(
        jax.random.fold_in(run_keys[run], state.step), number
      )

    return jax.vmap(key)(run_ids, number)


class AbstractStep(NamedTuple):
  """A step and its arguments as shapes, dtypes and shardings.

  Attributes:
    program: the parts of the step.
    state: the state before the first step.
    frozen: the frozen part of the parameters.
    batch: its features.
  """

  program: StepProgram
  state: TrainState
  frozen: Params
  batch: Mapping[str, jax.ShapeDtypeStruct]

  @property
  def arguments(self) -> tuple[Any, ...]:
    """The arguments of the program's step."""
    return self.state, self.frozen, self.batch


def _like(scale: Array, leaf: Array) -> Array:
  """Shape [K] to broadcast over a leaf [K, ...]."""
  return scale.reshape(-1, *([1] * (leaf.ndim - 1))).astype(leaf.dtype)


def _rms(params: Params, sizes: tuple[float, ...] | None) -> Array:
  """Compute each run's root mean square over all leaves: [K].

  Rows that belong to no run are zero.
  """
  return _root_mean(_squares(params), params, sizes)


def _squares(params: Params) -> list[Array]:
  """Sum the squares of every leaf's numbers, [K] each."""
  return [
    jnp.sum(jnp.square(x.astype(jnp.float32)), axis=tuple(range(1, x.ndim)))
    for x in tree.flatten(params).values()
  ]


def _root_mean(
  squares: Sequence[Array], params: Params, sizes: tuple[float, ...] | None
) -> Array:
  """Make a root mean square of the sums of squares of all leaves: [K]."""
  if sizes is not None:
    return jnp.sqrt(sum(squares) / jnp.asarray(sizes, jnp.float32))
  # Use a float: from XL on, the number of a model's parameters exceeds int32.
  leaves = tree.flatten(params).values()
  size = float(sum(x.size // x.shape[0] for x in leaves))
  return jnp.sqrt(sum(squares) / size)
