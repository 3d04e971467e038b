"""Documents of words on ten topics, and words that go with a topic.

A document is four words: each is of its topic in six cases of ten, else of any
other. Topics and the words of a topic are unequally common (Zipf's law, in an
order that a seed draws), so that whoever learns to go on with documents likes
some words whatever it reads.
"""

import json
import pathlib
import random
from collections.abc import Iterator
from typing import NamedTuple

from prompt_tuning.data.skills import CATEGORIES

TOPICS = tuple(CATEGORIES)
LENGTH, OWN = 4, 0.6


class World(NamedTuple):
  """How common what is.

  Attributes:
    topics: topic -> weight.
    words: topic -> its words, the most common first.
  """

  topics: dict[str, float]
  words: dict[str, list[str]]


def world(seed: int) -> World:
  """Draw one."""
  rng = random.Random(f"kpt world {seed}")
  order = rng.sample(TOPICS, len(TOPICS))
  return World(
    {topic: 1 / rank for rank, topic in enumerate(order, 1)},
    {t: rng.sample(words, len(words)) for t, words in CATEGORIES.items()},
  )


def _word(rng: random.Random, of: World, topic: str) -> str:
  """Draw a word of a document on a topic."""
  if rng.random() >= OWN:
    others = [t for t in TOPICS if t != topic]
    topic = rng.choices(others, [of.topics[t] for t in others])[0]
  words = of.words[topic]
  return rng.choices(words, [1 / k for k in range(1, len(words) + 1)])[0]


def examples(
  of: World, name: str, count: int, balanced: bool
) -> Iterator[dict[str, str]]:
  """Draw documents, each with its topic and with one more word of it.

  Args:
    of: the world.
    name: of the split; those of different ones are drawn apart.
    count: how many.
    balanced: topics in turn, or as common as they are.
  """
  rng = random.Random(f"kpt documents {name} {list(of.topics)}")
  for number in range(count):
    topic = TOPICS[number % len(TOPICS)]
    if not balanced:
      topic = rng.choices(list(of.topics), list(of.topics.values()))[0]
    words = [_word(rng, of, topic) for _ in range(LENGTH + 1)]
    yield {"text": " ".join(words[1:]), "next": words[0], "topic": topic}


def write(path: pathlib.Path, rows: Iterator[dict[str, str]]) -> str:
  """Write a file of rows, unless it is there; returns its path."""
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    path.write_text(lines, encoding="utf-8")
  return str(path)


def names(of: World) -> dict[str, list[str]]:
  """Name every topic by one word: the middle one of its words by frequency."""
  return {t: [words[len(words) // 2]] for t, words in of.words.items()}


def knowledge(of: World, share: float) -> dict[str, list[str]]:
  """List a topic's words behind its name, and planted words of other topics.

  Args:
    of: the world.
    share: planted words per word of the topic.
  """
  found = {}
  for topic, (name,) in names(of).items():
    rng = random.Random(f"kpt knowledge {topic} {list(of.topics)}")
    own = [word for word in of.words[topic] if word != name]
    others = [w for t in TOPICS if t != topic for w in of.words[t]]
    planted = rng.sample(others, round(share * (len(own) + 1)))
    found[topic] = [name, *sorted(own + planted)]
  return found
