"""Label words: the words by which a model names a class.

`LabelWords` holds the words of a file. `WordPieces` holds the same words as ids
of a vocabulary, which a model can score. Before training, `survey` counts which
words a scorer would lose or confuse with others.

Files have OpenPrompt's formats: one class per line with commas between words
(`.txt`, `.csv`), or JSON (`.json`, `.jsonl`) with a class's name and its word
or words. A file may hold several lists, separated by an empty line, or as a
JSON list. Nothing in them is ever evaluated.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_tuning.core import plain_text, tree
from prompt_tuning.core.types import PAD_ID, UNK_ID

# Text -> ids, without EOS; a vocabulary's `encode`.
Encode = Callable[[str], Sequence[int]]

# OpenPrompt's mark of a word that follows no blank: `<!>A` is the piece `A`,
# `A` the piece `▁A`.
NO_BLANK = "<!>"
_ANCHOR = "<extra_id_0>"
_TEXT_ENDINGS, _JSON_ENDINGS = (".txt", ".csv"), (".json", ".jsonl")
_SHOWN = 5  # words that an error names


@dataclasses.dataclass(frozen=True)
class LabelWords:
  """The words of every class.

  Attributes:
    classes: names, in the order of class ids.
    words: those of every class: at least one, none twice in a class.
    weights: one for every word: finite, not negative, and not all 0 in a class.
    places: `FILE:LINE` of every class, for errors; empty if the words are not
      from a file.
  """

  classes: tuple[str, ...]
  words: tuple[tuple[str, ...], ...]
  weights: tuple[tuple[float, ...], ...]
  places: tuple[str, ...] = dataclasses.field(default=(), compare=False)

  def __post_init__(self) -> None:
    sizes = [len(words) for words in self.words]
    if not (len(self.classes) == len(self.words) == len(self.weights)):
      raise ValueError(
        f"Label words: {len(self.classes)} classes, {len(self.words)} lists "
        f"of words and {len(self.weights)} lists of weights; expected equal "
        "numbers."
      )
    if len(self.classes) < 2:
      raise ValueError(
        f"{_before(self.places)}{len(self.classes)} class; expected two or "
        "more, each with its words (in text, a line for each)."
      )
    for number, name in enumerate(self.classes):
      if name in self.classes[:number]:
        raise ValueError(
          f"{self.place(number)}: class {name!r} occurs twice; give each "
          "class once."
        )
      if len(self.weights[number]) != sizes[number]:
        raise ValueError(
          f"{self.place(number)}: {sizes[number]} words and "
          f"{len(self.weights[number])} weights; expected one weight for each "
          "word."
        )
      _check_class(self.place(number), self.words[number], self.weights[number])

  @property
  def only_common(self) -> tuple[int, ...]:
    """Numbers of the classes that share all their words with other classes.

    Words of weight 0 do not count.
    """
    count = Counter(word for words in self.words for word in words)
    return tuple(
      number
      for number, words in enumerate(self.words)
      if all(
        count[word] > 1
        for word, weight in zip(words, self.weights[number], strict=True)
        if weight
      )
    )

  @property
  def best(self) -> tuple[int, ...]:
    """For every class, the index of its first word of the largest weight."""
    return tuple(weights.index(max(weights)) for weights in self.weights)

  @classmethod
  def of(
    cls,
    words: Mapping[str, str | Sequence[str] | Mapping[str, float]],
    places: Sequence[str] = (),
  ) -> "LabelWords":
    """Make label words from plain values.

    Args:
      words: class -> its word, its words, or its words with weights (otherwise
        1). Spaces around a word and repeated words of a class are dropped.
      places: see the class.

    Raises:
      ValueError: a class has no word, an empty one or a bad weight, or there
        are fewer than two classes.
    """
    names = tuple(words)
    lists = [
      _weighted(places[number] if places else f"Class {name!r}", words[name])
      for number, name in enumerate(names)
    ]
    return cls(
      names,
      tuple(tuple(pairs) for pairs in lists),
      tuple(tuple(pairs.values()) for pairs in lists),
      tuple(places),
    )

  def place(self, number: int) -> str:
    """Return file, line and name of a class, for errors."""
    name = f"class {self.classes[number]!r}"
    return f"{self.places[number]}: {name}" if self.places else f"Label {name}"

  def without_common(self) -> "LabelWords":
    """Drop words that several classes have, except a class's best word.

    Source: KPT's code (OpenPrompt's `delete_common_words`), where the first
    word of a class is its name. Deviation: if another word has a larger weight
    than the first, that word stays in its place.
    """
    count = Counter(word for words in self.words for word in words)
    keep = [
      [k for k, word in enumerate(words) if k == best or count[word] == 1]
      for words, best in zip(self.words, self.best, strict=True)
    ]
    return self.select(keep)

  def without_unknown(self, encode: Encode) -> "LabelWords":
    """Drop words of which a vocabulary lacks all or some pieces.

    Args:
      encode: the vocabulary's.

    Raises:
      ValueError: a class has no other words.
    """
    keep = [
      [k for k, pieces in enumerate(words) if UNK_ID not in pieces]
      for words in _ids(self, encode)
    ]
    return self.select(keep)

  def select(self, keep: Sequence[Sequence[int]]) -> "LabelWords":
    """Take some of the words of every class.

    Args:
      keep: for every class, the indices of the words to keep.

    Raises:
      ValueError: a class has no words left.
    """
    return dataclasses.replace(
      self,
      words=tuple(
        tuple(words[k] for k in numbers)
        for words, numbers in zip(self.words, keep, strict=True)
      ),
      weights=tuple(
        tuple(weights[k] for k in numbers)
        for weights, numbers in zip(self.weights, keep, strict=True)
      ),
    )


@dataclasses.dataclass(frozen=True)
class WordPieces:
  """Label words as ids of a vocabulary.

  Attributes:
    pieces: int32 [C, W, L], the pieces of every word in order, then 0. W is the
      largest number of words of a class, L that of pieces of a word.
    weights: float32 [C, W], 0 where a class has no word.
    start: ids before a word in the target, such as a template's sentinel.
  """

  pieces: np.ndarray
  weights: np.ndarray
  start: tuple[int, ...] = ()

  @classmethod
  def of(
    cls,
    label_words: LabelWords,
    encode: Encode,
    start: tuple[int, ...] = (),
    keep: Sequence[Sequence[bool]] | None = None,
  ) -> "WordPieces":
    """Cut label words into pieces.

    Args:
      label_words: those of all classes. A word of two classes counts for both;
        `LabelWords.without_common` drops such words.
      encode: a vocabulary's.
      start: see the class.
      keep: words of every class to score, see `scored`. Other words keep their
        entries, without pieces and weight. None scores all.

    Raises:
      ValueError: a word has no pieces; the vocabulary lacks a word, which it
        could not tell from other unknown words; or different words, or the only
        words of two classes, have the same ids. Names class, file and line.
    """
    ids = _ids(label_words, encode)
    if keep is not None:
      ids = [
        [w if kept else [] for w, kept in zip(words, of_class, strict=True)]
        for words, of_class in zip(ids, keep, strict=True)
      ]
    _insist_known(label_words, ids)
    _insist_distinct(label_words, ids)
    width = max(len(words) for words in ids)
    length = max(len(word) for words in ids for word in words)
    pieces = np.full((len(ids), width, length), PAD_ID, np.int32)
    weights = np.zeros((len(ids), width), np.float32)
    for number, words in enumerate(ids):
      for k, word in enumerate(words):
        weights[number, k] = label_words.weights[number][k] if word else 0
        pieces[number, k, : len(word)] = word
    return cls(pieces, weights, start)

  @property
  def key(self) -> tuple[Hashable, ...]:
    """All values, as a key for comparisons and dictionaries."""
    values = (getattr(self, field.name) for field in dataclasses.fields(self))
    return tuple(
      (value.shape, value.dtype.str, value.tobytes())
      if isinstance(value, np.ndarray)
      else value
      for value in (type(self), *values)
    )

  @property
  def lengths(self) -> np.ndarray:
    """Number of pieces of every word, int32 [C, W]; 0 where there is none."""
    return np.asarray((self.pieces != PAD_ID).sum(axis=-1), np.int32)


class Word(NamedTuple):
  """A word of a class, for people: `politics (World)`."""

  name: str
  text: str

  def __str__(self) -> str:
    return f"{self.text} ({self.name})"


@dataclasses.dataclass(frozen=True)
class Survey:
  """What one vocabulary makes of label words.

  Attributes:
    classes: names.
    words: number of words of every class.
    pieces: number of pieces -> number of words with so many.
    unknown: words with a piece that the vocabulary lacks.
    common: words of more than one class.
    same: groups of different words with the same ids; no scorer can distinguish
      them.
    several: words of several pieces; a scorer of single pieces loses them.
    same_first: words whose first piece also begins a word of another class; a
      scorer of first pieces confuses the two.
  """

  classes: tuple[str, ...]
  words: tuple[int, ...]
  pieces: Mapping[int, int]
  unknown: tuple[Word, ...]
  common: tuple[Word, ...]
  same: tuple[tuple[Word, ...], ...]
  several: tuple[Word, ...]
  same_first: tuple[Word, ...]

  def counts(self) -> dict[str, int]:
    """Return the numbers, for the table of many files."""
    return {
      "classes": len(self.classes),
      "words": sum(self.words),
      "one piece": self.pieces.get(1, 0),
      "several pieces": len(self.several),
      "same first piece": len(self.same_first),
      "unknown": len(self.unknown),
      "same ids": sum(len(group) for group in self.same),
      "in two classes": len({word.text for word in self.common}),
    }

  def lines(self) -> list[str]:
    """Write the counts, and the first few words of every kind."""
    found = [f"{sum(self.words)} label words of {len(self.classes)} classes"]
    kinds = {
      "the vocabulary lacks": self.unknown,
      "stand in two classes": self.common,
      "have the ids of another word": [w for g in self.same for w in g],
      "have several pieces; a scorer of single pieces cannot use them": (
        self.several
      ),
      "share their first piece with another class; a scorer of first pieces "
      "cannot tell them apart": self.same_first,
    }
    for what, words in kinds.items():
      if words:
        found.append(f"{len(words)} {what}: {some(words)}")
    return found


class Scored(NamedTuple):
  """The label words to score.

  Attributes:
    words: for every class, whether each of its words is scored.
    saved: words of several pieces that are scored because their class has no
      other word.
  """

  words: tuple[tuple[bool, ...], ...]
  saved: tuple[Word, ...]


def scored(label_words: LabelWords, encode: Encode, single: bool) -> Scored:
  """Leave out words that the vocabulary lacks, and those of several pieces.

  If a class has no word of a single piece, it keeps its best word: the first
  one of the largest weight.

  Args:
    label_words: those of all classes.
    encode: the vocabulary's.
    single: leave out words of several pieces.

  Raises:
    ValueError: the vocabulary lacks all words of a class, or all with a weight
      above 0; names class, file and line.
  """
  keep, saved = [], []
  for number, ids in enumerate(_ids(label_words, encode)):
    words = label_words.words[number]
    weights = [
      0.0 if UNK_ID in pieces else weight
      for pieces, weight in zip(ids, label_words.weights[number], strict=True)
    ]
    if not any(weights):
      raise ValueError(
        f"{label_words.place(number)}: none of its words "
        f"({some(map(repr, words))}) can be scored, because the vocabulary "
        "lacks characters of each. Add another word."
      )
    kept = [
      UNK_ID not in pieces and not (single and len(pieces) > 1)
      for pieces in ids
    ]
    if not any(w for w, k in zip(weights, kept, strict=True) if k):
      best = weights.index(max(weights))
      kept[best] = True
      saved.append(Word(label_words.classes[number], words[best]))
    keep.append(tuple(kept))
  return Scored(tuple(keep), tuple(saved))


def survey(label_words: LabelWords, encode: Encode) -> Survey:
  """Count what a vocabulary and its scorers make of label words.

  Args:
    label_words: of all classes.
    encode: a vocabulary's.
  """
  ids = _ids(label_words, encode)
  words = [
    (Word(label_words.classes[c], text), tuple(ids[c][k]))
    for c, texts in enumerate(label_words.words)
    for k, text in enumerate(texts)
  ]
  classes_of_text: dict[str, set[str]] = {}
  classes_of_first: dict[int, set[str]] = {}
  for word, pieces in words:
    classes_of_text.setdefault(word.text, set()).add(word.name)
    classes_of_first.setdefault(pieces[0], set()).add(word.name)
  return Survey(
    classes=label_words.classes,
    words=tuple(len(texts) for texts in label_words.words),
    pieces=Counter(len(pieces) for _, pieces in words),
    unknown=tuple(word for word, pieces in words if UNK_ID in pieces),
    common=tuple(w for w, _ in words if len(classes_of_text[w.text]) > 1),
    same=_same_ids(words),
    several=tuple(word for word, pieces in words if len(pieces) > 1),
    same_first=tuple(
      w for w, pieces in words if len(classes_of_first[pieces[0]]) > 1
    ),
  )


def read(path: str, classes: Sequence[str] = (), choice: int = 0) -> LabelWords:
  """Read label words from a file.

  Args:
    path: ends in `.txt`, `.csv`, `.json` or `.jsonl`, see the module.
    classes: their names, in the order of class ids. If empty, the names are
      those of a JSON file in its order, or numbers from 0.
    choice: number of the list to read, if the file has several.

  Returns:
    The words, with weight 1 if the file gives no weights.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the ending is unknown, there is no such list, classes differ, a
      class has no words, or an entry depends on a row. Says file, line and what
      was expected.
  """
  lists = _lists(path)
  if not 0 <= choice < len(lists):
    raise ValueError(
      f"{path}: has {len(lists)} lists of label words, numbered from 0; there "
      f"is no list {choice}."
    )
  entries = lists[choice]
  names = [entry.name for entry in entries]
  for number, entry in enumerate(entries):
    if entry.name in names[:number]:
      raise ValueError(
        f"{entry.place}: class {entry.name!r} occurs twice; give each class "
        "once."
      )
  if classes and _is_json(path):
    entries = _in_order(path, entries, classes)
  elif classes:
    entries = _named(path, entries, classes)
  return LabelWords.of(
    {entry.name: entry.words for entry in entries},
    [entry.place for entry in entries],
  )


def count_lists(path: str) -> int:
  """Count the lists of label words in a file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not a file of label words.
  """
  return len(_lists(path))


class Entry(NamedTuple):
  """A class of a file: `FILE:LINE`, its name, its words."""

  place: str
  name: str
  words: Any


def _is_json(path: str) -> bool:
  return path.lower().endswith(_JSON_ENDINGS)


def _lists(path: str) -> list[list[Entry]]:
  """Read all lists of a file."""
  ending = pathlib.Path(path).suffix.lower()
  if ending not in _TEXT_ENDINGS + _JSON_ENDINGS:
    raise ValueError(
      f"{path}: expected label words in a file ending in "
      f"{', '.join(_TEXT_ENDINGS + _JSON_ENDINGS)}, got {ending or 'none'!r}."
    )
  return json_lists(path) if _is_json(path) else _text_lists(path)


def _text_lists(path: str) -> list[list[Entry]]:
  """Read lists of a class per line, divided by empty lines."""
  lists: list[list[Entry]] = [[]]
  for number, line in enumerate(plain_text.text_lines(path), 1):
    if not line.strip():
      lists.append([])
      continue
    place, name = f"{path}:{number}", str(len(lists[-1]))
    lists[-1].append(Entry(place, name, _line_words(place, line.strip())))
  lists = [entries for entries in lists if entries]
  if not lists:
    raise ValueError(
      f"{path}: only empty lines; expected a line of label words for each "
      "class."
    )
  return lists


def _line_words(place: str, line: str) -> list[str]:
  """Read the words of a class, perhaps one word in OpenPrompt's braces."""
  if "\t" in line:
    raise ValueError(
      f"{place}: the line has a tab, as rules have, with a word for each "
      "mask: give the file as `rules_file`. Label words of a single mask have "
      "commas between them."
    )
  if not line.startswith("{"):
    return line.split(",")
  path, _, number = place.rpartition(":")
  value = plain_text.json_value(path, line, int(number))
  if not isinstance(value, dict) or list(value) != ["text"]:
    raise ValueError(
      f"{place}: {line!r:.80} is another word in every row; expected words "
      'that are the same in all rows, or {"text": "word"}.'
    )
  return [value["text"]]


class _Pairs(tuple[tuple[str, Any], ...]):
  """A JSON object that keeps names that occur twice."""


def json_lists(path: str) -> list[list[Entry]]:
  """Read one JSON object of classes, a list of them, or one per line.

  Args:
    path: ends in `.json` or `.jsonl`.

  Returns:
    For every object its classes, in order; a name may occur twice.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not JSON, or not of such objects; says file and line.
  """
  text = "".join(f"{line}\n" for line in plain_text.text_lines(path))
  documents = [(1, text)]
  if path.lower().endswith(".jsonl") and _is_json_per_line(text):
    numbered = enumerate(text.splitlines(), 1)
    documents = [(number, line) for number, line in numbered if line.strip()]
  lists = []
  for first_line, document in documents:
    plain_text.json_value(path, document, first_line)
    value = json.loads(document, object_pairs_hook=_Pairs)
    lines = _LineNumbers(document, first_line)
    objects = [value] if isinstance(value, _Pairs) else value
    if not isinstance(objects, list | _Pairs) or not objects:
      raise ValueError(
        f"{path}:{first_line}: expected a JSON object of classes with their "
        f"words, or a list of such objects, got {document.strip()!r:.80}."
      )
    for number, pairs in enumerate(objects):
      if not isinstance(pairs, _Pairs):
        raise ValueError(
          f"{path}: entry {number}: expected a JSON object of classes with "
          f"their words, got {pairs!r:.80}."
        )
      lists.append(
        [
          Entry(f"{path}:{lines.of(name)}", name, _plain(words))
          for name, words in pairs
        ]
      )
  return lists


def _is_json_per_line(text: str) -> bool:
  """Tell JSON lines from one JSON document; OpenPrompt calls both jsonl."""
  try:
    json.loads(text)
  except ValueError:
    return True
  return False


def _plain(words: Any) -> Any:
  return dict(words) if isinstance(words, _Pairs) else words


class _LineNumbers:
  """The lines of names in a JSON text that is read in order."""

  def __init__(self, text: str, first_line: int):
    self._text = text
    self._first_line = first_line
    self._position = 0

  def of(self, name: str) -> int:
    """Return the line of the next such name, or where the last one was."""
    for quoted in (json.dumps(name, ensure_ascii=False), json.dumps(name)):
      pattern = re.compile(re.escape(quoted) + r"\s*:")
      if match := pattern.search(self._text, self._position):
        self._position = match.end()
        break
    return self._first_line + self._text.count("\n", 0, self._position)


def _in_order(
  path: str, entries: list[Entry], classes: Sequence[str]
) -> list[Entry]:
  """Put classes that have names into a task's order."""
  by_name = {entry.name: entry for entry in entries}
  for entry in entries:
    if entry.name not in classes:
      raise ValueError(
        f"{entry.place}: unknown class {entry.name!r}."
        f"{tree.nearest(entry.name, classes)} Expected: {', '.join(classes)}."
      )
  for name in classes:
    if name not in by_name:
      raise ValueError(f"{path}: no words of class {name!r}.")
  return [by_name[name] for name in classes]


def _named(
  path: str, entries: list[Entry], classes: Sequence[str]
) -> list[Entry]:
  """Give the lines of a text file the names of classes."""
  if len(entries) != len(classes):
    raise ValueError(
      f"{entries[-1].place}: {len(entries)} lines of label words, expected "
      f"one for each of {len(classes)} classes: {', '.join(classes)}. Write "
      "the words of a class on one line, with commas between them."
    )
  return [
    entry._replace(name=name)
    for entry, name in zip(entries, classes, strict=True)
  ]


def _weighted(place: str, words: Any) -> dict[str, float]:
  """Return a class's words with their weights, in order."""
  if isinstance(words, str):
    words = [words]
  if not isinstance(words, Mapping | Sequence):
    raise ValueError(
      f"{place}: expected a word, a list of words, or words with weights, got "
      f"{words!r:.80}."
    )
  result: dict[str, float] = {}
  for word in words:
    if not isinstance(word, str):
      raise ValueError(f"{place}: expected a word, got {word!r:.80}.")
    weight = words[word] if isinstance(words, Mapping) else 1.0
    result.setdefault(word.strip(), weight)
  return result


def _check_class(
  place: str, words: Sequence[str], weights: Sequence[float]
) -> None:
  if not words:
    raise ValueError(f"{place} has no words; expected at least one.")
  for word, weight in zip(words, weights, strict=True):
    if not word.removeprefix(NO_BLANK):
      raise ValueError(
        f"{place}: an empty word among "
        f"{', '.join(map(repr, words[:_SHOWN]))}; remove the comma that is "
        "doubled, or at an end."
      )
    is_number = type(weight) in (int, float) and math.isfinite(weight)
    if not is_number or weight < 0:
      raise ValueError(
        f"{place}: word {word!r} has weight {weight!r}; expected a number, 0 "
        "or more."
      )
  if not any(weights):
    raise ValueError(
      f"{place}: all weights are 0; expected at least one above 0."
    )


def _before(places: Sequence[str]) -> str:
  return f"{places[0]}: " if places else ""


def _ids(label_words: LabelWords, encode: Encode) -> list[list[list[int]]]:
  """Encode every word of every class."""
  return [
    [word_ids(label_words.place(number), word, encode) for word in words]
    for number, words in enumerate(label_words.words)
  ]


def word_ids(place: str, word: str, encode: Encode) -> list[int]:
  """Encode a word as it stands in a target.

  Args:
    place: file and line of its class, for errors.
    word: any word; `<!>` before it means that no space precedes it.
    encode: a vocabulary's.

  Raises:
    ValueError: the vocabulary has no piece of it.
  """
  text = word.removeprefix(NO_BLANK)
  if text == word:
    ids = list(encode(word))
  else:
    anchor = list(encode(_ANCHOR))
    ids = list(encode(_ANCHOR + text))[len(anchor) :]
  if not ids:
    raise ValueError(f"{place}: word {word!r} has no piece in the vocabulary.")
  return ids


def _insist_known(
  label_words: LabelWords, ids: Sequence[Sequence[Sequence[int]]]
) -> None:
  for number, words in enumerate(ids):
    lost = [k for k, pieces in enumerate(words) if UNK_ID in pieces]
    if lost:
      texts = label_words.words[number]
      raise ValueError(
        f"{label_words.place(number)}: the vocabulary lacks characters of "
        f"{some(repr(texts[k]) for k in lost)}: it has id {UNK_ID} for all "
        "of them. Choose other words, or drop these "
        "(LabelWords.without_unknown)."
      )


def _insist_distinct(
  label_words: LabelWords, ids: Sequence[Sequence[Sequence[int]]]
) -> None:
  """Refuse words with the same ids, and classes with the same words."""
  seen: dict[tuple[int, ...], tuple[int, str]] = {}
  for number, words in enumerate(ids):
    for word, pieces in zip(label_words.words[number], words, strict=True):
      if not pieces:
        continue
      other, text = seen.setdefault(tuple(pieces), (number, word))
      if text != word:
        raise ValueError(
          f"{label_words.place(number)}: word {word!r} has the ids "
          f"{list(pieces)}, and so has {text!r} of "
          f"{label_words.place(other)}: the model cannot tell them apart. "
          "Drop one of them."
        )
  lists: dict[frozenset[tuple[int, ...]], int] = {}
  for number, words in enumerate(ids):
    present = frozenset(tuple(pieces) for pieces in words if pieces)
    other = lists.setdefault(present, number)
    if other != number:
      raise ValueError(
        f"{label_words.place(number)} has the same words as "
        f"{label_words.place(other)}: the model cannot tell the two classes "
        "apart."
      )


def _same_ids(
  words: Sequence[tuple[Word, tuple[int, ...]]],
) -> tuple[tuple[Word, ...], ...]:
  groups: dict[tuple[int, ...], dict[str, Word]] = {}
  for word, pieces in words:
    groups.setdefault(pieces, {}).setdefault(word.text, word)
  return tuple(tuple(g.values()) for g in groups.values() if len(g) > 1)


def some(things: Iterable[object]) -> str:
  """Name the first few of many things.

  Args:
    things: any, for people.
  """
  texts = list(map(str, things))
  more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
  return ", ".join(texts[:_SHOWN]) + more
