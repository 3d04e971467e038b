"""Tasks of facts: LAMA's subjects and objects, written by a template.

Every object of the rows is a class. So the accuracy of ranking (the share of
rows whose own object is most likely) is P@1, and the mean reciprocal rank is
over all objects.

Source: Petroni et al. 2019, and the layout of its files for T-REx.
"""

import json
import pathlib
import re

from prompt_tuning.data import custom, spec, tables, templated
from prompt_tuning.prompting import rendering

SUBJECT, OBJECT = "[X]", "[Y]"
_ROWS = "_rows"


def declare(
  name: str,
  rows: str,
  template: str = "",
  relations_file: str | None = None,
  relation: str | None = None,
  subject_column: str = "sub_label",
  object_column: str = "obj_label",
  target_format: str = rendering.SENTINEL,
) -> spec.TaskSpec:
  """Declare a task of the facts of one relation.

  Args:
    name: name of the task.
    rows: file of a subject and an object per row, such as `P19.jsonl`.
    template: `[X] was born in [Y] .`; or
    relations_file: LAMA's `relations.jsonl`, which has a `template` for each
      `relation`.
    relation: the relation in that file; by default the name of the rows' file.
    subject_column: column of the subject.
    object_column: column of the object.
    target_format: see `templated.declare`.

  Returns:
    The task, with the one split `test`.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: no such relation, a template without subject or object, rows
      without one of them, or fewer than two objects: with file and line.
  """
  if bool(template) == bool(relations_file):
    raise ValueError(
      f"{name}: give either template or relations_file; expected one of the "
      "two."
    )
  place = f"{name}: template"
  if relations_file:
    relation = relation or pathlib.PurePosixPath(rows).stem
    place, template = _template_of(relations_file, relation)
  base = custom.declare(
    f"{name}{_ROWS}",
    {"test": rows},
    template=f"{{{subject_column}}}",
    target_column=object_column,
    label_words=_objects(rows, object_column),
    metrics=("accuracy", custom.BY_RANKS),
  )
  return templated.declare(
    name,
    base.name,
    template=_slots(place, template, subject_column),
    label_words={word: word for word in base.label_words},
    target_format=target_format,
  )


def _objects(rows: str, column: str) -> list[str]:
  """List the objects of all rows, in the order of the alphabet."""
  return sorted(
    {row.text(column, "object_column") for row in tables.read(rows)}
  )


def _template_of(path: str, relation: str) -> tuple[str, str]:
  """Find a relation's template: (place, template)."""
  known = []
  for row in tables.read(path):
    name = row.text("relation", "relations_file")
    if name == relation:
      return row.place, row.text("template", "relations_file")
    known.append(name)
  raise ValueError(
    f"{path}: no relation {relation!r}; it has {', '.join(known)}."
  )


def _slots(place: str, template: str, subject_column: str) -> str:
  """Write a template in the language of `prompting.template`."""
  if template.count(SUBJECT) != 1 or template.count(OBJECT) != 1:
    raise ValueError(
      f"{place}: expected {SUBJECT} and {OBJECT} once each, got {template!r}."
    )
  slots = {SUBJECT: json.dumps({"field": subject_column}), OBJECT: '{"mask"}'}
  parts = re.split(r"(\[X\]|\[Y\])", template)
  return "".join(
    slots.get(part, part.replace("{", '{"text": "{"}')) for part in parts
  )
