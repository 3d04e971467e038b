"""Turn a row into the tokens of its template.

Each part is tokenised by itself, a constant part only once. T5's pieces never
cross a space, so that this gives the pieces of the whole text, except where two
parts touch. Text of a row stays text: `<extra_id_0>` in it is not a sentinel.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prompt_tuning.core.placement import FIRST_SOFT
from prompt_tuning.prompting.label_words import NO_BLANK, Encode
from prompt_tuning.prompting.template import (
  Field,
  Mask,
  Options,
  Part,
  Soft,
  Template,
  Text,
)

# What a mask is. `sentinel`: mask k is `<extra_id_k>`, and the target is
# `<extra_id_0> answer <extra_id_1> ...`, which suits a model of span
# corruption. `plain`: the only mask becomes nothing, and the target is the
# answer, which suits a model that was trained to continue text.
SENTINEL, PLAIN = "sentinel", "plain"
FORMATS = (SENTINEL, PLAIN)

_ANCHOR = "<extra_id_0>"
_INSIDE_MARKUP = re.compile(r"(?<=<)(?=extra_id_\d+>)")

# Field -> its text; a list of texts for options.
Values = Mapping[str, str | Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Rendered:
  """A row, as a template writes it.

  Attributes:
    ids: [T] int32, without EOS; soft token r is `FIRST_SOFT` + r.
    parts: [T] int32, number of the template's part of every token.
    text: the text, for people.
  """

  ids: np.ndarray
  parts: np.ndarray
  text: str


class Renderer:
  """A template with a vocabulary.

  Attributes:
    template: the template.
    format: `sentinel` or `plain`.
    soft: for every virtual token the id of the piece that it starts as, None
      for any.
  """

  def __init__(self, template: Template, encode: Encode, format: str):
    """Tokenise what is the same in every row.

    Args:
      template: the template.
      encode: a vocabulary's.
      format: see `FORMATS`.

    Raises:
      ValueError: an unknown format; several masks in a plain one.
    """
    check_format(template, format)
    self.template = template
    self.format = format
    self._encode = encode
    starts: list[int | None] = []
    shared: dict[int, list[int]] = {}
    self._constant: list[list[int] | None] = []
    for part in template.parts:
      ids: list[int] | None = None
      if isinstance(part, Soft):
        ids = _soft_ids(part, encode, starts, shared)
      elif isinstance(part, Mask):
        ids = list(encode(mask_text(part.number))) * (format == SENTINEL)
      elif isinstance(part, Text):
        ids = text_ids(encode, part.text, part.blank)
      self._constant.append(ids)
    self.soft = tuple(starts)
    self._shorten = [
      number
      for number, part in enumerate(template.parts)
      if isinstance(part, Field) and part.shorten
    ]

  def render(self, values: Values) -> Rendered:
    """Write a row.

    Args:
      values: the row, with all fields of the template.

    Raises:
      ValueError: a field is missing, or is a list and not a text.
    """
    ids: list[int] = []
    parts: list[int] = []
    text = ""
    blank = True
    for number, part in enumerate(self.template.parts):
      shown = self._text(number, values)
      blank = blank or part.blank or shown[:1].isspace()
      constant = self._constant[number]
      if constant is None or (isinstance(part, Text) and blank != part.blank):
        constant = text_ids(self._encode, shown, blank)
      ids += constant
      parts += [number] * len(constant)
      if constant:
        text += " " * (blank and bool(text)) + shown.strip()
        blank = shown[-1:].isspace()
    return Rendered(np.array(ids, np.int32), np.array(parts, np.int32), text)

  def shorten(
    self, ids: np.ndarray, parts: np.ndarray, limit: int
  ) -> np.ndarray:
    """Choose the tokens to keep of an input that is too long.

    Fields that may be shortened lose their ends, the longest field first, or
    their starts if the template says so.

    Args:
      ids: [T], see `Rendered`.
      parts: [T].
      limit: most tokens.

    Returns:
      [at most limit] positions to keep, ascending.

    Raises:
      ValueError: the parts that may not be shortened are too long.
    """
    positions = np.arange(len(ids))
    if len(ids) <= limit:
      return positions
    lengths = [int(np.sum(parts == number)) for number in self._shorten]
    room = limit - (len(ids) - sum(lengths))
    if room < 0:
      raise ValueError(
        f"{self.template.place}: {limit - room} tokens may not be shortened, "
        f"but there is room for {limit}. Raise TASK_FEATURE_LENGTHS of "
        "inputs, or let the template shorten more fields."
      )
    keep = np.ones(len(ids), bool)
    for number, count in zip(self._shorten, levels(lengths, room), strict=True):
      part, tokens = (
        self.template.parts[number],
        np.flatnonzero(parts == number),
      )
      from_start = isinstance(part, Field) and part.from_start
      lost = tokens[: len(tokens) - count] if from_start else tokens[count:]
      keep[lost] = False
    return positions[keep]

  def target(self, answers: Sequence[str]) -> str:
    """Write the target text of answers, one for each mask, see `FORMATS`.

    Raises:
      ValueError: the number of answers is wrong; or, in a plain target, an
        answer has no space before it, which a text cannot express.
    """
    if len(answers) != self.template.masks:
      raise ValueError(
        f"{self.template.place}: {len(answers)} answers for "
        f"{self.template.masks} masks; expected one for each mask."
      )
    return target(answers, self.format)

  def describe(self, lengths: Sequence[int]) -> list[str]:
    """Name the parts that have tokens in a row.

    Args:
      lengths: tokens of every part.

    Returns:
      A name for every part, such as `mask 0`, `field text_a`.
    """
    names = []
    for part, ids, length in zip(
      self.template.parts, self._constant, lengths, strict=True
    ):
      name = _name(part)
      if isinstance(part, Soft) and ids and length:
        first, last = min(ids) - FIRST_SOFT, max(ids) - FIRST_SOFT
        name = f"soft {first}" + f" to {last}" * (last > first)
        name += f" {part.words!r}" * (part.words is not None)
      names.append(name)
    return names

  def _text(self, number: int, values: Values) -> str:
    """Return a part's text in a row, for people and, of a field, to encode."""
    part = self.template.parts[number]
    if isinstance(part, Text):
      return part.text
    if isinstance(part, Mask):
      return mask_text(part.number) * (self.format == SENTINEL)
    if isinstance(part, Soft):
      ids = self._constant[number] or []
      return " ".join(f"[soft {token - FIRST_SOFT}]" for token in ids)
    if isinstance(part, Options):
      return part.write(self._choices(part, values))
    return self._field(part.name, values)

  def _choices(self, part: Options, values: Values) -> list[str]:
    if len(part.fields) > 1:
      return [self._field(name, values) for name in part.fields]
    value = self._value(part.fields[0], values)
    return [value] if isinstance(value, str) else list(value)

  def _field(self, name: str, values: Values) -> str:
    value = self._value(name, values)
    if not isinstance(value, str):
      raise ValueError(
        f"{self.template.place}: field {name!r} is a list; expected a text. "
        "Only the slot 'options' takes a list."
      )
    return value

  def _value(self, name: str, values: Values) -> str | Sequence[str]:
    if name not in values:
      raise ValueError(
        f"{self.template.place}: a row has no field {name!r}; it has: "
        f"{', '.join(values)}."
      )
    return values[name]


def mask_text(number: int) -> str:
  """Return the sentinel of a mask."""
  return f"<extra_id_{number}>"


def target(answers: Sequence[str], format: str) -> str:
  """Write the target text of the masks' answers, see `FORMATS`.

  Args:
    answers: one for each mask; `<!>` before one without a space before it.
    format: `sentinel` or `plain`.

  Raises:
    ValueError: in a plain target, an answer has no space before it.
  """
  words = [
    answer.removeprefix(NO_BLANK)
    if answer.startswith(NO_BLANK)
    else f" {answer}"
    for answer in answers
  ]
  if format == SENTINEL:
    pairs = (f"{mask_text(k)}{word}" for k, word in enumerate(words))
    return " ".join(pairs)
  if not words[0].startswith(" "):
    raise ValueError(
      f"Label word {answers[0]!r} has no space before it, but a plain target "
      "begins with a space. Choose another word, or set target_format to "
      "'sentinel'."
    )
  return words[0].strip()


def word_start(format: str, encode: Encode) -> tuple[int, ...]:
  """Return the ids before the answer in a target with one mask.

  Args:
    format: `sentinel` or `plain`.
    encode: a vocabulary's.
  """
  return tuple(encode(mask_text(0))) if format == SENTINEL else ()


def text_ids(encode: Encode, text: str, blank: bool) -> list[int]:
  """Tokenise text as plain text, even if it looks like markup.

  Args:
    encode: a vocabulary's.
    text: any text.
    blank: whether its first piece begins a word.
  """
  ids: list[int] = []
  for number, chunk in enumerate(_INSIDE_MARKUP.split(text)):
    if not chunk.strip():
      continue
    if blank and not number:
      ids += encode(chunk)
    else:
      ids += list(encode(_ANCHOR + chunk))[len(_anchor(encode)) :]
  return ids


@functools.lru_cache(maxsize=8)
def _anchor(encode: Encode) -> tuple[int, ...]:
  return tuple(encode(_ANCHOR))


def levels(lengths: Sequence[int], room: int) -> list[int]:
  """Cut the longest of some lengths until their sum fits.

  Args:
    lengths: any lengths.
    room: largest sum.

  Returns:
    Lengths, none longer than before. If equal lengths cannot share the rest
    evenly, the first ones keep one more.
  """
  if sum(lengths) <= room:
    return list(lengths)
  left, others, cap = room, len(lengths), 0
  for length in sorted(lengths):
    if length * others > left:
      cap = left // others
      break
    left -= length
    others -= 1
  more = left - cap * others
  result = []
  for length in lengths:
    extra = int(length > cap and more > 0)
    more -= extra
    result.append(min(length, cap + extra))
  return result


def check_format(template: Template, format: str) -> None:
  """Insist on a known format that fits a template.

  Raises:
    ValueError: the format is unknown, or it is plain with several masks.
  """
  if format not in FORMATS:
    raise ValueError(
      f"Target format {format!r}: expected one of {', '.join(FORMATS)}."
    )
  if format == PLAIN and template.masks > 1:
    raise ValueError(
      f"{template.place}: {template.masks} masks; a plain target answers only "
      "one. Set target_format to 'sentinel'."
    )


def _soft_ids(
  part: Soft,
  encode: Callable[[str], Sequence[int]],
  starts: list[int | None],
  shared: dict[int, list[int]],
) -> list[int]:
  """Number the virtual tokens of a part; new ones are added to `starts`."""
  if part.key is not None and part.key in shared:
    return shared[part.key]
  pieces: list[int | None] = [None]
  if part.words is not None:
    pieces = list(encode(part.words))
  times = 1 if part.same else part.count
  first = FIRST_SOFT + len(starts)
  starts += pieces * times
  ids = list(range(first, FIRST_SOFT + len(starts)))
  if part.same:
    ids *= part.count
  if part.key is not None:
    shared[part.key] = ids
  return ids


def _name(part: Part) -> str:
  if isinstance(part, Text):
    return "text"
  if isinstance(part, Mask):
    return f"mask {part.number}"
  if isinstance(part, Soft):
    return "soft"
  if isinstance(part, Options):
    return f"options {', '.join(part.fields)}"
  return f"field {part.name}" + " (may be shortened)" * part.shorten
