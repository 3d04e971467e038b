"""Tasks whose targets begin with a sentinel: `sentinel_<task>`.

They exist for every task and mixture. A model of span corruption begins every
target with a sentinel. In the paper's "span corruption and sentinel", the
targets of a downstream task do so too; the inputs stay the same. The sentinel
is removed from predictions.

Source: Lester et al. 2021, section 3.3.
"""

import dataclasses
from typing import Any

from prompt_tuning.data import postprocessors, spec

PREFIX = "sentinel_"
_SENTINEL = "<extra_id_0>"
_KEY = "target_sentinel_of"  # of a spec's content: the task's own name
# The targets of these are made in another way, see `templated.declare`.
_OTHERS = ("templated", "sentences", "pretraining")


@dataclasses.dataclass(frozen=True)
class Behind:
  """A postprocessor that reads the text after the sentinel.

  Attributes:
    base: the task's own postprocessor.
  """

  base: spec.Postprocess

  def __call__(self, text: str, **of_seqio: Any) -> Any:
    """Postprocess a text, see `data.postprocessors`."""
    return self.base(without(postprocessors.to_text(text)), **of_seqio)


def put(word: str) -> str:
  """Put the sentinel in front of a target."""
  return f"{_SENTINEL} {word}"


def without(text: str) -> str:
  """Remove the sentinel, if a text begins with it."""
  return text.removeprefix(_SENTINEL).removeprefix(" ")


def base_of(task: spec.TaskSpec) -> str | None:
  """Return the name of the base task; None for a task without a sentinel."""
  name = task.content.get(_KEY)
  return None if name is None else str(name)


def adopt(name: str) -> bool:
  """Register `sentinel_<task>`.

  Args:
    name: a name that `spec` does not know.

  Returns:
    Whether the name has this form.

  Raises:
    ValueError: there is no such task, or its targets are made in another way.
  """
  if not name.startswith(PREFIX):
    return False
  base = spec.get(name.removeprefix(PREFIX))
  if isinstance(base, spec.MixtureSpec):
    rates = {PREFIX + member: rate for member, rate in base.rates.items()}
    spec.add(dataclasses.replace(base, name=name, rates=rates))
    return True
  if base.benchmark in _OTHERS or base.candidates or base_of(base):
    raise ValueError(
      f"{name}: the targets of {base.name} cannot begin with a sentinel. For "
      "a templated task, set target_format instead."
    )
  derived = dataclasses.replace(
    base,
    name=name,
    label_words=tuple(map(put, base.label_words)),
    postprocess=Behind(base.postprocess),
    content={**base.content, _KEY: base.name},
  )
  spec.add(derived)
  return True
