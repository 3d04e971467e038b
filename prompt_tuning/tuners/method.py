"""What a tuning method is: a small module that makes a `Delta`.

A method never sees the backbone's internals. Everything but `__call__` has a
default; nothing outside `tuners` knows a method by name.
"""

import dataclasses
import math
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
  """How a method trains where the user does not say otherwise.

  Attributes:
    learning_rate: base rate; None where the user has to choose one.
    optimizer: `adafactor`, as T5X ran it, or the name of one in optax.
    settings: its other arguments.
    max_norm: largest norm of a run's gradient, over all parameters that this
      is the recipe of; None for any.
    by_path: pattern of paths, such as `tuner/weights` -> recipe of these
      parameters, whose learning rate stays what it is.
    objective: `cross_entropy`; `output_rows`, over classes by learned output
      rows; `learned_words`, over classes by learned weights of their label
      words; or `mixture`, of the components of a method.
    stages: trainings that come before the one that all of the above is for.
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
    name: of its folder below the run's.
    steps: updates.
    rules: what trains in it, see `core.partition`.
    recipe: how it trains.
  """

  name: str
  steps: int
  rules: Sequence[tuple[str, str]]
  recipe: Recipe = Recipe()


class Inputs(NamedTuple):
  """What a method is called with.

  Attributes:
    context: what initialisers may look at; there while parameters are made.
    train: whether to drop activations; the random key `dropout` is there then.
    condition: number of the condition that a delta is for, see
      `Method.conditions`, or of the component; None where a method has none.
  """

  context: InitializerContext = InitializerContext()
  train: bool = False
  condition: Array | int | None = None

  def number(self, count: int) -> Array | int:
    """Return the number of the condition or component; without any, 0.

    Args:
      count: how many the method has.

    Raises:
      ValueError: it has fewer. Of traced numbers nothing is known; those come
        from `Method.conditions`.
    """
    number = 0 if self.condition is None else self.condition
    if isinstance(number, int) and not 0 <= number < count:
      raise ValueError(
        f"The condition {number} is none of the method's {count}: expected 0 "
        f"to {count - 1}, a place in its tasks or components."
      )
    return number


class Method(nn.Module):
  """Base class of all tuning methods.

  Its fields are settings that JSON can hold, values that the model gives, and
  initialisers, whose names end in `_init`: a bundle describes those, but does
  not bring them back, as nothing is initialised twice.

  Attributes:
    title: what reports and errors call the method; by default the class.
    noun: what they call the thing that it learns; by default the title.
    from_model: names of the fields that `models.t5.config.T5Config` gives.
    from_data: names of the fields that a run's data give: `tasks`, the names of
      the tasks that it trains on; `label_words` of these, the word that each
      class is answered with, or `words`, all words of each, unless they are
      set.
    recipe: how it trains by default.
    bundle_name: what bundles call it; None for `module:Class`.
    peft_types: PEFT's names of the adapters that `from_peft` reads; none where
      PEFT has nothing like it.
    later: names of fields that came after runs had been trained without them;
      bundles have them where they differ from their default.
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
    """Tasks of one run that get a delta of their own; none by default.

    Where there are some, `__call__` is asked for each, by number.
    """
    return ()

  @property
  def rows(self) -> Mapping[str, int]:
    """Rows of parameters that are this run's own; all of them by default.

    Path of a parameter -> how many, where `aligned` gave it more.
    """
    return {}

  @classmethod
  def aligned(cls, methods: Sequence["Method"]) -> "tuple[Method, ...] | None":
    """Give methods equal parameters, so that they can share a bank.

    Args:
      methods: of this class, whose parameters may have other shapes.

    Returns:
      Methods that do the same, and whose `rows` say which rows of their
      parameters nothing refers to; None where there are none.
    """
    del methods
    return None

  @property
  def answers(self) -> Sequence[str]:
    """Texts that the rows of `Delta.head_rows` stand for; none by default."""
    return ()

  @property
  def weighed_words(self) -> Sequence[Sequence[str]]:
    """Of every class the words that `Delta.word_weights` are for; none here."""
    return ()

  @property
  def components(self) -> int:
    """Deltas of one run of which its answers are a mixture; one by default.

    Where there are several, `__call__` is asked for each by number, as for
    conditions, and `Delta.log_weight` says what share each has.
    """
    return 1

  @nn.nowrap
  def check_to_train(self) -> None:
    """Refuse settings that nobody means to train; none by default.

    What was tuned elsewhere may have them, and is loaded.

    Raises:
      ValueError: such a setting, which it names.
    """

  @nn.nowrap
  def extra(
    self, delta: Delta, outputs: Outputs, batch: Batch, keys: Array | None
  ) -> Mapping[str, Array]:
    """Add to the loss of every example; nothing by default.

    Runs of one bank share it, so that their methods need equal settings.

    Args:
      delta: of all runs.
      outputs: of the model.
      batch: that it read; `run_ids` says whose delta a row has.
      keys: [K] random keys of the runs and the step; None in evaluation.

    Returns:
      Name, in logs -> float32 [B].
    """
    del delta, outputs, batch, keys
    return {}

  @nn.nowrap
  def penalty(self, params: Params) -> Array:
    """Add to the loss of a run, once per step; nothing by default.

    It is neither divided by what the batch holds nor paid per microbatch.

    Args:
      params: of one run, without the run axis.

    Returns:
      A float32 scalar.
    """
    del params
    return jnp.zeros(())

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta | None:
    """Make a random delta to hold the trained one against.

    Args:
      delta: of one trained run, with a run axis of size 1.
      key: random key.

    Returns:
      A delta of the same shapes; None where the method has no such control.
    """
    del delta, key
    return None

  @nn.nowrap
  def to_peft(self, delta: Delta) -> Adapter | str:
    """Write one run as PEFT would.

    Args:
      delta: of one trained run, with a run axis of size 1.

    Returns:
      The adapter, or why PEFT has none that says the same.
    """
    del delta
    return f"PEFT has no adapter for {name_of(type(self))}"

  @classmethod
  def of_vectors(cls, length: int, width: int) -> "Method | None":
    """Return the method whose run is [P, H] vectors before the text, if it is.

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
      model: shape of the backbone; None where it is not known.

    Returns:
      The method with the adapter's settings, and the delta of one run, with a
      run axis of size 1, or of the number of its conditions.

    Raises:
      ValueError: the adapter says what this project cannot.
    """
    raise NotImplementedError


def slots_of(method: Method) -> int:
  """Count the rows of a delta that one run of a method has."""
  return max(1, len(method.conditions), method.components)


def name_of(kind: type[Method]) -> str:
  """Return what reports call a method; a subclass has a name of its own."""
  return vars(kind).get("title") or kind.__name__


def noun_of(kind: type[Method]) -> str:
  """Return what reports call that which a method learns."""
  return vars(kind).get("noun") or name_of(kind)


def settings_of(method: Method) -> tuple[type[Method], dict[str, Any]]:
  """Return what decides the delta that a method makes of its parameters."""
  names = [field.name for field in dataclasses.fields(method)]
  return type(method), {
    name: getattr(method, name)
    for name in names
    if name not in FLAX_FIELDS and not name.endswith(INITIALISER)
  }


def check_settings(method: Method) -> None:
  """Insist on settings that come back from JSON as they went in.

  Args:
    method: any.

  Raises:
    ValueError: names one that does not, or that is no number of what it
      counts.
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
