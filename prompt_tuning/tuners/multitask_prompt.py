"""Prompts for several tasks in one run: a shared part, and a part per task."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import meta

from prompt_tuning.core.adapter import Adapter
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Array, DType, Shape
from prompt_tuning.tuners import controls, parameters, settings
from prompt_tuning.tuners.initializers import Initializer, SampledVocabulary
from prompt_tuning.tuners.method import Inputs, Method, Recipe
from prompt_tuning.tuners.parameters import Parameter
from prompt_tuning.tuners.prompt import PROMPT_AXES, Prompt

_PEFT_SIZES = ("num_virtual_tokens", "token_dim", "num_tasks", "num_ranks")
_PEFT_TENSORS = ("prompt_embeddings", "prefix_task_cols", "prefix_task_rows")
# Settings that are read, or say how the numbers began.
_PEFT_HARMLESS = (
  *_PEFT_SIZES,
  *("num_attention_heads", "num_layers", "num_transformer_submodules"),
  *("prompt_tuning_init", "prompt_tuning_init_state_dict_path"),
  *("prompt_tuning_init_task", "prompt_tuning_init_text"),
  *("tokenizer_kwargs", "tokenizer_name_or_path"),
)
# (random key, shape) -> first values, float32.
_Draw = Callable[[Array, Shape], Array]


def _zeros(key: Array, shape: Shape) -> Array:
  del key
  return jnp.zeros(shape, jnp.float32)


class MultitaskSum(Method):
  """A prompt in front of the text: shared vectors plus those of the task.

  Parameters, float32: `shared_prompt` [P, H], `task_prompts/<number>`
  [P, H]. The latter start at zero.

  Attributes:
    emb_dim: features of a token embedding (H).
    tasks: those of the run.
    length: P, the vectors of a prompt.
    prompt_init: initial value of the shared vectors.

  Source: prompt-tuning's `extended/multitask_prompts.py`, where the first token
  of the text names the task; here each row carries its task. Deviation: there
  the vectors of the tasks start uniform in [0, 0.01).
  """

  title: ClassVar[str] = "multitask prompts by sum"
  noun: ClassVar[str] = "prompt"
  from_data: ClassVar[tuple[str, ...]] = ("tasks",)
  recipe: ClassVar[Recipe] = Prompt.recipe

  emb_dim: int = 0
  tasks: Sequence[str] = ()
  length: int = 10
  prompt_init: Initializer = SampledVocabulary()

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.positive_integer("PROMPT_LENGTH", self.length)

  @property
  def conditions(self) -> tuple[str, ...]:
    """The tasks: each has its own prompt."""
    return tuple(self.tasks)

  @property
  def placement(self) -> Placement:
    """In front of the text."""
    return Placement(encoder_prefix=tuple(range(self._length())))

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    """Return the prompt of one task, see `Method`."""
    words = self._words(inputs)
    shared = self._declare("shared_prompt", words, self._shared(), PROMPT_AXES)
    number = inputs.number(len(self.tasks))
    of_task = {}
    for name, (draw, shape) in self._of_task(words).items():
      # One leaf for each task, so that rules can train a single one, such as a
      # new task's. Leaves have numbers as names, because runs of one bank may
      # have different tasks.
      one = Parameter(_initialiser(draw), shape, (None,) * len(shape))
      paths = [f"{name}/{i}" for i in range(len(self.tasks))]
      made = parameters.declare(self, dict.fromkeys(paths, one))
      of_task[name] = jnp.stack([made[path] for path in paths])[number]
    return Delta(virtual=self._combined(shared, of_task))

  def _words(self, inputs: Inputs) -> _Draw:
    """Draw vectors as `prompt_init` does."""

    def draw(key: Array, shape: Shape) -> Array:
      if not self.is_initializing():  # flax asks for the shape only
        return _zeros(key, shape)
      return self.prompt_init(key, shape, jnp.float32, inputs.context)

    return draw

  def _declare(
    self, name: str, draw: _Draw, shape: Shape, axes: tuple[str | None, ...]
  ) -> Array:
    boxed = nn.with_logical_partitioning(draw, axes)
    made: Array = meta.unbox(self.param(name, boxed, shape))
    return made

  def _length(self) -> int:
    return self.length

  def _shared(self) -> Shape:
    """Return the shape of the shared part."""
    return (self.length, self.emb_dim)

  def _of_task(self, words: _Draw) -> dict[str, tuple[_Draw, Shape]]:
    """List what each task has: name -> (first values, shape)."""
    del words
    return {"task_prompts": (_zeros, (self.length, self.emb_dim))}

  def _combined(self, shared: Array, of_task: Mapping[str, Array]) -> Array:
    """Make a task's prompt, [P, H]."""
    return shared + of_task["task_prompts"]

  @nn.nowrap
  def control(self, delta: Delta, key: Array) -> Delta:
    """Draw vectors of random direction and the same norms."""
    return controls.of_same_norms(delta, key)

  @nn.nowrap
  def to_peft(self, delta: Delta) -> Adapter | str:
    """Write one task's prompt as PEFT's PROMPT_TUNING, see `Method`."""
    return Prompt(self.emb_dim, self._length()).to_peft(delta)


class MultitaskConcat(MultitaskSum):
  """Shared vectors, then those of the task, in front of the text.

  Parameters, float32: `shared_prompt` [P, H], `task_prompts/<number>` [Q, H].

  Attributes:
    task_length: Q, the vectors of each task.
  """

  title: ClassVar[str] = "multitask prompts by concatenation"
  noun: ClassVar[str] = "prompt"

  task_length: int = 10

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.positive_integer("TASK_LENGTH", self.task_length)

  def _length(self) -> int:
    return self.length + self.task_length

  def _of_task(self, words: _Draw) -> dict[str, tuple[_Draw, Shape]]:
    return {"task_prompts": (words, (self.task_length, self.emb_dim))}

  def _combined(self, shared: Array, of_task: Mapping[str, Array]) -> Array:
    return jnp.concatenate([shared, of_task["task_prompts"]])


class MultitaskFeatures(MultitaskSum):
  """Vectors whose first features are shared and whose last are the task's.

  Parameters, float32: `shared_prompt` [P, H - F], `task_prompts/<number>`
  [P, F].

  Attributes:
    task_features: F, the last features, which belong to the task.
  """

  title: ClassVar[str] = "multitask prompts by features"
  noun: ClassVar[str] = "prompt"

  task_features: int = 32

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.positive_integer("TASK_FEATURES", self.task_features)
    if self.emb_dim and self.task_features >= self.emb_dim:
      raise ValueError(
        f"TASK_FEATURES is {self.task_features}, which leaves no shared "
        f"features; expected less than the model's {self.emb_dim} features."
      )

  def _words(self, inputs: Inputs) -> _Draw:
    whole = super()._words(inputs)

    def draw(key: Array, shape: Shape) -> Array:
      """Cut what belongs here out of whole words."""
      vectors = whole(key, (shape[0], self.emb_dim))
      shared = shape == self._shared()
      return vectors[:, : shape[1]] if shared else vectors[:, -shape[1] :]

    return draw

  def _shared(self) -> Shape:
    return (self.length, self.emb_dim - self.task_features)

  def _of_task(self, words: _Draw) -> dict[str, tuple[_Draw, Shape]]:
    return {"task_prompts": (words, (self.length, self.task_features))}

  def _combined(self, shared: Array, of_task: Mapping[str, Array]) -> Array:
    return jnp.concatenate([shared, of_task["task_prompts"]], axis=1)


class MultitaskProject(MultitaskSum):
  """Shared vectors, mapped by an affine map of the task.

  Parameters, float32: `shared_prompt` [P, H], `task_kernels/<number>` [H, H],
  which start at the identity, and `task_biases/<number>` [H], at zero.
  """

  title: ClassVar[str] = "multitask prompts by projection"
  noun: ClassVar[str] = "prompt"

  def _of_task(self, words: _Draw) -> dict[str, tuple[_Draw, Shape]]:
    del words
    size = self.emb_dim

    def identity(key: Array, shape: Shape) -> Array:
      del key, shape
      return jnp.eye(size)

    return {
      "task_kernels": (identity, (size, size)),
      "task_biases": (_zeros, (size,)),
    }

  def _combined(self, shared: Array, of_task: Mapping[str, Array]) -> Array:
    return shared @ of_task["task_kernels"] + of_task["task_biases"][None]


class MPT(MultitaskSum):
  """Shared vectors times a low-rank matrix of the task, element by element.

  Parameters, float32: `shared_prompt` [P, H], `task_columns/<number>` [P, R]
  and `task_rows/<number>` [R, H]. Their product starts as a matrix of ones.

  Attributes:
    rank: R, the rank of each task's matrix.

  Source: Wang et al. 2023 (multitask prompt tuning), equation 1, where the rank
  is one. Deviations: no distillation; the authors' code and PEFT draw both
  factors from N(0, 0.02), so that their prompts start near zero.
  """

  title: ClassVar[str] = "multitask prompt tuning"
  noun: ClassVar[str] = "prompt"
  peft_types: ClassVar[tuple[str, ...]] = ("MULTITASK_PROMPT_TUNING",)

  rank: int = 1

  def __post_init__(self) -> None:
    super().__post_init__()
    settings.positive_integer("MPT_RANK", self.rank)

  @nn.nowrap
  def check_to_train(self) -> None:
    """Refuse a rank above that of the prompt, see `Method`."""
    most = min(self.length, self.emb_dim)
    if self.rank > most:
      raise ValueError(
        f"MPT_RANK is {self.rank}, but a task's matrix of {self.length} x "
        f"{self.emb_dim} numbers (PROMPT_LENGTH x width of the model) cannot "
        f"have a rank above {most}: lower MPT_RANK."
      )

  def _of_task(self, words: _Draw) -> dict[str, tuple[_Draw, Shape]]:
    del words

    def columns(key: Array, shape: Shape) -> Array:
      noise = 0.02 * jax.random.normal(key, shape)
      return noise.at[:, 0].set(1)

    def rows(key: Array, shape: Shape) -> Array:
      return _zeros(key, shape).at[0].set(1)

    return {
      "task_columns": (columns, (self.length, self.rank)),
      "task_rows": (rows, (self.rank, self.emb_dim)),
    }

  def _combined(self, shared: Array, of_task: Mapping[str, Array]) -> Array:
    return shared * (of_task["task_columns"] @ of_task["task_rows"])

  @classmethod
  def from_peft(
    cls, adapter: Adapter, model: ModelShape | None
  ) -> tuple["MPT", Delta]:
    """Read PEFT's MULTITASK_PROMPT_TUNING, see `Method`.

    PEFT numbers tasks; here their names are `task0`, ... If an adapter has two
    prompts, PEFT uses the first, as `Prompt.from_peft` says.
    """
    del model
    adapter.insist(_PEFT_HARMLESS, tensors=_PEFT_TENSORS)
    length, width, tasks, rank = map(adapter.positive, _PEFT_SIZES)
    shared, columns, rows = (
      adapter.tensors.get(name, np.zeros(())) for name in _PEFT_TENSORS
    )
    whole = (shared.shape, columns.shape, rows.shape)
    expected = [
      ((n * length, width), (tasks, n * length, rank), (tasks, rank, width))
      for n in (1, 2)
    ]
    if whole not in expected:
      raise ValueError(
        f"{', '.join(_PEFT_TENSORS)}: expected the shapes {expected[0]}, or "
        f"twice as many tokens; found {whole}."
      )
    values = shared[:length] * (columns[:, :length] @ rows)
    names = tuple(f"task{number}" for number in range(tasks))
    method = cls(width, names, length, rank=rank)
    return method, Delta(virtual=jnp.asarray(values))


def _initialiser(draw: _Draw) -> Callable[..., Array]:
  def init(key: Array, shape: Shape, dtype: DType) -> Array:
    return draw(key, shape).astype(dtype)

  return init
