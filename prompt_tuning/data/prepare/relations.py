"""The official files of relations, with the positions of their arguments.

Arguments of a sentence are given by their positions; markup in the text itself
is ordinary text.
"""

import itertools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.core import plain_text
from prompt_tuning.data import tables
from prompt_tuning.data.catalog.relation import LISTS, NO_RELATION
from prompt_tuning.data.metrics.relation import UNANSWERABLE
from prompt_tuning.data.prepare.fields import Example, check_label, get
from prompt_tuning.data.prepare.layouts import Builder, Converted
from prompt_tuning.prompting.rules import NA

# Chen et al.'s (2022) markers of the subject and of the object.
_MARKERS = (("[E1]", "[/E1]"), ("[E2]", "[/E2]"))
_SENTENCE = re.compile(r'(\d+)\t"?(.*?)"?\s*')
_TAGS = re.compile(r"(.*)<e1>(.+)</e1>(.*)<e2>(.+)</e2>(.*)")


class _Span(NamedTuple):
  """Position of an argument: its first token, and the token after its last."""

  start: int
  end: int


class TokenSpans(Converted):
  """JSONL with `token`, `h` and `t` (`name`, `pos`: end exclusive), `relation`.

  Source: the files of Chen et al. 2022.
  """

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every sentence."""
    del split
    for number, (place, row) in enumerate(tables.read(str(path))):
      words = _words(place, row)
      spans = [
        self._span(place, get(place, row, key, dict), key, words)
        for key in ("h", "t")
      ]
      values = _sentence(words, *spans)
      values["label"] = _label(place, row, builder)
      yield Example(place, number, values)

  def _span(
    self, place: str, entity: Mapping[str, Any], key: str, words: Sequence[str]
  ) -> _Span:
    pos = get(place, entity, "pos", list)
    if len(pos) != 2:
      raise ValueError(f"{place}: {key}.pos: expected two numbers, got {pos}.")
    span = _insist_inside(place, f"{key}.pos", pos[0], pos[1], words)
    name = get(place, entity, "name", str)
    there = " ".join(words[span.start : span.end])
    if name != there:
      raise ValueError(
        f"{place}: {key}.name is {name!r}, but at {pos} the text has {there!r}."
      )
    return span


class Tacred(Converted):
  """A JSON list with `token`, `subj_start`, `subj_end` (inclusive), ...

  Source: TACRED's distribution; Re-TACRED's and TACREV's, once their labels are
  put in.
  """

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every sentence."""
    del split
    for place, row in tables.read(str(path)):
      words = _words(place, row)
      spans = [
        _insist_inside(
          place,
          f"{key}_start, {key}_end",
          get(place, row, f"{key}_start", int),
          get(place, row, f"{key}_end", int) + 1,
          words,
        )
        for key in ("subj", "obj")
      ]
      values = _sentence(words, *spans)
      values["subject_type"] = get(place, row, "subj_type", str)
      values["object_type"] = get(place, row, "obj_type", str)
      values["label"] = _label(place, row, builder)
      yield Example(place, get(place, row, "id", str), values)


class SemEval(Converted):
  """The task's own text: a numbered sentence with tags, its relation, ..."""

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every sentence."""
    del split
    lines = [line.rstrip("\r\n") for line in plain_text.lines(str(path))]
    number = 0
    while number < len(lines):
      if not lines[number].strip():
        number += 1
        continue
      place = f"{path}:{number + 1}"
      head = _SENTENCE.fullmatch(lines[number])
      tagged = _TAGS.fullmatch(head[2]) if head else None
      if not head or not tagged or number + 1 == len(lines):
        raise ValueError(
          f"{place}: expected a number, a tab, a sentence with <e1>...</e1> "
          "and <e2>...</e2>, and its relation in the next line; got "
          f"{lines[number]!r:.160}."
        )
      values = _tagged(tagged.groups())
      row = {"relation": lines[number + 1].strip()}
      values["label"] = _label(f"{path}:{number + 2}", row, builder)
      yield Example(place, int(head[1]), values)
      number += 2
      if number < len(lines) and lines[number].startswith("Comment"):
        number += 1


class Dialogues(Converted):
  """DialogRE's JSON: `[turns, [{x, y, x_type, y_type, r, t}, ...]]` in a list.

  A row is a pair of arguments, whose label is its first relation.

  Attributes:
    every_turn: whether a pair has one row per turn, with the dialogue up to
      that turn, as F1c needs; otherwise one row with the whole dialogue.
  """

  def __init__(self, every_turn: bool = False):
    self.every_turn = every_turn

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every pair, perhaps after every turn."""
    del split
    text = "".join(plain_text.lines(str(path)))
    names = builder.info.features["label"].names
    for i, dialogue in enumerate(plain_text.json_value(str(path), text)):
      at = f"{path}: [{i}]"
      if not isinstance(dialogue, list) or len(dialogue) != 2:
        raise ValueError(
          f"{at}: expected the turns and the pairs, got {dialogue!r:.80}."
        )
      turns, pairs = dialogue
      for j, pair in enumerate(pairs):
        place = f"{at}[1][{j}]"
        values = _pair(place, pair, names)
        for turn, (evaluable, seen) in enumerate(_judged(turns, pair), 1):
          if not self.every_turn and turn < len(turns):
            continue
          key = f"{i}/{j}"
          yield Example(
            place,
            f"{key}/{turn}",
            {
              **values,
              "text": " ".join(turns[:turn]),
              "pair": key,
              "evaluable": evaluable,
              "arguments_seen": int(seen),
            },
          )


def _pair(place: str, pair: Any, names: Sequence[str]) -> dict[str, Any]:
  """Read a pair of arguments and its relations."""
  relations = get(place, pair, "r", list)
  triggers = get(place, pair, "t", list)
  if not relations or len(relations) != len(triggers):
    raise ValueError(
      f"{place}: {len(relations)} relations (r) and {len(triggers)} triggers "
      "(t); expected equal numbers, at least one."
    )
  for relation in relations:
    check_label(place, relation, names)
  return {
    "subject": get(place, pair, "x", str),
    "object": get(place, pair, "y", str),
    "subject_type": get(place, pair, "x_type", str),
    "object_type": get(place, pair, "y_type", str),
    LISTS[0]: list(relations),
    "label": relations[0],
  }


def _judged(
  turns: Sequence[str], pair: Mapping[str, Any]
) -> Iterator[tuple[list[str], bool]]:
  """Yield what can be judged after every turn, see `conversational_f1`.

  Yields:
    The relations of the pair that can be judged, and whether all others can.
  """
  arguments = {pair[name].lower().strip() for name in ("x", "y")}
  trigger_of = {
    relation: trigger.lower().strip()
    for relation, trigger in zip(pair["r"], pair["t"], strict=True)
    if relation != UNANSWERABLE
  }
  said: set[str] = set()
  for number, turn in enumerate(turns, 1):
    text, is_last = turn.lower(), number == len(turns)
    named = (*arguments, *filter(None, trigger_of.values()))
    said |= {words for words in named if words in text}
    seen = is_last or arguments <= said
    yield (
      [r for r, t in trigger_of.items() if is_last or (seen and t in said)],
      seen,
    )


def _words(place: str, row: Mapping[str, Any]) -> list[str]:
  words: list[str] = get(place, row, "token", list)
  if not all(isinstance(word, str) for word in words):
    raise ValueError(f"{place}: token: expected texts, got {words!r:.80}.")
  return words


def _insist_inside(
  place: str, what: str, start: Any, end: Any, words: Sequence[str]
) -> _Span:
  if not (type(start) is type(end) is int and 0 <= start < end <= len(words)):
    raise ValueError(
      f"{place}: {what}: tokens {start} up to {end} are not in the sentence, "
      f"which has {len(words)}."
    )
  return _Span(start, end)


def _label(place: str, row: Mapping[str, Any], builder: Builder) -> str:
  names = builder.info.features["label"].names
  label: str = get(place, row, "relation", str)
  if label == NA and NO_RELATION in names:
    return NO_RELATION
  check_label(place, label, names)
  return label


def _sentence(
  words: Sequence[str], subject: _Span, object_: _Span
) -> dict[str, Any]:
  """Write a sentence, plain and marked, see `catalog.relation`."""
  marked = list(words)
  # The shorter argument goes inside the longer one.
  spans = sorted(
    zip((subject, object_), _MARKERS, strict=True),
    key=lambda pair: pair[0].end - pair[0].start,
  )
  for span, (opening, closing) in spans:
    marked[span.start] = f"{opening} {marked[span.start]}"
    marked[span.end - 1] += f" {closing}"
  first, second = sorted((subject, object_))
  if second.start < first.end:  # inseparable
    end = max(first.end, second.end)
    first, second = _Span(first.start, end), _Span(end, end)
  bounds = (0, *first, *second, len(words))
  pieces = [
    " ".join(marked[start:end]) for start, end in itertools.pairwise(bounds)
  ]
  arguments = [" ".join(words[s.start : s.end]) for s in (subject, object_)]
  return _values(" ".join(words), arguments, pieces)


def _tagged(texts: Sequence[str]) -> dict[str, Any]:
  """Write a sentence whose arguments are tagged, the subject first."""
  before, subject, between, object_, after = texts
  marked = [
    f"{opening} {text.strip()} {closing}"
    for text, (opening, closing) in zip(
      (subject, object_), _MARKERS, strict=True
    )
  ]
  pieces = [before.strip(), marked[0], between.strip(), marked[1]]
  arguments = [subject.strip(), object_.strip()]
  return _values("".join(texts), arguments, [*pieces, after.strip()])


def _values(
  text: str, arguments: Sequence[str], pieces: Sequence[str]
) -> dict[str, Any]:
  names = ("before", "first", "between", "second", "after")
  return {
    "text": text,
    "subject": arguments[0],
    "object": arguments[1],
    "subject_type": "",
    "object_type": "",
    "marked": " ".join(filter(None, pieces)),
    **dict(zip(names, pieces, strict=True)),
  }
