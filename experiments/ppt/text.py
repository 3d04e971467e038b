"""Plain text that a tiny model understands, and relations to ask about it.

The text is lists of common words, a list on each line, documents divided by
blank lines. Half of the lists name one animal.
"""

import json
import pathlib
import random
from collections.abc import Callable, Sequence

from prompt_tuning.data import skills

ANIMALS = frozenset(skills.CATEGORIES["animal"])
_OTHERS = tuple(
  word
  for kind, words in skills.CATEGORIES.items()
  if kind != "animal"
  for word in words
)
_LENGTHS = (3, 4, 5)
_SENTENCES = 6


def names_an_animal(sentence: str) -> str:
  """Label a sentence of the text: the labeller of the pre-training."""
  return "yes" if ANIMALS & set(sentence.split()) else "no"


def write_text(path: pathlib.Path, documents: int, seed: int) -> None:
  """Write plain text.

  Args:
    path: of the file.
    documents: how many.
    seed: another seed, other text.
  """
  rng = random.Random(f"text/{seed}")
  blocks = [
    "\n".join(" ".join(_list(rng, rng.randrange(2))) for _ in range(_SENTENCES))
    for _ in range(documents)
  ]
  path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def _list(rng: random.Random, animals: int) -> list[str]:
  """Draw a list of words with so many animals, at random places."""
  words = rng.sample(_OTHERS, rng.choice(_LENGTHS))
  for place, animal in zip(
    rng.sample(range(len(words)), animals),
    rng.sample(sorted(ANIMALS), animals),
    strict=True,
  ):
    words[place] = animal
  return words


def _begins(rng: random.Random, yes: bool) -> list[str]:
  """Name one animal, in the first place or in another."""
  words = _list(rng, 1)
  place = next(k for k, word in enumerate(words) if word in ANIMALS)
  other = 0 if yes else rng.randrange(1, len(words))
  words[place], words[other] = words[other], words[place]
  return words


def _most(rng: random.Random, yes: bool) -> list[str]:
  """Name animals but for one word, or one animal at most."""
  words = _list(rng, rng.randrange(2))
  if yes:
    animals = rng.sample(sorted(ANIMALS), len(words))
    place = rng.randrange(len(words))
    words = [*animals[:place], rng.choice(_OTHERS), *animals[place + 1 :]]
  return words


def _two(rng: random.Random, yes: bool) -> list[str]:
  """Name two animals, or one."""
  return _list(rng, 2 if yes else 1)


# Relation -> a list of which it holds, or does not.
RELATIONS: dict[str, Callable[[random.Random, bool], list[str]]] = {
  "begins": _begins,
  "most": _most,
  "two": _two,
}


def write_rows(
  path: pathlib.Path, relation: str, count: int, seed: int
) -> None:
  """Write rows of a relation, `text` and `label`, half of them yes."""
  rng = random.Random(f"{relation}/{seed}")
  rows: list[dict[str, str]] = []
  for number in range(count):
    yes = bool(number % 2)
    text = " ".join(RELATIONS[relation](rng, yes))
    rows.append({"text": text, "label": "yes" if yes else "no"})
  path.write_text(lines(rows), encoding="utf-8")


def lines(rows: Sequence[dict[str, str]]) -> str:
  """Write rows as JSON lines."""
  return "".join(json.dumps(row) + "\n" for row in rows)
