"""A T5X optimizer for the prompt alone."""

import re
from typing import Any

from flax import traverse_util
from flax.core import frozen_dict
from t5x import optimizers

Tree = Any  # of parameters, plain or frozen


class PromptOptimizer(optimizers.OptimizerDef):
  """Trains the parameters that a pattern matches.

  The others have neither an update nor a state.

  T5X's `MultiOptimizer` does so too. But it writes checkpoints with `None` for
  the states of frozen parameters, and cannot read them again with Orbax.

  Attributes:
    optimizer: updates the parameters that train.
    pattern: matches whole paths of parameters, as `re.fullmatch` does.
  """

  def __init__(
    self,
    optimizer: optimizers.OptimizerDef,
    pattern: str = "encoder/prompt/.*",
  ):
    super().__init__(optimizer.hyper_params)
    self.optimizer = optimizer
    self.pattern = re.compile(pattern)

  def init_state(self, params: Tree) -> optimizers.OptimizerState:
    """Make the state of the parameters that train.

    Args:
      params: of the whole model.

    Returns:
      The inner optimizer's state.

    Raises:
      ValueError: nothing trains.
    """
    return self.optimizer.init_state(self._trained(params))

  def apply_gradient(
    self,
    hyper_params: Any,
    params: Tree,
    state: optimizers.OptimizerState,
    grads: Tree,
  ) -> tuple[Tree, optimizers.OptimizerState]:
    """Update the parameters that train.

    Args:
      hyper_params: the inner optimizer's, with the learning rate.
      params: of the whole model.
      state: see `init_state`.
      grads: of the whole model; XLA computes only those that are read.

    Returns:
      The parameters, with the same arrays for frozen ones, and the state.
    """
    trained, state = self.optimizer.apply_gradient(
      hyper_params, self._trained(params), state, self._trained(grads)
    )
    return _replace(params, trained), state

  def derive_logical_axes(
    self, optimizer: optimizers.Optimizer, param_logical_axes: Tree
  ) -> optimizers.Optimizer:
    """Name the axes of parameters and state.

    Args:
      optimizer: holds the shapes of both.
      param_logical_axes: the names of every parameter's axes.

    Returns:
      The optimizer, with names in the place of arrays.
    """
    trained = optimizers.Optimizer(
      self.optimizer, optimizer.state, self._trained(optimizer.target)
    )
    axes = self.optimizer.derive_logical_axes(
      trained, self._trained(param_logical_axes)
    )
    return optimizer.replace(target=param_logical_axes, state=axes.state)

  def _trained(self, tree: Tree) -> Tree:
    """Take the parameters that train."""
    flat = traverse_util.flatten_dict(frozen_dict.unfreeze(tree), sep="/")
    part = {
      path: leaf for path, leaf in flat.items() if self.pattern.fullmatch(path)
    }
    if not part:
      raise ValueError(
        f"No parameter (such as {min(flat)!r}) matches "
        f"{self.pattern.pattern!r}, so nothing would train. Change "
        "optimizer.PromptOptimizer.pattern."
      )
    return frozen_dict.freeze(traverse_util.unflatten_dict(part, sep="/"))


def _replace(whole: Tree, part: Tree) -> Tree:
  """Replace some leaves; the type of the tree stays."""
  flat = [
    traverse_util.flatten_dict(frozen_dict.unfreeze(tree), sep="/")
    for tree in (whole, part)
  ]
  merged = traverse_util.unflatten_dict(flat[0] | flat[1], sep="/")
  is_frozen = isinstance(whole, frozen_dict.FrozenDict)
  return frozen_dict.freeze(merged) if is_frozen else merged
