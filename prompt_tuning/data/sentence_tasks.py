"""Tasks made of plain text, as pure functions of the text and a seed.

Documents are lists of sentences. The counts of labels differ by at most one
row. No wrong answer is the sentence that really follows. The first sentence of
a pair is drawn in the same way for every label, so that it does not reveal the
label. Python's Mersenne Twister is used through `random()` only, whose values
are the same on every platform and version.

Source: Gu et al. 2021 (PPT), section 3: next sentence prediction with three
classes, next sentence selection, and labels of single sentences.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from prompt_tuning.core import tree
from prompt_tuning.prompting.template import LETTERS

VERSION = 1

# Classes of pairs, by the relation of the second sentence to the first.
PAIR_CLASSES = ("elsewhere", "same_document", "adjacent")
# Numbers of options in the unified form.
UNIFIED_OPTIONS = tuple(range(2, 17))
_TRIES = 1000

# A sentence -> its class, or None for no label.
Labeller = Callable[[str], str | None]
# `text_a`, and `text_b` or `options`; `label` is a class id.
Row = dict[str, Any]
_T = TypeVar("_T")


class Passage(NamedTuple):
  """A document.

  Attributes:
    place: its position, such as `FILE:LINE`.
    sentences: at least one.
  """

  place: str
  sentences: tuple[str, ...]


def pairs(passages: Sequence[Passage], count: int, seed: int) -> Iterator[Row]:
  """Make sentence pairs: a third each adjacent, of one document, of two.

  Args:
    passages: the corpus.
    count: number of rows.
    seed: seed of the rows.

  Yields:
    `text_a`, `text_b` and `label`, a position in `PAIR_CLASSES`.

  Raises:
    ValueError: too little text: with file and line.
  """
  rng = _generator("pairs", seed)
  pool = _Pool(passages, rng)
  draw = (pool.elsewhere, pool.same_document, pool.adjacent)
  labels = [row % len(PAIR_CLASSES) for row in range(count)]
  for label in shuffled(rng, labels):
    anchor = pool.anchor()
    yield {
      "text_a": pool.text(anchor),
      "text_b": draw[label](anchor, set()),
      "label": label,
    }


def choices(
  passages: Sequence[Passage], count: int, seed: int, options: Sequence[int]
) -> Iterator[Row]:
  """Make sentences with options, of which one is the next sentence.

  One wrong option is a sentence of the same document, not adjacent; the others
  are sentences of other documents.

  Args:
    passages: the corpus.
    count: number of rows.
    seed: seed of the rows.
    options: numbers of options, such as (6,); the rows use them in turn.

  Yields:
    `text_a`, `options` and `label`, the index of the next sentence. Among rows
    with the same number of options, the counts of indices differ by at most
    one.

  Raises:
    ValueError: too little text: with file and line.
  """
  rng = _generator(f"choices/{','.join(map(str, options))}", seed)
  pool = _Pool(passages, rng)
  pool.insist_on_distinct(max(options) + 1)
  turns = [
    (options[row % len(options)], row // len(options)) for row in range(count)
  ]
  for size, turn in shuffled(rng, turns):
    anchor = pool.anchor()
    true = pool.adjacent(anchor, set())
    wrong = [pool.same_document(anchor, set())]
    while len(wrong) < size - 1:
      wrong.append(pool.elsewhere(anchor, set(wrong)))
    texts = shuffled(rng, wrong)
    label = turn % size
    texts.insert(label, true)
    yield {"text_a": pool.text(anchor), "options": texts, "label": label}


def labelled(
  passages: Sequence[Passage],
  count: int,
  seed: int,
  labeller: Labeller,
  classes: Sequence[str],
) -> Iterator[Row]:
  """Label single sentences, equally many of each class.

  Args:
    passages: the corpus.
    count: number of rows.
    seed: seed of the rows.
    labeller: labels sentences in random order until there are enough.
    classes: the labeller's classes.

  Yields:
    `text_a` and `label`, a position in `classes`. No sentence occurs twice.

  Raises:
    ValueError: an unknown class, or too few sentences of one: with file and
      line.
  """
  rng = _generator("labelled", seed)
  _insist_on_text(passages)
  total = len(classes)
  room = [(count + total - 1 - label) // total for label in range(total)]
  places = {
    text: passage.place for passage in passages for text in passage.sentences
  }
  rows: list[Row] = []
  for text in shuffled(rng, list(places)):
    if len(rows) == count:
      break
    label = _label(labeller, text, classes, places[text])
    if label is not None and room[label]:
      room[label] -= 1
      rows.append({"text_a": text, "label": label})
  for label, missing in enumerate(room):
    if missing:
      raise ValueError(
        f"{passages[0].place}: among the {len(places)} sentences of this "
        f"corpus, the labeller finds {missing} too few of the class "
        f"{classes[label]!r} for {count} rows. Ask for fewer rows, or give "
        "more text."
      )
  yield from shuffled(rng, rows)


def shuffle_labels(rows: Sequence[Row], seed: int) -> list[Row]:
  """Give every row the label of another, as a control.

  Rows swap labels only with rows that have the same number of options.

  Args:
    rows: rows of one task.
    seed: seed of the order.
  """
  rng = _generator("shuffled", seed)
  groups: dict[int, list[int]] = {}
  for number, row in enumerate(rows):
    groups.setdefault(len(row.get("options", ())), []).append(number)
  result = [dict(row) for row in rows]
  for numbers in groups.values():
    others = shuffled(rng, numbers)
    for number, other in zip(numbers, others, strict=True):
      result[number]["label"] = rows[other]["label"]
  return result


def shuffled(rng: random.Random, items: Sequence[_T]) -> list[_T]:
  """Return the items in random order (Fisher and Yates)."""
  order = list(items)
  for last in range(len(order) - 1, 0, -1):
    other = int(rng.random() * (last + 1))
    order[last], order[other] = order[other], order[last]
  return order


class _Pool:
  """Sentences of a corpus, to draw from.

  An anchor, (document, sentence), is a sentence with a next sentence, in a
  document that has a third sentence not adjacent to it.
  """

  def __init__(self, passages: Sequence[Passage], rng: random.Random):
    _insist_on_text(passages)
    self._documents = [passage.sentences for passage in passages]
    self._place = passages[0].place
    self._rng = rng
    if len(passages) < 2:
      raise ValueError(
        f"{self._place}: the corpus has one document; expected at least two, "
        "because a sentence of another document is needed. Divide documents "
        "by blank lines, or give more."
      )
    self._all = [
      (d, i)
      for d, sentences in enumerate(self._documents)
      for i in range(len(sentences))
    ]
    self._anchors = [
      (d, i)
      for d, sentences in enumerate(self._documents)
      for i in range(len(sentences) - 1)
      if len(sentences) > 3 or (len(sentences) == 3 and i == 0)
    ]
    if not self._anchors:
      longest = max(passages, key=lambda passage: len(passage.sentences))
      raise ValueError(
        f"{longest.place}: the longest document has {len(longest.sentences)} "
        "sentences; expected at least 3, so that one follows another and one "
        "does not."
      )

  def insist_on_distinct(self, count: int) -> None:
    """Check that there are enough different sentences."""
    texts = {text for sentences in self._documents for text in sentences}
    if len(texts) < count:
      raise ValueError(
        f"{self._place}: the corpus has {len(texts)} different sentences; "
        f"expected at least {count}, for a sentence with {count - 1} options. "
        "Ask for fewer options, or give more text."
      )

  def text(self, at: tuple[int, int]) -> str:
    document, sentence = at
    return self._documents[document][sentence]

  def anchor(self) -> tuple[int, int]:
    """Draw an anchor whose document has wrong answers for it."""
    for _ in range(_TRIES):
      at = self._one_of(self._anchors)
      if self.text(at) != self.adjacent(at, set()) and self._apart(at):
        return at
    raise ValueError(
      f"{self._place}: in {_TRIES} draws from this corpus, every sentence "
      "repeated others of its document; expected running text."
    )

  def adjacent(self, anchor: tuple[int, int], taken: set[str]) -> str:
    """Return the next sentence."""
    del taken
    document, sentence = anchor
    return self._documents[document][sentence + 1]

  def same_document(self, anchor: tuple[int, int], taken: set[str]) -> str:
    """Draw a sentence of the same document, not adjacent."""
    del taken  # the first wrong one
    return self._one_of(self._apart(anchor))

  def elsewhere(self, anchor: tuple[int, int], taken: set[str]) -> str:
    """Draw a sentence of another document, none of those taken."""
    banned = taken | {self.text(anchor), self.adjacent(anchor, taken)}
    for _ in range(_TRIES):
      at = self._one_of(self._all)
      if at[0] != anchor[0] and self.text(at) not in banned:
        return self.text(at)
    raise ValueError(
      f"{self._place}: in {_TRIES} draws, no sentence of another document "
      f"differed from those already used for {self.text(anchor)!r:.60}. Ask "
      "for fewer options, or give more text."
    )

  def _apart(self, anchor: tuple[int, int]) -> list[str]:
    """List a document's sentences that are neither adjacent nor equal."""
    document, sentence = anchor
    sentences = self._documents[document]
    banned = {sentences[sentence], sentences[sentence + 1]}
    return [
      text
      for number, text in enumerate(sentences)
      if abs(number - sentence) > 1 and text not in banned
    ]

  def _one_of(self, items: Sequence[_T]) -> _T:
    return items[int(self._rng.random() * len(items))]


def _generator(what: str, seed: int) -> random.Random:
  return random.Random(f"sentence tasks/{VERSION}/{what}/{seed}")


def _insist_on_text(passages: Sequence[Passage]) -> None:
  if not passages:
    raise ValueError("The corpus has no sentence; expected some text.")


def _label(
  labeller: Labeller, text: str, classes: Sequence[str], place: str
) -> int | None:
  name = labeller(text)
  if name is None:
    return None
  if name not in classes:
    raise ValueError(
      f"{place}: the labeller returned the unknown class {name!r} for "
      f"{text!r:.60}.{tree.nearest(str(name), classes)} Expected one of "
      f"{', '.join(classes)}, or None."
    )
  return list(classes).index(name)


def letter_classes(count: int) -> tuple[str, ...]:
  """Return the classes of choices: `A`, `B`, and so on."""
  return tuple(LETTERS[:count])
