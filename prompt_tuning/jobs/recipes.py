"""From a method's recipe to the optimizer and learning rates of its runs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from prompt_tuning.infer.evaluate import RANKING
from prompt_tuning.jobs.settings import EvaluationSettings
from prompt_tuning.models.scorers import OutputRows, WholeWords
from prompt_tuning.prompting.aggregation import LEARNED
from prompt_tuning.train.classes import Classes
from prompt_tuning.train.mixture import Mixture
from prompt_tuning.train.objectives import Choice, CrossEntropy
from prompt_tuning.train.optimizers import (
  Adafactor,
  AtRate,
  ByPath,
  ClipByGlobalNorm,
  Optax,
  OptimizerFactory,
)
from prompt_tuning.tuners.method import Method, Recipe, Stage, name_of

# T5's own fine-tuning: steps relative to the size of a parameter, no decay.
RELATIVE_ADAFACTOR = Adafactor(
  multiply_by_parameter_scale=True, weight_decay=None
)

ADAFACTOR = "adafactor"
CROSS_ENTROPY = "cross_entropy"
_OBJECTIVES: Mapping[str, Callable[[], Choice]] = {
  CROSS_ENTROPY: CrossEntropy,
  "mixture": Mixture,
  "learned_words": lambda: Classes(WholeWords(LEARNED)),
  "output_rows": lambda: Classes(OutputRows()),
}


def optimizer(recipe: Recipe) -> OptimizerFactory:
  """Build the optimizer that a recipe names.

  Args:
    recipe: of a method.

  Returns:
    The function that builds the optimizer of a run.

  Raises:
    ValueError: there is no such optimizer, or it has no such setting.
  """
  if recipe.by_path:
    rest = dataclasses.replace(recipe, by_path={})
    apart = {path: _apart(path, own) for path, own in recipe.by_path.items()}
    return ByPath({**apart, ".*": optimizer(rest)})
  if recipe.max_norm is not None:
    free = dataclasses.replace(recipe, max_norm=None)
    return ClipByGlobalNorm(optimizer(free), recipe.max_norm)
  if recipe.optimizer != ADAFACTOR:
    return Optax(recipe.optimizer, **recipe.settings)
  try:
    return Adafactor(**recipe.settings)
  except TypeError as error:
    raise ValueError(f"A recipe's Adafactor: {error}.") from error


def _apart(path: str, recipe: Recipe) -> OptimizerFactory:
  """Build the optimizer of some of the parameters."""
  if recipe.learning_rate is None:
    raise ValueError(f"A recipe has no learning rate for {path}; expected one.")
  return AtRate(optimizer(recipe), recipe.learning_rate)


def objective(methods: Sequence[Method]) -> Choice:
  """Build the objective on which the recipes of all runs agree.

  Args:
    methods: those of the runs; empty for model tuning, which has cross-entropy.

  Returns:
    The objective.

  Raises:
    ValueError: objectives of recipes differ, or one is unknown.
  """
  names = dict.fromkeys(m.recipe.objective for m in methods) or [CROSS_ENTROPY]
  name, *others = names
  if others or name not in _OBJECTIVES:
    raise ValueError(
      f"The recipes of these methods have the objectives {', '.join(names)}; "
      f"expected the same one of {', '.join(_OBJECTIVES)}. Set OBJECTIVE, or "
      "train the methods apart."
    )
  return _OBJECTIVES[name]()


def stages(methods: Sequence[Method]) -> tuple[Stage, ...]:
  """List the stages on which the recipes of all runs agree.

  Args:
    methods: those of the runs; empty for model tuning, which has no stages.

  Raises:
    ValueError: stages of recipes differ.
  """
  lists = [tuple(method.recipe.stages) for method in methods] or [()]
  if any(other != lists[0] for other in lists):
    names = dict.fromkeys(name_of(type(method)) for method in methods)
    raise ValueError(
      f"The recipes of {' and '.join(names)} have different stages, but runs "
      "of one bank share their stages: train them apart."
    )
  return lists[0]


def evaluation(
  settings: EvaluationSettings, methods: Sequence[Method]
) -> EvaluationSettings:
  """Choose how to score runs that have their recipe's objective.

  Args:
    settings: the user's settings.
    methods: those of the runs; empty for model tuning.

  Returns:
    The same settings. If the objective is over classes, it gives what they
    leave open: to rank, with its scorer and its label words.
  """
  chosen = objective(methods)
  if not isinstance(chosen, Classes):
    return settings
  return dataclasses.replace(
    settings,
    by=settings.by or RANKING,
    scorer=settings.scorer or chosen.scorer,
    label_words=settings.label_words or chosen.label_words,
  )


def shared_optimizer(methods: Sequence[Method]) -> OptimizerFactory:
  """Build the optimizer on which the recipes of all runs agree.

  Args:
    methods: those of the runs; empty for model tuning, which has Adafactor.

  Returns:
    The function that builds the optimizer of a run.

  Raises:
    ValueError: optimizers of recipes differ.
  """
  recipes = {name_of(type(method)): method.recipe for method in methods}
  if not recipes:
    return Adafactor()
  (first, recipe), *others = recipes.items()
  for name, other in others:
    same_rate = dataclasses.replace(other, learning_rate=recipe.learning_rate)
    if same_rate != dataclasses.replace(recipe, objective=other.objective):
      raise ValueError(
        f"{first} and {name} have recipes with different optimizers, but runs "
        "of one bank share their optimizer: set OPTIMIZER, or train them "
        "apart."
      )
  return optimizer(recipe)


def learning_rate(
  users_rate: float | None, method: type[Method] | None
) -> float:
  """Choose a run's base learning rate: the given one, or the recipe's.

  Args:
    users_rate: the user's learning rate; None for the recipe's.
    method: method of the run; None for model tuning, which has no recipe.

  Returns:
    The learning rate.

  Raises:
    ValueError: neither gives one.
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
