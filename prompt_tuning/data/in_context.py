"""Inputs with an instruction and answered examples in front (in context).

Nothing trains: words replace a learned prompt in front of the frozen model.
This adds tokens to token rows, so that it works in the same way for every task,
also for templated ones. If an input has T5's sentinels (`A <extra_id_0> news :
...`), an example's answer replaces them; otherwise, the answer follows the
input and `between`.

Source: Brown et al. 2020, sections 2 and 3 (few-shot); Lester et al. 2021, the
prompt design of their figure 1. Deviations: a seed decides choice and order,
and all classes are chosen equally often unless `balanced` is false.
"""

import dataclasses
import logging
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_tuning.core import bounds
from prompt_tuning.core.types import EOS_ID
from prompt_tuning.data import spec
from prompt_tuning.data.vocabulary import EXTRA_IDS, Vocabulary

TRAIN = "train"  # the split that demonstrations are of
COUNT = "demonstrations"  # how many an example has, among its features

logger = logging.getLogger(__name__)

_TOO_LONG = (
  "choose another seed, fewer shots, or raise TASK_FEATURE_LENGTHS of inputs"
)


@dataclasses.dataclass(frozen=True)
class InContext:
  """The context before every input.

  Attributes:
    instruction: the instruction in words; written once, at the start.
    shots: number of demonstrations of the training split, k; 0 for none.
    seed: seed for their choice and order.
    balanced: whether all classes are chosen equally often, as far as k allows;
      if not, k rows are drawn from all rows.
    between: words between an input and its answer, such as `answer:`; they also
      follow the input to answer. Inputs with sentinels need none.
  """

  instruction: str = ""
  shots: int = 0
  seed: int = 0
  balanced: bool = True
  between: str = ""

  def __post_init__(self) -> None:
    bounds.insist_whole("SHOTS", self.shots, 0)
    bounds.insist_whole("CONTEXT_SEED", self.seed, 0)
    if not self.shots and not self.instruction:
      raise ValueError(
        "The context is empty: set INSTRUCTION or SHOTS. To score the model "
        "alone, give no context."
      )

  @property
  def title(self) -> str:
    """The name in tables."""
    if not self.shots:
      return "prompt design"
    return f"{self.shots}-shot in context"

  @property
  def drawn_by(self) -> int | None:
    """The seed, if something is drawn."""
    return self.seed if self.shots else None


class Demonstration(NamedTuple):
  """An example with its answer.

  Attributes:
    row: its index in the training split.
    ids: tokens, without EOS.
    text: the same as text.
  """

  row: int
  ids: Sequence[int]
  text: str


def choose(
  answers: Sequence[Hashable], shots: int, seed: int, balanced: bool = True
) -> list[int]:
  """Choose rows for demonstrations, in the order of the context.

  Args:
    answers: the answer of every row, in the fixed order of the source.
    shots: number of rows, k.
    seed: the same seed gives the same rows; a larger k adds rows.
    balanced: see `InContext`; answers are the classes.

  Returns:
    k different row indices.

  Raises:
    ValueError: fewer than k rows.
  """
  if shots > len(answers):
    raise ValueError(
      f"SHOTS is {shots}, but the training split has only {len(answers)} "
      "rows. Set SHOTS to at most that."
    )
  random = np.random.default_rng([seed, 0])
  order = random.permutation(len(answers)).tolist()
  if balanced:
    turns: dict[Hashable, int] = {}
    ranked = []
    for place, row in enumerate(order):
      turn = turns[answers[row]] = turns.get(answers[row], -1) + 1
      ranked.append((turn, place, row))
    order = [row for _, _, row in sorted(ranked)]
  chosen = order[:shots]
  np.random.default_rng([seed, 1]).shuffle(chosen)
  return chosen


class Writer:
  """Writes inputs in their context.

  Attributes:
    demonstrations: the chosen demonstrations, in order.
  """

  demonstrations: tuple[Demonstration, ...]

  def __init__(
    self,
    context: InContext,
    words: Vocabulary,
    examples: Sequence[tuple[int, np.ndarray, np.ndarray]],
    limit: int | None,
  ):
    """Tokenise what is the same in every input.

    Args:
      context: what stands before inputs.
      words: vocabulary of the model.
      examples: the chosen ones: number of the row, ids of its whole input and
        of its target, EOS included.
      limit: most tokens of an input, EOS included; None for no limit.

    Raises:
      ValueError: an example that does not fit in an input by itself, or one
        with virtual tokens.
    """
    self._words, self._limit = words, limit
    self._instruction = words.encode(context.instruction)
    self._between = words.encode(context.between)
    self.demonstrations = tuple(
      self._demonstration(*example) for example in examples
    )
    for one in self.demonstrations:
      size = len(self._instruction) + len(one.ids) + 1
      if limit is not None and size > limit:
        raise ValueError(
          f"Row {one.row} of the training split was chosen as a demonstration, "
          f"and takes {size} tokens with instruction and EOS; an input has "
          f"{limit} at most: {_TOO_LONG}."
        )
    least = len(self._instruction) + len(self._between) + 2
    if limit is not None and least > limit:
      raise ValueError(
        f"INSTRUCTION and the text around it take {least - 1} tokens, but an "
        f"input has at most {limit}: raise TASK_FEATURE_LENGTHS of inputs."
      )

  def write(self, row: np.ndarray) -> tuple[np.ndarray, int]:
    """Write an input in its context.

    Args:
      row: ids, with EOS.

    Returns:
      Ids, with EOS, and the number of demonstrations that fit: the last ones.
      If the input alone is too long, its end is cut.

    Raises:
      ValueError: the end that is cut holds a sentinel, whose answer is asked
        for.
    """
    asked = row[:-1].tolist()
    behind = [] if self._sentinels(asked) else self._between
    fixed = len(self._instruction) + len(behind) + 1
    room = len(asked) if self._limit is None else self._limit - fixed
    if self._sentinels(asked[room:]):
      raise ValueError(
        f"An input of {len(asked)} tokens would lose its sentinel, because "
        f"INSTRUCTION leaves {room} of {self._limit} tokens. Raise "
        "TASK_FEATURE_LENGTHS of inputs."
      )
    asked = asked[:room]
    left, shown = room - len(asked), []
    for one in reversed(self.demonstrations):
      if self._limit is not None and len(one.ids) > left:
        break
      left -= len(one.ids)
      shown.append(one.ids)
    before = [token for ids in reversed(shown) for token in ids]
    ids = [*self._instruction, *before, *asked, *behind, EOS_ID]
    return np.asarray(ids, np.int32), len(shown)

  def text(self, asked: str, count: int) -> str:
    """Write an input as text.

    Args:
      asked: the input alone.
      count: number of demonstrations before it.
    """
    last = self.demonstrations[len(self.demonstrations) - count :]
    texts = [self._words.decode(self._instruction)]
    texts += [one.text for one in last]
    texts.append(asked)
    if not self._sentinels(self._words.encode(asked)):
      texts.append(self._words.decode(self._between))
    return " ".join(filter(None, texts))

  def _demonstration(
    self, row: int, inputs: np.ndarray, targets: np.ndarray
  ) -> Demonstration:
    asked, answer = inputs[:-1].tolist(), targets[:-1].tolist()
    if asked and max(asked) >= self._words.size:
      raise ValueError(
        "The template has soft tokens, but a demonstration cannot hold "
        "learned vectors: use a template without soft tokens."
      )
    if self._sentinels(asked):
      ids = self._filled(asked, answer)
    else:
      ids = [*asked, *self._between, *answer]
    return Demonstration(row, ids, self._words.decode(ids))

  def _sentinels(self, ids: Sequence[int]) -> list[int]:
    first = self._words.size - EXTRA_IDS
    return [token for token in ids if first <= token < self._words.size]

  def _filled(self, asked: Sequence[int], answer: Sequence[int]) -> list[int]:
    """Replace the sentinels of an input by the parts of the answer."""
    wanted = set(self._sentinels(asked))
    parts: dict[int, list[int]] = {token: [] for token in wanted}
    current: int | None = None if wanted & set(answer) else min(wanted)
    for token in answer:
      if self._sentinels([token]):
        current = token
      elif current in parts:
        parts[current].append(token)
    return [t for token in asked for t in parts.get(token, [token])]


def write_all(
  writer: Writer,
  rows: Sequence[np.ndarray],
  examples: Sequence[Mapping[str, Any]],
) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
  """Write all inputs of a task.

  Args:
    writer: writer with the task's demonstrations.
    rows: ids of every input, with EOS.
    examples: features of every example.

  Returns:
    The rows and the features, with the text in its context and the number of
    its demonstrations; a warning counts inputs with fewer demonstrations than
    requested.
  """
  written, features = [], []
  for row, example in zip(rows, examples, strict=True):
    ids, count = writer.write(row)
    written.append(ids)
    text = writer.text(str(example[spec.INPUTS]), count)
    features.append({**example, spec.INPUTS: text, COUNT: count})
  asked = len(writer.demonstrations)
  fewer = [f[COUNT] for f in features if f[COUNT] < asked]
  if fewer:
    logger.warning(
      "%d of %d inputs have no room for all of %d demonstrations and get "
      "%.1f on average. For more, raise TASK_FEATURE_LENGTHS of inputs.",
      *(len(fewer), len(features), asked, statistics.fmean(fewer)),
    )
  return written, features
