"""An input in words: an instruction and answered examples stand before it.

Nothing trains: this is what a frozen model is asked in the place of a prompt
that it learned. Rows of tokens become longer rows of tokens, so that it is the
same for every task, also one of a template. Where an input has T5's sentinels
(`A <extra_id_0> news : ...`), the answer of an example stands in their place;
where it has none, behind the input and `between`.

Source: Brown et al. 2020, sections 2 and 3 (few-shot); Lester et al. 2021, the
prompt design of their figure 1. Deviations: choice and order follow a seed, and
classes are chosen alike often unless one asks for a plain draw.
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
  """What stands before every input.

  Attributes:
    instruction: what to do, in words; said once, in front of everything.
    shots: k, demonstrations of the training split; 0 for none.
    seed: of their choice, and of their order.
    balanced: whether every class is chosen as often as any other, as far as k
      allows; if not, k rows are drawn from all.
    between: words between an input and its answer, such as `answer:`, behind
      the own input too. Inputs with sentinels need none.
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
    """What tables call it."""
    if not self.shots:
      return "prompt design"
    return f"{self.shots}-shot in context"

  @property
  def drawn_by(self) -> int | None:
    """The seed, where something is drawn."""
    return self.seed if self.shots else None


class Demonstration(NamedTuple):
  """An example with its answer.

  Attributes:
    row: its number in the training split.
    ids: tokens, without EOS.
    text: the same for people.
  """

  row: int
  ids: Sequence[int]
  text: str


def choose(
  answers: Sequence[Hashable], shots: int, seed: int, balanced: bool = True
) -> list[int]:
  """Choose rows to show, in the order in which they stand.

  Args:
    answers: of every row, in the fixed order of the source.
    shots: k.
    seed: the same seed gives the same rows; those of a smaller k are among
      those of a larger one.
    balanced: see `InContext`; answers are the classes.

  Returns:
    k different row numbers.

  Raises:
    ValueError: fewer rows than that.
  """
  if shots > len(answers):
    raise ValueError(
      f"SHOTS is {shots}, and the training split has {len(answers)} rows."
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
    demonstrations: those that were chosen, in order.
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
        f"INSTRUCTION and its surroundings take {least - 1} tokens, and an "
        f"input has {limit} at most: raise TASK_FEATURE_LENGTHS of inputs."
      )

  def write(self, row: np.ndarray) -> tuple[np.ndarray, int]:
    """Write an input in its context.

    Args:
      row: ids, EOS included.

    Returns:
      Ids, EOS included, and how many demonstrations there was room for: the
      last ones. An input that is too long even without any loses its end.

    Raises:
      ValueError: the end that it loses holds a sentinel, which is to be
        answered.
    """
    asked = row[:-1].tolist()
    behind = [] if self._sentinels(asked) else self._between
    fixed = len(self._instruction) + len(behind) + 1
    room = len(asked) if self._limit is None else self._limit - fixed
    if self._sentinels(asked[room:]):
      raise ValueError(
        f"An input of {len(asked)} tokens would lose its sentinel: INSTRUCTION "
        f"leaves {room} of {self._limit}. Raise TASK_FEATURE_LENGTHS of inputs."
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
    """Write an input for people.

    Args:
      asked: the input alone.
      count: demonstrations before it.
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
        "The template has soft tokens, and a demonstration cannot hold learned "
        "vectors: use a template of words only."
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
    """Put the parts of an answer where their sentinels stand in the input."""
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
    writer: with the task's demonstrations.
    rows: ids of every input, EOS included.
    examples: features of every example.

  Returns:
    The rows and the features, with the text in its context and the number of
    its demonstrations; a warning counts inputs that have fewer than were asked
    for.
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
