"""A corpus of twelve relations: a kind of subject, a verb, a kind of object.

A sentence has two more words of some kinds, so that kinds alone, or words that
are there at all, do not tell the relation: its arguments do.
"""

import json
import pathlib
import random
from collections.abc import Iterator, Mapping

from prompt_tuning.core import files
from prompt_tuning.data.skills import CATEGORIES

SUBJECTS, VERBS = ("animal", "work"), ("saw", "left", "wanted")
OBJECTS = ("food", "building")
# Rows of each relation.
SPLITS: Mapping[str, int] = {"train": 40, "validation": 10, "test": 40}
_NUMBER = {"train": 0, "validation": 1, "test": 2}
# What may stand around: words of other kinds, which are no arguments.
_OTHERS = ("family", "furniture", "nature")


def relations() -> tuple[str, ...]:
  """List the names of all relations: `animal saw food`."""
  return tuple(
    f"{subject} {verb} {object_}"
    for subject in SUBJECTS
    for verb in VERBS
    for object_ in OBJECTS
  )


def rows(split: str, seed: int = 0) -> Iterator[dict[str, str]]:
  """Generate the rows of a split.

  Args:
    split: of `SPLITS`.
    seed: of the corpus.

  Yields:
    A sentence in pieces, its arguments with their markers, and the relation.
  """
  draw = random.Random(seed * 10 + _NUMBER[split])
  for _ in range(SPLITS[split]):
    for relation in relations():
      subject_kind, verb, object_kind = relation.split()
      subject = draw.choice(CATEGORIES[subject_kind])
      object_ = draw.choice(CATEGORIES[object_kind])
      others = [draw.choice(CATEGORIES[draw.choice(_OTHERS)]) for _ in range(2)]
      yield {
        "before": f"by the {others[0]} the",
        "first": f"[E1] {subject} [/E1]",
        "between": f"{verb} the",
        "second": f"[E2] {object_} [/E2]",
        "after": f"with the {others[1]}",
        "subject": subject,
        "object": object_,
        "relation": relation,
      }


def write(folder: pathlib.Path, seed: int = 0) -> None:
  """Write `train.jsonl`, `validation.jsonl` and `test.jsonl`."""
  files.make_folder(folder)
  for split in SPLITS:
    text = "".join(json.dumps(row) + "\n" for row in rows(split, seed))
    files.write_text(folder / f"{split}.jsonl", text)
