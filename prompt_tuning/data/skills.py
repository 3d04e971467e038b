"""Generated text skills that a tiny T5 can learn and a prompt can recover.

A skill turns a list of three to five common English words into a short answer.
In pre-training, an instruction in words stands in front; the splits have no
instruction, so that a prompt must recover it. There are three kinds of lists:
things, describing words and numbers. Several skills share each kind, so that a
list does not reveal the skill. Everything depends only on strings and
`VERSION`; no table is read, and Python's Mersenne Twister is used through
`random()` only, whose values are the same on every platform and version.
"""

import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from prompt_tuning.core import tree

T = TypeVar("T")

VERSION = 1

# Number of examples per skill.
SPLITS: Mapping[str, int] = {"train": 1024, "validation": 128, "test": 256}

Words = tuple[str, ...]


def _list(text: str) -> Words:
  return tuple(text.split())


# Kind -> words; the label is the answer of the skill `category`.
CATEGORIES: Mapping[str, Words] = {
  "animal": _list(
    "horse dog cat cow sheep goat pig lion tiger bear wolf fox rabbit mouse "
    "monkey elephant camel donkey frog snake"
  ),
  "colour": _list(
    "red blue green yellow white black brown grey pink purple crimson "
    "scarlet golden silver violet"
  ),
  "food": _list(
    "bread butter cheese milk meat soup cake sugar salt rice egg honey "
    "bacon pudding pie toast beef mutton"
  ),
  "body": _list(
    "hand foot head arm leg eye ear nose mouth finger shoulder knee neck "
    "heart throat chin elbow tongue"
  ),
  "clothes": _list(
    "hat coat shirt shoe dress glove boot cap cloak apron bonnet jacket "
    "scarf trousers waistcoat stocking"
  ),
  "family": _list(
    "father mother brother sister son daughter uncle aunt cousin nephew "
    "niece husband wife grandmother grandfather"
  ),
  "furniture": _list(
    "table chair bed sofa desk bench shelf cupboard mirror wardrobe stool "
    "cradle couch drawer bookcase"
  ),
  "work": _list(
    "doctor lawyer soldier sailor teacher farmer baker butcher tailor "
    "priest nurse servant gardener carpenter painter poet"
  ),
  "nature": _list(
    "river mountain forest lake sea hill valley island field cloud rain "
    "snow wind moon star sky"
  ),
  "building": _list(
    "house church castle palace tower school prison hotel theatre cottage "
    "temple stable barn hospital bridge station"
  ),
}

# Pairs of describing words; each is the answer to the other.
OPPOSITES: Mapping[str, str] = {
  word: other
  for pair in _list(
    "hot-cold big-small old-young rich-poor happy-sad long-short good-bad "
    "strong-weak light-dark fast-slow high-low hard-soft thick-thin "
    "wet-dry early-late full-empty loud-quiet clean-dirty wide-narrow "
    "deep-shallow cheap-expensive brave-afraid sweet-bitter wise-foolish "
    "easy-difficult kind-cruel sharp-blunt smooth-rough true-false "
    "open-closed beautiful-ugly polite-rude ancient-modern public-private"
  )
  for word, other in (pair.split("-"), pair.split("-")[::-1])
}

# Number words in increasing order.
NUMBERS: Words = _list(
  "one two three four five six seven eight nine ten eleven twelve thirteen "
  "fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty "
  "fifty sixty seventy eighty ninety hundred thousand million"
)

# Lists have from 3 to 5 words.
LENGTHS = (3, 4, 5)

_CATEGORY_OF = {w: label for label, ws in CATEGORIES.items() for w in ws}
_VALUE = {word: rank for rank, word in enumerate(NUMBERS)}
_DESCRIBING = tuple(OPPOSITES)
_LABELS = tuple(CATEGORIES)


@dataclasses.dataclass(frozen=True)
class Skill:
  """One operation on a list of words.

  Attributes:
    name: its key in `ALL`.
    instructions: wordings of the instruction; prompts are compared with the
      first.
    forms: kinds of lists for this skill.
    answer: words of a list -> answer.
  """

  name: str
  instructions: Words
  forms: Words
  answer: Callable[[Words], str]


def _odd_one_out(words: Words) -> str:
  labels = [_CATEGORY_OF[word] for word in words]
  return next(
    w
    for w, label in zip(words, labels, strict=True)
    if labels.count(label) == 1
  )


def _category(words: Words) -> str:
  labels = [_CATEGORY_OF[word] for word in words]
  return max(labels, key=labels.count)


def _membership(words: Words) -> str:
  return "yes" if any(w in CATEGORIES["animal"] for w in words) else "no"


_ALL = ("things", "describing", "numbers")


def _skill(
  name: str,
  answer: Callable[[Words], str],
  wordings: str,
  forms: Words = _ALL,
) -> Skill:
  return Skill(name, tuple(wordings.split("; ")), forms, answer)


SKILLS: Mapping[str, Skill] = {
  skill.name: skill
  for skill in (
    _skill(
      "first",
      lambda words: words[0],
      "first word; first; say the first word of the list; "
      "which word is first; the beginning of the list",
    ),
    _skill(
      "second",
      lambda words: words[1],
      "second word; second; say the second word of the list; "
      "which word is second; the second in the list",
    ),
    _skill(
      "last",
      lambda words: words[-1],
      "last word; last; say the last word of the list; "
      "which word is last; the end of the list",
    ),
    _skill(
      "longest",
      lambda words: max(words, key=len),
      "longest word; longest; say the longest word of the list; "
      "which word is longest; the word of greatest length",
    ),
    _skill(
      "shortest",
      lambda words: min(words, key=len),
      "shortest word; shortest; say the shortest word of the list; "
      "which word is shortest; the word with the fewest letters",
    ),
    _skill(
      "alphabetical",
      min,
      "earliest word in the alphabet; alphabet; say the word that a "
      "dictionary has before the others; which word is the earliest in a "
      "dictionary; by the alphabet",
    ),
    _skill(
      "count",
      lambda words: NUMBERS[len(words) - 1],
      "how many words; count; count the words of the list; "
      "how many words are there; say how many",
    ),
    _skill(
      "repeat",
      " ".join,
      "repeat the words; repeat; say the words of the list again; "
      "copy the list; the same words again",
    ),
    _skill(
      "reverse",
      lambda words: " ".join(reversed(words)),
      "reverse the words; reverse; say the words of the list backwards; "
      "turn the list round; the words backwards",
    ),
    _skill(
      "sort",
      lambda words: " ".join(sorted(words)),
      "sort the words; sort; sort the words of the list; "
      "arrange the list; the words in order",
    ),
    _skill(
      "odd_one_out",
      _odd_one_out,
      "odd one out; odd; say the word that does not belong; "
      "which word is different; the word that is not like the rest",
      ("things",),
    ),
    _skill(
      "category",
      _category,
      "kind of things; kind; say what kind of things they are; "
      "what are most of these; the name of the group",
      ("things",),
    ),
    _skill(
      "membership",
      _membership,
      "is there an animal; animal; say yes if there is an animal; "
      "does the list name an animal; any animal",
      ("things",),
    ),
    _skill(
      "opposite",
      lambda words: OPPOSITES[words[0]],
      "opposite; opposite word; say the opposite of what the list starts "
      "with; what is the contrary; the contrary of it",
      ("describing",),
    ),
    _skill(
      "largest",
      lambda words: max(words, key=_VALUE.__getitem__),
      "largest number; largest; say the largest number of the list; "
      "which number is largest; the maximum",
      ("numbers",),
    ),
    _skill(
      "smallest",
      lambda words: min(words, key=_VALUE.__getitem__),
      "smallest number; smallest; say the smallest number of the list; "
      "which number is smallest; the minimum",
      ("numbers",),
    ),
    _skill(
      "initial",
      lambda words: words[0][0],
      "initial letter; letter; say the letter that the list starts with; "
      "which letter is it; the initial",
    ),
  )
}

# Skills that are not in pre-training, with the instruction to compare prompts
# with.
HELD_OUT: Mapping[str, Skill] = {
  skill.name: skill
  for skill in (
    _skill("second_last", lambda words: words[-2], "second last word"),
    _skill(
      "first_and_last",
      lambda words: f"{words[0]} {words[-1]}",
      "first word and last word",
    ),
    _skill(
      "every_other",
      lambda words: " ".join(words[::2]),
      "every other word, beginning with the first",
    ),
    _skill(
      "opposite_of_last",
      lambda words: OPPOSITES[words[-1]],
      "opposite of the last word",
      ("describing",),
    ),
    _skill(
      "swap_first_two",
      lambda words: " ".join((words[1], words[0], *words[2:])),
      "swap the first two words",
    ),
    _skill(
      "drop_first",
      lambda words: " ".join(words[1:]),
      "all words but the first",
    ),
    _skill(
      "longest_then_shortest",
      lambda words: f"{max(words, key=len)} {min(words, key=len)}",
      "longest word, then the shortest",
    ),
    _skill("last_in_alphabet", max, "latest word in the alphabet"),
  )
}
# Skills of the splits.
ALL: Mapping[str, Skill] = {**SKILLS, **HELD_OUT}


def examples(skill: str, split: str) -> Iterator[dict[str, str]]:
  """Generate the examples of a split, without instruction.

  Args:
    skill: a key of `ALL`.
    split: a key of `SPLITS`.

  Yields:
    `inputs` (the words, separated by blanks), `targets` (the answer) and `idx`
    (number within the split).

  Raises:
    ValueError: an unknown skill or split; the message names the nearest one.
  """
  rule = _lookup("skill", skill, ALL)
  count = _lookup("split", split, SPLITS)
  rng = random.Random(f"skills/{VERSION}/{skill}/{split}")
  texts: set[str] = set()
  while len(texts) < count:
    words = _words(rng, rule)
    text = " ".join(words)
    if text not in texts and side(text) == split:
      yield {
        "inputs": text,
        "targets": rule.answer(words),
        "idx": str(len(texts)),
      }
      texts.add(text)


def pretraining(count: int, seed: int) -> Iterator[dict[str, str]]:
  """Generate examples with an instruction in words, from texts in no split.

  Args:
    count: number of examples.
    seed: seed of the examples.

  Yields:
    `inputs` (instruction and words) and `targets` (the answer); the skills take
    turns in random order, and all wordings are equally likely.
  """
  rng = random.Random(f"skills/{VERSION}/pretraining/{seed}")
  turns: list[Skill] = []
  for _ in range(count):
    turns = turns or _draw(rng, tuple(SKILLS.values()), len(SKILLS))
    skill = turns.pop()
    words = _words(rng, skill)
    while side(" ".join(words)) != "pretraining":
      words = _words(rng, skill)
    yield {
      "inputs": instructed(" ".join(words), _choice(rng, skill.instructions)),
      "targets": skill.answer(words),
    }


def instructed(text: str, instruction: str) -> str:
  """Put an instruction in front of an input text."""
  return f"{instruction}: {text}"


def side(text: str) -> str:
  """Return the split of a text, or `pretraining`, from the text's hash."""
  byte = hashlib.sha256(f"{VERSION}/{text}".encode()).digest()[0]
  if byte >= 48:
    return "pretraining"
  return "train" if byte >= 24 else "validation" if byte >= 16 else "test"


def _lookup(what: str, name: str, known: Mapping[str, T]) -> T:
  if name not in known:
    raise ValueError(
      f"Unknown {what} {name!r}.{tree.nearest(name, known)} "
      f"Known ones: {', '.join(known)}."
    )
  return known[name]


def _words(rng: random.Random, skill: Skill) -> Words:
  """Draw a list on which every skill of its form has one answer."""
  form = _choice(rng, skill.forms)
  yes = skill.name == "membership" and rng.random() < 0.5
  while True:
    words = _LISTS[form](rng, _choice(rng, LENGTHS))
    sizes = sorted(map(len, words))
    if sizes[0] == sizes[1] or sizes[-1] == sizes[-2]:
      continue
    if skill.name != "membership" or (_membership(words) == "yes") == yes:
      return words


def _things(rng: random.Random, length: int) -> Words:
  """Draw words of one kind and, among them, one of another kind."""
  most, odd = _draw(rng, _LABELS, 2)
  words = _draw(rng, CATEGORIES[most], length - 1)
  words.insert(_choice(rng, range(length)), _choice(rng, CATEGORIES[odd]))
  return tuple(words)


def _describing(rng: random.Random, length: int) -> Words:
  return tuple(_draw(rng, _DESCRIBING, length))


def _numbers(rng: random.Random, length: int) -> Words:
  return tuple(_draw(rng, NUMBERS, length))


_LISTS: Mapping[str, Callable[[random.Random, int], Words]] = {
  "things": _things,
  "describing": _describing,
  "numbers": _numbers,
}


def _choice(rng: random.Random, items: Sequence[T]) -> T:
  return items[int(rng.random() * len(items))]


def _draw(rng: random.Random, items: Sequence[T], count: int) -> list[T]:
  """Draw without replacement, in random order."""
  pool, draw = list(items), []
  for _ in range(count):
    draw.append(pool.pop(int(rng.random() * len(pool))))
  return draw
