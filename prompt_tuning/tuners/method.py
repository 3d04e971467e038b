"""The base of all tuning methods: a small module that makes a `Delta`.

A method never sees the backbone's internals. Everything except `__call__` has a
default. Nothing outside `tuners` names a method.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.core.adapter import Adapter
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Array, Batch, Params
from prompt_tuning.tuners.initializers import InitializerContext

INITIALISER = "_init"  # how fields end that only initialisation reads
FLAX_FIELDS = ("parent", "name")  # of every module; no settings
CLASS = "class"  # under which descriptions say what an object is


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a method trains unless the user says otherwise.

  Attributes:
    learning_rate: base learning rate; None if the user must choose one.
    optimizer: `adafactor`, as in T5X, or the name of an optimizer in optax.
    settings: its other arguments.
    max_norm: largest norm of a run's gradient, over all parameters that this
      recipe trains; None for no limit.
    by_path: pattern of paths, such as `tuner/weights` -> recipe of these
      parameters. A user's learning rate does not change theirs.
    objective: `cross_entropy`; `output_rows`, over classes by learned output
      rows; `learned_words`, over classes by learned weights of their label
      words; or `mixture`, for the components of a method.
    stages: trainings before the one that all of the above describes.
  """

  learning_rate: float | None = None
  optimizer: str = "adafactor"
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  max_norm: float | None = None
  by_path: Mapping[str, "Recipe"] = dataclasses.field(default_factory=dict)
  objective: str = "cross_entropy"
  stages: Sequence["Stage"] = ()


@dataclasses.dataclass(frozen=True)
class Stage:
  """A training that comes before the last one.

  Attributes:
    name: name of its folder, below that of the run.
    steps: updates.
    rules: decide what trains in it, see `core.partition`.
    recipe: how it trains.
  """

  name: str
  steps: int
  rules: Sequence[tuple[str, str]]
  recipe: Recipe = Recipe()


class Inputs(NamedTuple):
  """The arguments of a method.

  Attributes:
    context: what initialisers may read; given only while parameters are made.
    train: whether to use dropout; if so, the random key `dropout` is given.
    condition: number of the condition for which to make a delta, see
      `Method.conditions`, or of the component; None for methods without these.
  """

  context: InitializerContext = InitializerContext()
  train: bool = False
  condition: Array | int | None = None

  def number(self, count: int) -> Array | int:
    """Return the number of the condition or component; 0 if there is none.

    Args:
      count: number of conditions or components of the method.

    Raises:
      ValueError: the number is too large. Traced numbers are not checked; they
        come from `Method.conditions`.
    """
    number = 0 if self.condition is None else self.condition
    if isinstance(number, numbers.Integral) and not 0 <= number < count:
      raise ValueError(
        f"The condition is {number}, but the method has {count} tasks or "
        f"components: expected 0 to {count - 1}."
      )
    return number


class Method(nn.Module):
  """Base class of all tuning methods.

  Its fields are settings that JSON can hold, values of the model, and
  initialisers, whose names end in `_init`. A bundle describes initialisers but
  does not restore them, because nothing is initialised twice.

  Attributes:
    title: the method's name in reports and errors; by default the class.
    noun: their word for what the method learns; by default the title.
    from_model: names of the fields that `models.t5.config.T5Config` fills.
    from_data: names of the fields that a run's data fill unless they are set:
      `tasks`, the names of the tasks that it trains on; `label_words`, the word
      that answers each class; or `words`, all words of each class.
    recipe: how it trains by default.
    bundle_name: its name in bundles; None for `module:Class`.
    peft_types: PEFT's names of the adapters that `from_peft` reads; empty if
      PEFT has no such method.
    later: names of fields that are newer than some trained runs; bundles hold
      them only if they differ from their default.
    constants: names of parameters that never train, whatever the rules.
  """

  title: ClassVar[str] = ""
  noun: ClassVar[str] = ""
  from_model: ClassVar[tuple[str, ...]] = ("emb_dim",)
  from_data: ClassVar[tuple[str, ...]] = ()
  recipe: ClassVar[Recipe] = Recipe()
  bundle_name: ClassVar[str | None] = None
  peft_types: ClassVar[tuple[str, ...]] = ()
  later: ClassVar[tuple[str, ...]] = ()
  constants: ClassVar[tuple[str, ...]] = ()

  def __call__(self, inputs: Inputs) -> Delta:
    """Make the delta of one run, without the run axis.

    Args:
      inputs: see `Inputs`.

    Returns:
      What changes in the model; `bank` adds the run axis.
    """
    raise NotImplementedError

  @property
  def placement(self) -> Placement:
    """Where virtual tokens stand; nowhere by default."""
    return Placement()

  @property
  def conditions(self) -> tuple[str, ...]:
    """Tasks of one run that get their own delta; none by default.

    If there are some, `__call__` is called for each by its number.
    """
    return ()

  @property
  def rows(self) -> Mapping[str, int]:
    """How many rows of its parameters a run uses; all rows by default.

    Path of a parameter -> number of rows that the run uses, for parameters to
    which `aligned` added rows.
    """
    return {}

  @classmethod
  def aligned(cls, methods: Sequence["Method"]) -> "tuple[Method, ...] | None":
    """Give methods parameters of equal shapes, so that they can share a bank.

    Args:
      methods: methods of this class; shapes of their parameters may differ.

    Returns:
      Methods with the same results; their `rows` say how many rows of their
      parameters they use. None if this is not possible.
    """
    del methods
    return None

  @property
  def answers(self) -> Sequence[str]:
    """Texts that the rows of `Delta.head_rows` stand for; none by default."""
    return ()

  @property
  def weighed_words(self) -> Sequence[Sequence[str]]:
    """The words of every class that `Delta.word_weights` weigh; none here."""
    return ()

  @property
  def components(self) -> int:
    """Number of deltas that one run mixes for its answers; 1 by default.

    If there are several, `__call__` is called for each by its number, as for
    conditions, and `Delta.log_weight` gives the weight of each.
    """
    return 1

  @nn.nowrap
  def check_to_train(self) -> None:
    """Refuse settings that nobody wants to train; none by default.

    Adapters from elsewhere may have such settings, and load.

    Raises:
      ValueError: there is such a setting; the message names it.
    """

  @nn.nowrap
  def extra(
    self, delta: Delta, outputs: Outputs, batch: Batch, keys: Array | None
  ) -> Mapping[str, Array]:
    """Add to the loss of every example; nothing by default.

    Runs of one bank share this function, so their methods need equal settings.

    Args:
      delta: that of all runs.
      outputs: those of the model.
      batch: the model's batch; `run_ids` says which run a row belongs to.
      keys: [K] random keys of the runs and the step; None in evaluation.

    Returns:
      Name for the logs -> float32 [B].
    """
    del delta, outputs, batch, keys
    return {}

  @nn.nowrap
  def penalty(self, params: Params) -> Array:
    """Add to the loss of a run, once per step; nothing by default.

    It is not divided by the size of the batch, and counts once per step even
    with microbatches.

    Args:
      params: of one run, without the run axis.

    Returns:
      A float32 scalar.
    """
    del params
    return jnp.zeros(())

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta | None:
    """Make a random delta with which reports compare the trained one.

    Args:
      delta: of one trained run, with a run axis of size 1.
      key: random key.

    Returns:
      A delta of the same shapes; None if the method has no such control.
    """
    del delta, key
    return None

  @nn.nowrap
  def to_peft(self, delta: Delta) -> Adapter | str:
    """Convert one run to PEFT's format.

    Args:
      delta: of one trained run, with a run axis of size 1.

    Returns:
      The adapter, or the reason why PEFT has no equal one.
    """
    del delta
    return f"PEFT has no adapter for {name_of(type(self))}"

  @classmethod
  def of_vectors(cls, length: int, width: int) -> "Method | None":
    """Return this method for [P, H] vectors before the text, if it fits.

    Args:
      length: P.
      width: H.
    """
    del length, width
    return None

  @classmethod
  def from_peft(
    cls, adapter: Adapter, model: ModelShape | None
  ) -> tuple["Method", Delta]:
    """Read an adapter of `peft_types`.

    Args:
      adapter: its configuration and arrays.
      model: shape of the backbone; None if it is not known.

    Returns:
      The method with the adapter's settings, and the delta of one run. Its run
      axis has size 1, or the number of conditions.

    Raises:
      ValueError: the adapter has a feature that this project lacks.
    """
    raise NotImplementedError


def slots_of(method: Method) -> int:
  """Count the rows that one run of a method has in a delta."""
  return max(1, len(method.conditions), method.components)


def name_of(kind: type[Method]) -> str:
  """Return a method's name in reports; a subclass has its own name."""
  return vars(kind).get("title") or kind.__name__


def noun_of(kind: type[Method]) -> str:
  """Return the word of reports for what a method learns."""
  return vars(kind).get("noun") or name_of(kind)


def settings_of(method: Method) -> tuple[type[Method], dict[str, Any]]:
  """Return the settings that decide how a method makes its delta."""
  names = [field.name for field in dataclasses.fields(method)]
  return type(method), {
    name: getattr(method, name)
    for name in names
    if name not in FLAX_FIELDS and not name.endswith(INITIALISER)
  }


def check_settings(method: Method) -> None:
  """Insist on settings that JSON can write and read without a change.

  Args:
    method: any.

  Raises:
    ValueError: a setting changes, or a count is not a number; the message
      names it.
  """
  kind, settings = settings_of(method)
  for name, value in settings.items():
    _check_plain(f"{name_of(kind)}.{name}", value)
  for field in dataclasses.fields(kind):
    value = settings.get(field.name)
    if field.type in (int, int | None) and isinstance(value, bool | float):
      raise ValueError(
        f"{name_of(kind)}.{field.name} is {value!r}; expected a whole number."
      )


def _check_plain(what: str, value: Any) -> None:
  if value is None or isinstance(value, bool | int | str | ModelShape):
    return
  if isinstance(value, float) and math.isfinite(value):
    return
  if isinstance(value, list | tuple):
    for part in value:
      _check_plain(what, part)
    return
  names = list(value) if isinstance(value, Mapping) else [None]
  if all(isinstance(name, str) for name in names) and CLASS not in names:
    for name in names:
      _check_plain(f"{what}[{name!r}]", value[name])
    return
  raise ValueError(
    f"{what} is {value!r} ({type(value).__name__}), which a bundle cannot "
    "hold. Settings of a method are numbers, text, lists, and mappings of text "
    f"to these ({CLASS!r} not among the names); initialisers go into fields "
    f"that end in {INITIALISER!r}."
  )
