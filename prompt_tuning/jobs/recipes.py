"""From a method's recipe to the optimizer and rates of its runs."""

from collections.abc import Sequence

from prompt_tuning.train.optimizers import Adafactor, Optax, OptimizerFactory
from prompt_tuning.tuners.method import Method, Recipe, name_of

ADAFACTOR = "adafactor"


def optimizer(recipe: Recipe) -> OptimizerFactory:
  """Build the optimizer that a recipe names.

  Args:
    recipe: of a method.

  Returns:
    What builds the optimizer of a run.

  Raises:
    ValueError: no such optimizer, or no such setting of it.
  """
  if recipe.optimizer != ADAFACTOR:
    return Optax(recipe.optimizer, **recipe.settings)
  try:
    return Adafactor(**recipe.settings)
  except TypeError as error:
    raise ValueError(f"A recipe's Adafactor: {error}.") from error


def shared_optimizer(methods: Sequence[Method]) -> OptimizerFactory:
  """Build the optimizer that the recipes of all runs agree on.

  Args:
    methods: of the runs; none for model tuning, which has Adafactor.

  Returns:
    What builds the optimizer of a run.

  Raises:
    ValueError: recipes with different optimizers.
  """
  recipes = {name_of(type(method)): method.recipe for method in methods}
  if not recipes:
    return Adafactor()
  (first, recipe), *others = recipes.items()
  for name, other in others:
    if (other.optimizer, other.settings) != (recipe.optimizer, recipe.settings):
      raise ValueError(
        f"{first} and {name} have recipes with different optimizers, and runs "
        "of one bank share theirs: set OPTIMIZER, or train them apart."
      )
  return optimizer(recipe)


def learning_rate(
  users_rate: float | None, method: type[Method] | None
) -> float:
  """Choose a run's base rate: the given one, or the recipe's.

  Args:
    users_rate: what the user said; None for the recipe's.
    method: of the run; None for model tuning, which has no recipe.

  Returns:
    The rate.

  Raises:
    ValueError: neither says one.
  """
  rate = (
    method.recipe.learning_rate if users_rate is None and method else users_rate
  )
  if rate is None:
    what = f"The recipe of {name_of(method)}" if method else "Model tuning"
    raise ValueError(
      f"{what} has no learning rate of its own: set LEARNING_RATE."
    )
  return rate
