"""Templates: text with slots, in OpenPrompt's spelling.

  A {"mask"} news : {"placeholder": "text_a"} {"soft": "It was"} {"mask"} .

A slot is a JSON object. As in OpenPrompt, a name may have no value, and `True`
is allowed for `true`. Neither a template nor the text of a row is ever
evaluated.

  {"field": "premise"}          a field of the row; `"shorten": true` lets it
                                lose its end in a long input, `"shorten":
                                "start"` its start
  {"placeholder": "text_a"}     a field; shortened unless `"shortenable": false`
  {"meta": "word"}              a field; whole unless `"shortenable": true`
  {"mask"}, {"mask": 1}         the place of an answer; numbered in order
  {"soft"}, {"soft": 10}        one virtual token, or ten
  {"soft": "It was"}            one for each piece, which starts as the piece
  {"soft": "the", "id": 3}      the same tokens at every place with this id
  {"options": ["a", "b"]}       fields, or one that is a list: `A. this B. that`
  {"text": "{"}                 the text as it is

Source: OpenPrompt's `Template.parse_text`. Deviations: there is no `eval`, so
no `post_processing`, whose values are lambdas. Any other key is an error.
"""

import dataclasses
import json
import pathlib
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_tuning.core import plain_text, tree

_NAMES = {"true": True, "false": False, "null": None}
# A kind of slot -> the other keys that it may have.
_KEYS: Mapping[str, tuple[str, ...]] = {
  "field": ("shorten",),
  "placeholder": ("shortenable",),
  "meta": ("shortenable",),
  "mask": ("shortenable",),
  "soft": ("id", "soft_id", "duplicate", "same", "shortenable"),
  "options": (),
  "text": ("shortenable",),
}
_MOST_SOFT = 10_000
_START = "start"  # instead of true: the field loses its start
LETTERS = string.ascii_uppercase


@dataclasses.dataclass(frozen=True)
class Text:
  """Text that is the same in every row.

  Attributes:
    blank: whether a space stands before it; all other parts say this, too.
    text: the text without spaces around it.
  """

  blank: bool
  text: str


@dataclasses.dataclass(frozen=True)
class Field:
  """A field of the row.

  Attributes:
    blank: see `Text`.
    name: name of the field.
    shorten: whether it may lose its end if the input is too long.
    from_start: whether it loses its start instead.
  """

  blank: bool
  name: str
  shorten: bool = False
  from_start: bool = False


@dataclasses.dataclass(frozen=True)
class Mask:
  """The place of an answer.

  Attributes:
    blank: see `Text`.
    number: from 0.
  """

  blank: bool
  number: int


@dataclasses.dataclass(frozen=True)
class Soft:
  """Virtual tokens.

  Attributes:
    blank: see `Text`.
    words: the words as which they start; None for none.
    count: number of tokens or, with words, how often the words are repeated.
    key: parts with the same key share their tokens; None shares with none.
    same: whether all repetitions are the same tokens.
  """

  blank: bool
  words: str | None = None
  count: int = 1
  key: int | None = None
  same: bool = False


@dataclasses.dataclass(frozen=True)
class Options:
  """Choices with their letters.

  Attributes:
    blank: see `Text`.
    fields: fields with one choice each, or one field with a list of choices.
  """

  blank: bool
  fields: tuple[str, ...]

  def write(self, choices: Sequence[str]) -> str:
    """Write the choices of a row: `A. this B. that`.

    Raises:
      ValueError: there are more choices than letters.
    """
    if len(choices) > len(LETTERS):
      raise ValueError(
        f"{len(choices)} options; expected at most {len(LETTERS)}, because "
        "each needs a letter."
      )
    pairs = zip(LETTERS, choices, strict=False)
    return " ".join(f"{letter}. {choice}" for letter, choice in pairs)


Part = Text | Field | Mask | Soft | Options


@dataclasses.dataclass(frozen=True)
class Template:
  """A parsed template.

  Attributes:
    parts: its parts in order.
    source: the text that was parsed.
    place: its file and line, for errors.
  """

  parts: tuple[Part, ...]
  source: str
  place: str = dataclasses.field(default="Template", compare=False)

  @property
  def masks(self) -> int:
    """Number of masks, at least 1."""
    return sum(isinstance(part, Mask) for part in self.parts)

  @property
  def has_soft(self) -> bool:
    """Whether it has soft tokens."""
    return any(isinstance(part, Soft) for part in self.parts)

  @property
  def fields(self) -> tuple[str, ...]:
    """Names of the fields that a row must have."""
    names: list[str] = []
    for part in self.parts:
      if isinstance(part, Field):
        names.append(part.name)
      elif isinstance(part, Options):
        names.extend(part.fields)
    return tuple(dict.fromkeys(names))


def parse(source: str, place: str = "Template") -> Template:
  """Parse a template.

  Args:
    source: see the module.
    place: its place, such as `FILE:LINE`, for errors.

  Raises:
    ValueError: there is no mask, a key is unknown, there is a lambda, or a slot
      is not JSON. Says where, and what was expected.
  """
  reader = _Reader(source, place)
  parts: list[Part] = []
  masks: list[int | None] = []
  while not reader.at_end():
    blank = reader.skip_blanks() or not parts or isinstance(parts[-1], Soft)
    if reader.at_end():
      break
    if not reader.at_slot():
      parts.append(Text(blank, reader.read_text()))
      continue
    slot = reader.read_slot()
    part = _part(slot, blank, place)
    if isinstance(part, Mask):
      masks.append(slot["mask"])
    parts.append(part)
  numbers = iter(_mask_numbers(masks, place, source))
  numbered = tuple(
    dataclasses.replace(part, number=next(numbers))
    if isinstance(part, Mask)
    else part
    for part in parts
  )
  _check_shared(numbered, place)
  return Template(numbered, source, place)


def compose(sources: Sequence[str], place: str = "Template") -> Template:
  """Join several templates to one.

  Args:
    sources: templates, each with any number of masks. Masks are numbered
      through all of them; together they need at least one.
    place: their place, for errors.

  Raises:
    ValueError: one of them is wrong, and the message says which; or a mask has
      a number.
  """
  if isinstance(sources, str) or not all(map(str.strip, sources)):
    raise ValueError(
      f"{place}: expected a list of texts, none empty, got {sources!r:.80}."
    )
  template = parse(" ".join(sources), place)
  numbers = [part.number for part in template.parts if isinstance(part, Mask)]
  if numbers != sorted(numbers):
    raise ValueError(
      f"{place}: masks {numbers}; masks of sub-prompts get their numbers in "
      'order. Write {"mask"}.'
    )
  return template


def read(path: str, choice: int = 0) -> Template:
  """Read one template from a file with one template per line.

  Args:
    path: any text file; empty lines do not count.
    choice: number of the template, from 0.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: there is no such template, it is wrong, or templates of the file
      have different numbers of masks, although all are for one task. Says file
      and line.
  """
  if pathlib.Path(path).suffix.lower() in (".json", ".jsonl"):
    raise ValueError(f"{path}: expected text, a template per line, not JSON.")
  lines = {
    f"{path}:{number}": line
    for number, line in enumerate(plain_text.text_lines(path), 1)
    if line.strip()
  }
  if not 0 <= choice < len(lines):
    raise ValueError(
      f"{path}: has {len(lines)} templates, numbered from 0; there is no "
      f"template {choice}."
    )
  place, source = list(lines.items())[choice]
  template = parse(source, place)
  for other_place, other_source in lines.items():
    try:
      other = parse(other_source, other_place)
    except ValueError:
      continue  # nobody asked for it
    if other.masks != template.masks:
      raise ValueError(
        f"{place} has masks: {template.masks}, and {other_place}: "
        f"{other.masks}. Templates of one task need the same number of masks."
      )
  return template


class _Reader:
  """Walks over a template's characters."""

  def __init__(self, source: str, place: str):
    self._source = source
    self._place = place
    self._at = 0

  def at_end(self) -> bool:
    return self._at >= len(self._source)

  def at_slot(self) -> bool:
    return self._source[self._at] == "{"

  def skip_blanks(self) -> bool:
    start = self._at
    while not self.at_end() and self._source[self._at].isspace():
      self._at += 1
    return self._at > start

  def read_text(self) -> str:
    end = self._source.find("{", self._at)
    end = len(self._source) if end < 0 else end
    text = self._source[self._at : end].rstrip()
    self._at += len(text)
    return text

  def read_slot(self) -> dict[str, Any]:
    """Read a JSON object whose names may lack values."""
    start = self._at
    slot: dict[str, Any] = {}
    self._at += 1
    while True:
      self.skip_blanks()
      name = self._value(start, "a name in quotes")
      if not isinstance(name, str):
        raise self._error(start, f"expected a name in quotes, got {name!r}")
      if name in slot:
        raise self._error(start, f"{name!r} stands twice")
      _check_key(name, self._place)
      self.skip_blanks()
      slot[name] = None
      if self._accept(":"):
        self.skip_blanks()
        slot[name] = self._value(start, f"a JSON value of {name!r}")
        self.skip_blanks()
      if self._accept("}"):
        return slot
      if not self._accept(","):
        raise self._error(start, "expected ',' or '}'")

  def _accept(self, character: str) -> bool:
    if self._source.startswith(character, self._at):
      self._at += 1
      return True
    return False

  def _value(self, start: int, what: str) -> Any:
    for name, value in _NAMES.items():
      for spelling in (name, name.capitalize()):
        if self._source.startswith(spelling, self._at):
          self._at += len(spelling)
          return value
    if self._source.startswith("None", self._at):
      self._at += len("None")
      return None
    try:
      value, self._at = json.JSONDecoder().raw_decode(self._source, self._at)
    except (ValueError, RecursionError) as error:
      raise self._error(start, f"expected {what}") from error
    return value

  def _error(self, start: int, what: str) -> ValueError:
    return ValueError(
      f"{self._place}: {what} at column {self._at + 1}, in the slot "
      f"{self._source[start : start + 60]!r}."
    )


def _check_key(name: str, place: str) -> None:
  """Refuse keys that no slot has, above all a lambda."""
  if name == "post_processing":
    raise ValueError(
      f"{place}: 'post_processing' is a lambda, and code in a template is "
      "never run. Remove the key; if needed, change the text in the data."
    )
  if name == "special":
    raise ValueError(
      f"{place}: 'special' names a token of another model's vocabulary; T5 "
      "has no token that separates texts. Remove the slot."
    )
  known = {*_KEYS, *(key for keys in _KEYS.values() for key in keys)}
  if name not in known:
    raise ValueError(
      f"{place}: unknown key {name!r}.{tree.nearest(name, known)} Known: "
      f"{', '.join(sorted(known))}."
    )


def _part(slot: dict[str, Any], blank: bool, place: str) -> Part:
  """Make the part that a slot describes."""
  if "soft_id" in slot:
    slot = {"soft": None, **slot}
  kinds = [name for name in slot if name in _KEYS]
  if len(kinds) != 1:
    raise ValueError(
      f"{place}: a slot of {' and '.join(kinds) or 'no kind'}; expected one of "
      f"{', '.join(_KEYS)}."
    )
  kind = kinds[0]
  for key in slot:
    if key not in (kind, *_KEYS[kind]):
      raise ValueError(
        f"{place}: a slot {kind!r} has no key {key!r}; it may have: "
        f"{', '.join(_KEYS[kind]) or 'no other'}."
      )
  for key in ("shorten", "shortenable", "same"):
    value = slot.get(key, False)
    if not (isinstance(value, bool) or (key, value) == ("shorten", _START)):
      raise ValueError(
        f"{place}: {key!r}: expected true or false"
        + (f", or {_START!r}." if key == "shorten" else ".")
      )
  return _MAKE[kind](slot, blank, place)


def _field(
  kind: str, slot: Mapping[str, Any], blank: bool, place: str
) -> Field:
  shorten = slot.get("shorten", slot.get("shortenable", kind == "placeholder"))
  name = _text(kind, slot[kind], place)
  return Field(blank, name, bool(shorten), shorten == _START)


def _mask(slot: Mapping[str, Any], blank: bool, place: str) -> Mask:
  number = slot["mask"]
  if number is not None and (type(number) is not int or number < 0):
    raise ValueError(
      f"{place}: mask {number!r}: expected a whole number, 0 or more."
    )
  _insist_whole("mask", slot, place)
  return Mask(blank, number or 0)


def _soft(slot: Mapping[str, Any], blank: bool, place: str) -> Soft:
  value = slot["soft"]
  if "id" in slot and "soft_id" in slot:
    raise ValueError(
      f"{place}: 'id' and 'soft_id' mean the same; give only one of them."
    )
  key = slot.get("id", slot.get("soft_id"))
  count = slot.get("duplicate", value if type(value) is int else 1)
  if type(value) is int and "duplicate" in slot:
    raise ValueError(
      f"{place}: 'soft' and 'duplicate' both give a number; give only one of "
      "them."
    )
  if value is not None and type(value) is not int:
    value = _text("soft", value, place)
  if type(count) is not int or not 1 <= count <= _MOST_SOFT:
    raise ValueError(
      f"{place}: soft tokens: expected 1 to {_MOST_SOFT}, got {count!r}."
    )
  if key is not None and type(key) is not int:
    raise ValueError(f"{place}: soft id {key!r}: expected a whole number.")
  _insist_whole("soft", slot, place)
  words = value if isinstance(value, str) else None
  return Soft(blank, words, count, key, slot.get("same", False))


def _options(slot: Mapping[str, Any], blank: bool, place: str) -> Options:
  value = slot["options"]
  names = value if isinstance(value, list) else [value or "options"]
  if not names:
    raise ValueError(
      f"{place}: 'options' is an empty list; expected at least one field."
    )
  return Options(blank, tuple(_text("options", name, place) for name in names))


def _literal(slot: Mapping[str, Any], blank: bool, place: str) -> Text:
  text = _text("text", slot["text"], place)
  return Text(blank or text[0].isspace(), text.strip())


def _insist_whole(kind: str, slot: Mapping[str, Any], place: str) -> None:
  if slot.get("shortenable", False):
    raise ValueError(
      f"{place}: a slot of the kind {kind} cannot be shortened; remove "
      "'shortenable'."
    )


_MAKE: Mapping[str, Callable[[Mapping[str, Any], bool, str], Part]] = {
  "field": lambda *args: _field("field", *args),
  "placeholder": lambda *args: _field("placeholder", *args),
  "meta": lambda *args: _field("meta", *args),
  "mask": _mask,
  "soft": _soft,
  "options": _options,
  "text": _literal,
}


def _text(kind: str, value: Any, place: str) -> str:
  if not isinstance(value, str) or not value.strip():
    raise ValueError(f"{place}: {kind!r}: expected a text, got {value!r}.")
  return value


def _mask_numbers(
  given: Sequence[int | None], place: str, source: str
) -> list[int]:
  """Number masks in order, except those that have a number."""
  if not given:
    raise ValueError(
      f'{place}: no {{"mask"}} in {source!r:.80}; expected at least one, '
      "for the answer."
    )
  taken = {number for number in given if number is not None}
  free = (number for number in range(len(given)) if number not in taken)
  numbers = [next(free) if n is None else n for n in given]
  if sorted(numbers) != list(range(len(given))):
    raise ValueError(
      f"{place}: masks {numbers}; expected the numbers 0 to {len(given) - 1}, "
      "each once."
    )
  return numbers


def _check_shared(parts: Sequence[Part], place: str) -> None:
  """Insist that soft tokens of one id are the same everywhere."""
  first: dict[int, Soft] = {}
  for part in parts:
    if not isinstance(part, Soft) or part.key is None:
      continue
    other = first.setdefault(part.key, part)
    repeats = part.words is None and part.count == 1
    if not repeats and (part.words, part.count, part.same) != (
      other.words,
      other.count,
      other.same,
    ):
      raise ValueError(
        f"{place}: soft tokens of id {part.key} differ: {other.words!r} "
        f"({other.count}) and {part.words!r} ({part.count})."
      )
