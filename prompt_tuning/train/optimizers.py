"""Optimizers for banks of runs; Adafactor as in T5X.

Everything is optax. This module adds one place that sets the step at which a
run starts, a base learning rate per run, and the rule that an optimizer sees
one run at a time. It is mapped over the leading run axis, so that factoring,
clipping and norms never mix runs.

Learning rates and schedules are settings, not state. The state is a tree of
arrays; `flatten_state` gives them names, and `restore_state` does the reverse.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, Sharding

from prompt_tuning.core import tree
from prompt_tuning.core.types import Array, Params, PyTree
from prompt_tuning.train import row_groups
from prompt_tuning.train.row_groups import Rows
from prompt_tuning.train.schedules import FactorSchedule, Schedule

# The step at which the public LM-adapted checkpoints end, and at which the
# second-moment decay of the public prompt-tuning runs therefore starts.
RESTORED_STEP = 1_100_000


class OptimizerFactory(Protocol):
  """Builds the optimizer of one run."""

  def __call__(
    self, learning_rate: optax.Schedule, start_step: int
  ) -> optax.GradientTransformation:
    """Build it.

    Args:
      learning_rate: number of updates done in this run -> rate.
      start_step: the step that training counts on from; 0 from scratch.

    Returns:
      The optax optimizer.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Adafactor:
  """T5X's Adafactor as the public code configures it.

  With t = start_step + updates done, g the gradient and all in float32:

    b = 1 - (t + 1)^-decay_rate
    v = b v + (1 - b) (g^2 + eps)           or its row and column means, if both
                                            dimensions reach the minimum
    y = g / sqrt(v);  y = y / max(1, rms(y) / clipping_threshold)
    p = (1 - weight_decay) p - learning_rate y

  Weight decay is not multiplied by the learning rate. The public runs restored
  the optimizer's step with the model. So t starts at 1,100,000, and b is so
  close to 1 that every step is clipped.

  Attributes:
    decay_rate: exponent of the second-moment decay.
    clipping_threshold: largest root mean square of a parameter's update before
      the learning rate; None switches clipping off.
    weight_decay: share of every parameter that is subtracted at every step.
    eps: added to squared gradients.
    min_dim_size_to_factor: a matrix is factored if its second-largest dimension
      is at least this. A prompt of 150 is factored, one of 100 is not.
    multiply_by_parameter_scale: whether steps are relative to a parameter's
      size; off in the public code, on in T5 pre-training.

  Source: T5X `adafactor.py` at cc342d4 with the settings of prompt-tuning's
  `t5_1_1_prompt.gin`. optax clips a stacked [L, ...] parameter as one array,
  but T5X clips each layer: so tune whole models with unrolled layers.
  """

  decay_rate: float = 0.8
  clipping_threshold: float | None = 1.0
  weight_decay: float | None = 1e-5
  eps: float = 1e-30
  min_dim_size_to_factor: int = 128
  multiply_by_parameter_scale: bool = False

  def __call__(
    self, learning_rate: optax.Schedule, start_step: int
  ) -> optax.GradientTransformation:
    """Build the optimizer, see `OptimizerFactory`."""
    return optax.adafactor(
      learning_rate,
      min_dim_size_to_factor=self.min_dim_size_to_factor,
      decay_rate=self.decay_rate,
      decay_offset=-start_step,  # optax subtracts it from the count
      multiply_by_parameter_scale=self.multiply_by_parameter_scale,
      clipping_threshold=self.clipping_threshold,
      momentum=None,
      weight_decay_rate=self.weight_decay,
      eps=self.eps,
    )


class Optax:
  """Any optax optimizer whose first argument is the learning rate.

  Weight decay is optax's: `adamw` and `lion` multiply it by the learning rate,
  unlike `Adafactor` here. Bias corrections count from the start of the run,
  whatever its start step.

  Attributes:
    name: its name in optax, such as `adamw`.
    settings: its other arguments.
  """

  def __init__(self, name: str, **settings: Any) -> None:
    self.name = name
    self.settings = settings
    self._make = _optax_optimizer(name)
    try:
      self._make(0.1, **settings)
    except TypeError as error:
      raise ValueError(f"Optimizer {name!r}: {error}.") from error

  def __call__(
    self, learning_rate: optax.Schedule, start_step: int
  ) -> optax.GradientTransformation:
    """Build the optimizer, see `OptimizerFactory`."""
    del start_step
    return self._make(learning_rate, **self.settings)


@dataclasses.dataclass(frozen=True)
class ClipByGlobalNorm:
  """Clip the norm of a run's whole gradient before another optimizer.

  Attributes:
    optimizer: the optimizer that gets the clipped gradient.
    max_norm: largest norm over all trained parameters of one run.
  """

  optimizer: OptimizerFactory
  max_norm: float

  def __call__(
    self, learning_rate: optax.Schedule, start_step: int
  ) -> optax.GradientTransformation:
    """Build the optimizer, see `OptimizerFactory`."""
    return optax.chain(
      optax.clip_by_global_norm(self.max_norm),
      self.optimizer(learning_rate, start_step),
    )


@dataclasses.dataclass(frozen=True)
class AtRate:
  """Train with a learning rate that does not depend on the run's.

  Attributes:
    optimizer: the optimizer.
    learning_rate: its constant learning rate.
  """

  optimizer: OptimizerFactory
  learning_rate: float

  def __post_init__(self) -> None:
    _base_rates((self.learning_rate,))

  def __call__(
    self, learning_rate: optax.Schedule, start_step: int
  ) -> optax.GradientTransformation:
    """Build the optimizer, see `OptimizerFactory`."""
    del learning_rate
    rate = self.learning_rate
    return self.optimizer(
      lambda count: jnp.full_like(count, rate, "f4"), start_step
    )


@dataclasses.dataclass(frozen=True)
class ByPath:
  """Train parameters with different optimizers.

  Attributes:
    optimizers: pattern -> optimizer. A pattern is a regular expression for a
      whole path, such as `tuner/weights`. The first that matches decides, as in
      `core.partition`. Each optimizer sees only its own parameters, and
      computes norms and clips over these.

  Raises:
    ValueError: there are no patterns; from `init`: no pattern matches a
      parameter, or a pattern decides no parameter.
  """

  optimizers: Mapping[str, OptimizerFactory]

  def __post_init__(self) -> None:
    if not self.optimizers:
      raise ValueError(
        "ByPath has no optimizers; expected at least one pattern with an "
        "optimizer, such as '.*' for all parameters."
      )

  def __call__(
    self, learning_rate: optax.Schedule, start_step: int
  ) -> optax.GradientTransformation:
    """Build the optimizer, see `OptimizerFactory`."""
    # The labels are numbers, because they become names in checkpoints.
    built = {
      str(number): optimizer(learning_rate, start_step)
      for number, optimizer in enumerate(self.optimizers.values())
    }
    return optax.multi_transform(built, self._labels)

  def _labels(self, trainable: Params) -> Params:
    """Say which optimizer every leaf has."""
    paths = list(tree.flatten(trainable))
    labels = {path: self._label(path) for path in paths}
    used = set(labels.values())
    idle = [p for n, p in enumerate(self.optimizers) if str(n) not in used]
    if idle:
      raise ValueError(
        f"The patterns {', '.join(map(repr, idle))} of optimizers.ByPath "
        "match no parameter that trains. Parameters that train: "
        f"{', '.join(paths)}."
      )
    return tree.unflatten(labels)

  def _label(self, path: str) -> str:
    for number, pattern in enumerate(self.optimizers):
      if re.fullmatch(pattern, path):
        return str(number)
    raise ValueError(
      f"No pattern of optimizers.ByPath matches {path}; the patterns are "
      f"{', '.join(map(repr, self.optimizers))}. Add '.*' for the rest."
    )


class BankOptimizer(NamedTuple):
  """An optimizer for trees whose leaves have a leading run axis of size K.

  Attributes:
    init: trainable -> state; every array of the state has the run axis, too.
    update: (gradients, state, trainable) -> (updates to add, state).
    take: (state, numbers of runs) -> their state in a bank of only these runs,
      which must have equal numbers of rows.
  """

  init: Callable[[Params], PyTree]
  update: Callable[[Params, PyTree, Params], tuple[Params, PyTree]]
  take: Callable[[PyTree, Sequence[int]], PyTree]


def bank_optimizer(
  optimizer: OptimizerFactory,
  learning_rates: Sequence[float],
  *,
  start_step: int,
  schedule: Schedule | None = None,
  rows: Sequence[Rows] = (),
) -> BankOptimizer:
  """Run one optimizer per run of a bank, all in one program.

  Args:
    optimizer: builds the optimizer of one run.
    learning_rates: K base learning rates.
    start_step: the step from which training counts. The step of the restored
      model (`RESTORED_STEP` for the public checkpoints) reproduces the public
      runs; 0 is a run from scratch. Schedules and Adafactor's decay read it.
    schedule: (step, base) -> learning rate; None is constant.
    rows: for every run, how many rows of parameters it uses, by path; empty if
      it uses all. Other rows never change, and no optimizer sees them.

  Returns:
    The optimizer; every run trains exactly as in a bank of its own.

  Raises:
    ValueError: a learning rate is not positive and finite, or the step is
      negative; from `init`: the tree has no leaves or no run axis.
  """
  bases = _base_rates(learning_rates)
  if start_step < 0:
    raise ValueError(f"start_step must not be negative; got {start_step}.")
  shape = FactorSchedule() if schedule is None else schedule

  def rate(count: Array, base: Array) -> Array:
    return shape(count + start_step, base)

  def build(base: Array) -> optax.GradientTransformation:
    return optimizer(lambda count: rate(count, base), start_step)

  def init(bases: Array, trainable: Params) -> PyTree:
    _check_run_axis(trainable, len(bases))
    return jax.vmap(lambda base, p: build(base).init(p))(bases, trainable)

  def update(
    bases: Array, gradients: Params, state: PyTree, trainable: Params
  ) -> tuple[Params, PyTree]:
    # optax raises Python floats to integer powers, which strict dtype promotion
    # (on under our tests) refuses.
    with jax.numpy_dtype_promotion("standard"):
      return jax.vmap(lambda base, g, s, p: build(base).update(g, s, p))(
        bases, gradients, state, trainable
      )

  if any(rows):
    return _by_groups(bases, init, update, row_groups.groups(rows))
  return BankOptimizer(
    functools.partial(init, bases), functools.partial(update, bases), _take
  )


def _by_groups(
  bases: Array,
  init: Callable[[Array, Params], PyTree],
  update: Callable[..., tuple[Params, PyTree]],
  groups: Sequence[row_groups.Group],
) -> BankOptimizer:
  """Apply the optimizer to every group of runs like to a separate bank."""
  rates = [bases[np.asarray(group.runs)] for group in groups]

  def init_all(trainable: Params) -> PyTree:
    _check_run_axis(trainable, len(bases))
    return tuple(
      init(rate, group.take(trainable))
      for rate, group in zip(rates, groups, strict=True)
    )

  def update_all(
    gradients: Params, state: PyTree, trainable: Params
  ) -> tuple[Params, PyTree]:
    updates = jax.tree.map(jnp.zeros_like, gradients)
    states = []
    for rate, group, of_group in zip(rates, groups, state, strict=True):
      some, of_group = update(
        rate, group.take(gradients), of_group, group.take(trainable)
      )
      updates = group.put(updates, some)
      states.append(of_group)
    return updates, tuple(states)

  def take_some(state: PyTree, runs: Sequence[int]) -> PyTree:
    number = next(n for n, g in enumerate(groups) if runs[0] in g.runs)
    members = groups[number].runs
    return _take(state[number], [members.index(run) for run in runs])

  return BankOptimizer(init_all, update_all, take_some)


def _take(state: PyTree, runs: Sequence[int]) -> PyTree:
  numbers = np.asarray(runs)
  return jax.tree.map(lambda leaf: leaf[numbers], state)


def flatten_state(state: PyTree) -> dict[str, Array]:
  """Name every array of an optimizer state, for a checkpoint.

  Returns:
    `{"0/v_row/tuner/...": array}`, without empty containers.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  return {_name(path): leaf for path, leaf in leaves}


def restore_state(template: PyTree, flat: Mapping[str, Any]) -> PyTree:
  """Rebuild a state from the arrays of `flatten_state`.

  Args:
    template: a state of the same optimizer for the same parameters, such as
      `jax.eval_shape(optimizer.init, trainable)`.
    flat: the named arrays.

  Returns:
    The state, with the arrays of `flat`, and the structure and sharding of
    `template`.

  Raises:
    ValueError: arrays are missing, unknown, or have another shape or dtype; one
      message names them all.
  """
  leaves, structure = jax.tree_util.tree_flatten_with_path(template)
  expected = {_name(path): leaf for path, leaf in leaves}
  faults = [f"{name} is missing" for name in expected.keys() - flat.keys()]
  faults += [f"{name} is unknown" for name in flat.keys() - expected.keys()]
  for name in expected.keys() & flat.keys():
    want, got = _describe(expected[name]), _describe(flat[name])
    if want != got:
      faults.append(f"{name} is {got}, expected {want}")
  if faults:
    raise ValueError(
      "The saved optimizer state belongs to another optimizer, bank or prompt "
      f"length: {'; '.join(sorted(faults))}. Restore the settings of the run, "
      "or start a new run in another MODEL_DIR."
    )
  return jax.tree_util.tree_unflatten(
    structure, [put_like(flat[_name(path)], leaf) for path, leaf in leaves]
  )


def put_like(array: Any, template: Any) -> Array:
  """Shard a host's array over devices like another one.

  Args:
    array: the whole array, the same on all hosts.
    template: an array, or a description of one.

  Returns:
    The array. If it is sharded, no device ever holds the whole.
  """
  sharding = getattr(template, "sharding", None)
  if sharding is None:
    return jnp.asarray(array)
  if not isinstance(sharding, NamedSharding):
    # Put it on its device, as the arrays that a step returns, so that one
    # program takes both.
    return jax.device_put(array, sharding)
  return jax.make_array_from_callback(
    array.shape, sharding, lambda index: array[index]
  )


def like_parameters(
  state: PyTree, trainable: Params, otherwise: Sharding
) -> PyTree:
  """Shard the arrays of an optimizer state like their parameters.

  Args:
    state: the optimizer's state, or its description.
    trainable: its parameters; every leaf has a `sharding`.
    otherwise: sharding of arrays that differ in shape from their parameter,
      such as counts, and the rows and columns of Adafactor.

  Returns:
    The tree of shardings.
  """
  parameters = tree.flatten(trainable)

  def sharding(path: tuple[Any, ...], leaf: Any) -> Sharding:
    # The path of an array in a state is its kind, then its parameter.
    words = _name(path).split(tree.SEPARATOR)
    for start in range(len(words)):
      parameter = parameters.get(tree.SEPARATOR.join(words[start:]))
      if parameter is not None and parameter.shape == leaf.shape:
        return parameter.sharding
    return otherwise

  return jax.tree_util.tree_map_with_path(sharding, state)


def _optax_optimizer(name: str) -> Callable[..., optax.GradientTransformation]:
  if name not in _OPTAX:
    raise ValueError(
      f"Unknown optimizer {name!r}.{tree.nearest(name, _OPTAX)} Known: "
      f"{', '.join(_OPTAX)}; for Adafactor use the class `Adafactor`."
    )
  return _OPTAX[name]


_OPTAX: dict[str, Callable[..., optax.GradientTransformation]] = {
  "adam": optax.adam,
  "adamw": optax.adamw,
  "adagrad": optax.adagrad,
  "lamb": optax.lamb,
  "lion": optax.lion,
  "rmsprop": optax.rmsprop,
  "sgd": optax.sgd,
}


def _base_rates(learning_rates: Sequence[float]) -> Array:
  rates = np.asarray(learning_rates, np.float32)
  if rates.ndim != 1 or not rates.size:
    raise ValueError(
      "Learning rates must be a list with one number per run; got "
      f"{learning_rates!r}."
    )
  if not (np.isfinite(rates).all() and (rates > 0).all()):
    raise ValueError(
      f"Learning rates must be positive and finite; got {rates.tolist()}."
    )
  return jnp.asarray(rates)


def _check_run_axis(trainable: Params, runs: int) -> None:
  flat = tree.flatten(trainable)
  if not flat:
    raise ValueError(
      "Nothing to train: the partition rules freeze every parameter. Change "
      "PARTITION_RULES."
    )
  for path, leaf in flat.items():
    if not leaf.ndim or leaf.shape[0] != runs:
      raise ValueError(
        f"{path} has shape {tuple(leaf.shape)}; with {runs} learning rates its "
        f"first axis must be the {runs} runs."
      )


def _name(path: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(path, simple=True, separator=tree.SEPARATOR)


def _describe(leaf: Any) -> str:
  return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
