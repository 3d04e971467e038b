"""Rules: for every class, the word at each mask of a template.

A class then combines conditions: `born in a city` is the word `person` at the
first mask, `born` at the second, and `city` at the third. Files have these
formats, and nothing in them is ever evaluated:

  class<TAB>word<TAB>word        a rule per line
  0<TAB>class<TAB>word<TAB>word  PTR's lists; the number is a template's, which
                                 a task here has one of, and is not read
  {"class": ["word", "word"]}    OpenPrompt's JSON

A line of PTR's lists may end with the name of a class that this class reverses
(as in OpenPrompt's list for SemEval). Then its words are for a sentence in
which head and tail are exchanged, see `Rules.exchanged`.

The class `NA` of a file means `no_relation` if the task has that class: files
of TACRED use both names.

Source: Han et al. 2021 (PTR). Deviation: its code, and OpenPrompt's, choose the
template by the example's true class, which is unknown without a label.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_tuning.core import plain_text, tree
from prompt_tuning.core.types import PAD_ID, UNK_ID
from prompt_tuning.prompting import label_words
from prompt_tuning.prompting.label_words import (
  NO_BLANK,
  Encode,
  Word,
  WordPieces,
)

_JSON_ENDINGS = (".json", ".jsonl")
_TEXT_ENDINGS = (".tsv", ".txt")
_SENTINEL = "<extra_id_"
# The same class in the files of Chen et al. (2022) and in TACRED.
NA, NO_RELATION = "NA", "no_relation"
SEVERAL = -1  # in place of an id, for words of several pieces


@dataclasses.dataclass(frozen=True)
class Rules:
  """The rule of every class.

  Attributes:
    classes: names, in the order of class ids.
    words: for every class, one word for each mask, in order.
    reverses: for every class, the class that its rule reverses, as long as its
      words are not at their masks yet; None for most classes.
    places: `FILE:LINE` of every class, for errors; empty if the rules are not
      from a file.
  """

  classes: tuple[str, ...]
  words: tuple[tuple[str, ...], ...]
  reverses: tuple[str | None, ...]
  places: tuple[str, ...] = dataclasses.field(default=(), compare=False)

  def __post_init__(self) -> None:
    if len(self.classes) < 2:
      raise ValueError(
        f"{self.places[0] if self.places else 'Rules'}: {len(self.classes)} "
        "rule; expected one for each of two or more classes."
      )
    for number, name in enumerate(self.classes):
      if name in self.classes[:number]:
        raise ValueError(
          f"{self.place(number)}: class {name!r} occurs twice; give each "
          "class once."
        )
      words = self.words[number]
      if not words or not all(w.removeprefix(NO_BLANK) for w in words):
        raise ValueError(
          f"{self.place(number)}: words "
          f"{', '.join(map(repr, words)) or 'none'}; expected one for each "
          "mask of the template, none of them empty."
        )
      if any(_SENTINEL in word for word in words):
        raise ValueError(
          f"{self.place(number)}: words {', '.join(map(repr, words))} contain "
          "a sentinel, which separates the words of a target. Remove it."
        )

  @classmethod
  def of(
    cls, words: Mapping[str, Sequence[str]], places: Sequence[str] = ()
  ) -> "Rules":
    """Make rules from plain values.

    Args:
      words: class -> a word for each mask. Spaces around a word are dropped.
      places: see the class.

    Raises:
      ValueError: a rule is not a list of words, a word is empty, or there are
        fewer than two classes.
    """
    for number, (name, of_class) in enumerate(words.items()):
      is_list = isinstance(of_class, Sequence) and not isinstance(of_class, str)
      if not is_list or not all(isinstance(word, str) for word in of_class):
        place = f"{places[number]}: " if places else ""
        raise ValueError(
          f"{place}the rule of class {name!r}: expected a list with a word for "
          f"each mask, got {of_class!r:.80}."
        )
    return cls(
      tuple(words),
      tuple(tuple(map(str.strip, of_class)) for of_class in words.values()),
      (None,) * len(words),
      tuple(places),
    )

  def place(self, number: int) -> str:
    """Return file, line and class of a rule, for errors."""
    name = f"rule of {self.classes[number]!r}"
    return f"{self.places[number]}: {name}" if self.places else f"The {name}"

  def in_order(self, classes: Sequence[str]) -> "Rules":
    """Put the rules into the order of a task's classes.

    Args:
      classes: those of the task.

    Raises:
      ValueError: a rule is for a class that the task does not have, or a class
        has no rule.
    """
    for number, name in enumerate(self.classes):
      if name not in classes:
        raise ValueError(
          f"{self.place(number)}: the data has no such "
          f"class.{tree.nearest(name, classes)} It has: {', '.join(classes)}. "
          "Set `classes` if the rules have other names for the data's classes."
        )
    for name in classes:
      if name not in self.classes:
        file = self.places[0].rpartition(":")[0] if self.places else "rules"
        raise ValueError(
          f"{file}: no rule for class {name!r}; expected one for each class "
          "of the data."
        )
    order = [self.classes.index(name) for name in classes]
    return self._take(order)

  def insist_on(self, masks: int, template: str) -> None:
    """Insist on a word for each mask.

    Args:
      masks: number of masks of the template.
      template: file and line of the template, for errors.

    Raises:
      ValueError: a rule has more or fewer words.
    """
    for number, words in enumerate(self.words):
      if len(words) != masks:
        raise ValueError(
          f"{self.place(number)}: {len(words)} words ({', '.join(words)}), "
          f"but {template} has {masks} masks; expected one word for each mask."
        )

  def exchanged(
    self, order: Sequence[int], classes: Sequence[str] = ()
  ) -> "Rules":
    """Move the words of reversed rules to the masks where they belong.

    The text is the same for all classes and names the head first. The rule of a
    relation from the tail to the head may be written like the rule that it
    reverses. Then its words belong to other masks: its word for the head
    answers the mask of the tail.

    Args:
      order: for every mask, the number of the rule's word that answers it, such
        as (1, 0) if the first mask is about the head and the second about the
        tail; empty if no rule is reversed.
      classes: classes with reversed rules, besides those that a file marks.

    Raises:
      ValueError: there are reversed rules without an order, or an order without
        reversed rules; the order has another number of masks; or a class is
        unknown.
    """
    for name in classes:
      if name not in self.classes:
        raise ValueError(
          f"reversed_classes: no rule of {name!r}."
          f"{tree.nearest(name, self.classes)}"
        )
    numbers = [
      number
      for number, name in enumerate(self.classes)
      if name in classes or self.reverses[number] is not None
    ]
    if numbers and not order:
      raise ValueError(
        f"{self.place(numbers[0])} is reversed: head and tail change places. "
        "Set `reversed_order` to say which of its words answers each mask, "
        "for instance (1, 0) if the first mask is about the head and the "
        "second about the tail."
      )
    if order and not numbers:
      raise ValueError(
        "reversed_order is set, but no rule is reversed: set reversed_classes "
        "too."
      )
    words = list(self.words)
    for number in numbers:
      if sorted(order) != list(range(len(words[number]))):
        raise ValueError(
          f"reversed_order {tuple(order)}: expected the numbers 0 to "
          f"{len(words[number]) - 1}, each once."
        )
      words[number] = tuple(words[number][k] for k in order)
    return dataclasses.replace(
      self, words=tuple(words), reverses=(None,) * len(words)
    )

  def with_substitutes(self, substitutes: Mapping[str, str]) -> "Rules":
    """Replace some words by others.

    Args:
      substitutes: word -> the word that replaces it in all rules.

    Raises:
      ValueError: no rule has a word.
    """
    known = {word for words in self.words for word in words}
    for word in substitutes:
      if word not in known:
        raise ValueError(
          f"substitutes: no rule has the word {word!r}."
          f"{tree.nearest(word, known)}"
        )
    return dataclasses.replace(
      self,
      words=tuple(
        tuple(substitutes.get(word, word) for word in words)
        for words in self.words
      ),
    )

  def _take(self, order: Sequence[int]) -> "Rules":
    return Rules(
      tuple(self.classes[k] for k in order),
      tuple(self.words[k] for k in order),
      tuple(self.reverses[k] for k in order),
      tuple(self.places[k] for k in order) if self.places else (),
    )


@dataclasses.dataclass(frozen=True)
class RulePieces(WordPieces):
  """Rules as ids of a vocabulary.

  As label words, each class has one word: its whole target after the first
  sentinel. So a scorer of whole words scores the answers to all masks together.

  Attributes:
    at_masks: int32 [C, M], the id of the only piece of the word at every mask;
      `SEVERAL` where it has several.
    sentinels: [M], the id before the word at each mask.
    several: the words of several pieces.
  """

  at_masks: np.ndarray = dataclasses.field(kw_only=True)
  sentinels: tuple[int, ...] = dataclasses.field(kw_only=True)
  several: tuple[Word, ...] = dataclasses.field(kw_only=True, default=())

  @classmethod
  def of_rules(
    cls, rules: Rules, sentinels: Sequence[str], encode: Encode
  ) -> "RulePieces":
    """Cut the words of rules into pieces.

    Args:
      rules: those of all classes.
      sentinels: text of the sentinel of each mask.
      encode: a vocabulary's.

    Raises:
      ValueError: the vocabulary lacks a word, or two classes have the same
        words; names class, file and line.
    """
    ids = _ids(rules, encode)
    _insist_distinct(rules, ids)
    before = [list(encode(text)) for text in sentinels]
    rows = [
      [
        piece
        for pair in zip(before, words, strict=True)
        for part in pair
        for piece in part
      ]
      for words in ids
    ]
    start = tuple(before[0])
    rows = [row[len(start) :] for row in rows]
    pieces = np.full((len(rows), 1, max(map(len, rows))), PAD_ID, np.int32)
    for number, row in enumerate(rows):
      pieces[number, 0, : len(row)] = row
    at_masks = [
      [word[0] if len(word) == 1 else SEVERAL for word in words]
      for words in ids
    ]
    return cls(
      pieces,
      np.ones(pieces.shape[:2], np.float32),
      start,
      at_masks=np.array(at_masks, np.int32),
      sentinels=tuple(part[0] for part in before),
      several=several(rules, encode),
    )


class Survey(NamedTuple):
  """What one vocabulary makes of rules.

  Attributes:
    classes: number of classes.
    words: number of different words at every mask.
    several: words of several pieces, each once, with the first class that has
      it; a scorer that reads all masks at once loses them.
  """

  classes: int
  words: tuple[int, ...]
  several: tuple[Word, ...]

  def counts(self) -> dict[str, int]:
    """Return the numbers, for the table of many files."""
    return {
      "classes": self.classes,
      "masks": len(self.words),
      "words": sum(self.words),
      "several pieces": len(self.several),
    }

  def lines(self) -> list[str]:
    """Write the survey for people."""
    counts = ", ".join(map(str, self.words))
    first = f"{self.classes} rules of {len(self.words)} masks, which have "
    lines = [first + f"{counts} different words"]
    if self.several:
      texts = label_words.some(self.several)
      lines.append(
        f"{len(self.several)} words have several pieces; a scorer that reads "
        f"all masks at once cannot use them: {texts}"
      )
    return lines


def survey(rules: Rules, encode: Encode) -> Survey:
  """Count what a vocabulary makes of rules.

  Args:
    rules: rules with equal numbers of words.
    encode: a vocabulary's.

  Raises:
    ValueError: rules have different numbers of words, or the vocabulary lacks a
      word.
  """
  rules.insist_on(len(rules.words[0]), rules.place(0))
  _ids(rules, encode)
  columns = zip(*rules.words, strict=True)
  return Survey(
    len(rules.classes),
    tuple(len(set(column)) for column in columns),
    several(rules, encode),
  )


def several(rules: Rules, encode: Encode) -> tuple[Word, ...]:
  """List the words of several pieces, each with the first class that has it.

  Args:
    rules: any.
    encode: a vocabulary's.
  """
  found: dict[str, Word] = {}
  for name, words, ids in zip(
    rules.classes, rules.words, _ids(rules, encode), strict=True
  ):
    for word, pieces in zip(words, ids, strict=True):
      if len(pieces) > 1:
        found.setdefault(word, Word(name, word))
  return tuple(found.values())


def read(path: str, classes: Sequence[str] = ()) -> Rules:
  """Read rules from a file.

  Args:
    path: ends in `.tsv`, `.txt`, `.json` or `.jsonl`, see the module.
    classes: their names; empty for all classes of the file.

  Returns:
    The rules of these classes in their order, or of all in the file's order.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the ending is unknown, there are no rules, or they are for other
      classes. Says file, line and what was expected.
  """
  made = _read(path, classes)
  if NO_RELATION in classes and NA not in classes:
    names = [NO_RELATION if name == NA else name for name in made.classes]
    made = dataclasses.replace(made, classes=tuple(names))
  return made.in_order(classes) if classes else made


def looks_like(path: str) -> bool:
  """Say whether a file holds rules and not label words.

  Rules have tabs between words. In JSON both are lists of words. Those of rules
  have equal lengths, and may hold a word twice, which label words may not.

  Args:
    path: a text or JSON file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not text, or not JSON of classes.
  """
  if not path.lower().endswith(_JSON_ENDINGS):
    return any("\t" in line.strip() for line in plain_text.text_lines(path))
  lists = [e.words for entries in label_words.json_lists(path) for e in entries]
  if not all(isinstance(words, list) for words in lists):
    return False
  is_twice = any(len(set(map(str, words))) < len(words) for words in lists)
  return is_twice and len(set(map(len, lists))) == 1


def _read(path: str, classes: Sequence[str]) -> Rules:
  if path.lower().endswith(_JSON_ENDINGS):
    entries = label_words.json_lists(path)
    if len(entries) != 1:
      raise ValueError(
        f"{path}: {len(entries)} lists of rules; expected one JSON object, "
        '{"class": ["word", ...], ...}.'
      )
    _insist_once(entries[0])
    return Rules.of(
      {entry.name: entry.words for entry in entries[0]},
      [entry.place for entry in entries[0]],
    )
  if not path.lower().endswith(_TEXT_ENDINGS):
    raise ValueError(
      f"{path}: expected rules in a file ending in "
      f"{', '.join(_TEXT_ENDINGS + _JSON_ENDINGS)}."
    )
  return _read_lines(path, classes)


def _read_lines(path: str, classes: Sequence[str]) -> Rules:
  lines = {
    f"{path}:{number}": [cell.strip() for cell in line.split("\t")]
    for number, line in enumerate(plain_text.text_lines(path), 1)
    if line.strip()
  }
  # Class names differ, and there are only a few templates.
  first = {cells[0] for cells in lines.values()}
  numbered = all(map(str.isdigit, first)) and (
    len(first) < len(lines) or bool(classes and not first <= set(classes))
  )
  skip = 1 if numbered else 0
  for place, cells in lines.items():
    if len(cells) < skip + 2:
      raise ValueError(
        f"{place}: {len(cells)} cells; expected a class and its words, "
        "separated by tabs."
      )
  entries = [
    label_words.Entry(place, cells[skip], cells[skip + 1 :])
    for place, cells in lines.items()
  ]
  _insist_once(entries)
  reverses: list[str | None] = [None] * len(entries)
  if numbered:
    shortest = min((len(entry.words) for entry in entries), default=0)
    names = {entry.name for entry in entries}
    for k, entry in enumerate(entries):
      if len(entry.words) == shortest + 1 and entry.words[-1] in names:
        reverses[k] = entry.words[-1]
        entries[k] = entry._replace(words=entry.words[:-1])
  made = Rules.of(
    {entry.name: entry.words for entry in entries},
    [entry.place for entry in entries],
  )
  return dataclasses.replace(made, reverses=tuple(reverses))


def _insist_once(entries: Iterable[Any]) -> None:
  seen: set[str] = set()
  for entry in entries:
    if entry.name in seen:
      raise ValueError(
        f"{entry.place}: class {entry.name!r} occurs twice; give each class "
        "once."
      )
    seen.add(entry.name)


def _ids(rules: Rules, encode: Encode) -> list[list[list[int]]]:
  """Encode the words of every rule."""
  ids = [
    [label_words.word_ids(rules.place(number), w, encode) for w in words]
    for number, words in enumerate(rules.words)
  ]
  for number, words in enumerate(ids):
    for word, pieces in zip(rules.words[number], words, strict=True):
      if UNK_ID in pieces:
        raise ValueError(
          f"{rules.place(number)}: the vocabulary lacks characters of "
          f"{word!r}. Set `substitutes` to another word."
        )
  return ids


def _insist_distinct(rules: Rules, ids: list[list[list[int]]]) -> None:
  owners: dict[tuple[tuple[int, ...], ...], int] = {}
  for number, words in enumerate(ids):
    other = owners.setdefault(tuple(map(tuple, words)), number)
    if other != number:
      raise ValueError(
        f"{rules.place(number)} has the same words as {rules.place(other)}: "
        "the model cannot tell the two classes apart."
      )
