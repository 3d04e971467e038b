"""Several templates of one task: one templated task for each, with its rows.

They train together as the tasks of a bank, and are scored separately; a report
has their mean and the metrics of their combined answers.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from prompt_tuning.core import plain_text
from prompt_tuning.data import spec, templated
from prompt_tuning.prompting import template as parsing
from prompt_tuning.prompting.template import Template

_NUMBER = "_t"  # between the name of all and the number of one


def declare(
  name: str,
  source: str,
  templates: Sequence[str] = (),
  template_file: str | None = None,
  template_numbers: Sequence[int] | None = None,
  **settings: Any,
) -> tuple[str, ...]:
  """Declare a task for every template.

  Args:
    name: name of them all; the task of template 2 is called `<name>_t2`.
    source: see `templated.declare`.
    templates: the templates; or
    template_file: a file of templates, one per line.
    template_numbers: indices of its templates, from 0; None for all.
    **settings: other arguments of `templated.declare`, the same for all.

  Returns:
    The names of the tasks.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: fewer than two templates, or templates with different numbers of
      masks; see also `templated.declare`.
  """
  if bool(templates) == bool(template_file):
    raise ValueError(
      f"{name}: give either templates or template_file; expected one of the "
      "two."
    )
  if template_file:
    if template_numbers is None:
      lines = plain_text.text_lines(template_file)
      template_numbers = range(sum(bool(line.strip()) for line in lines))
    parsed = {k: parsing.read(template_file, k) for k in template_numbers}
  else:
    parsed = {
      k: parsing.parse(text, f"{name}: template {k}")
      for k, text in enumerate(templates)
    }
  _insist_alike(name, list(parsed.values()))
  names = []
  for number, template in parsed.items():
    given: dict[str, Any] = {"template": template.source}
    if template_file:  # errors name its lines
      given = {"template_file": template_file, "template_number": number}
    own = f"{name}{_NUMBER}{number}"
    names.append(templated.declare(own, source, **given, **settings).name)
  return tuple(names)


def groups(names: Iterable[str]) -> dict[str, list[str]]:
  """Group tasks that differ only in their templates.

  Args:
    names: names of tasks.

  Returns:
    Name of the group -> names of its tasks, at least two.
  """
  found: dict[str, list[str]] = {}
  kinds: dict[str, Any] = {}
  for name in names:
    task = spec.task(name)
    own, _, number = name.rpartition(_NUMBER)
    whole = own + number.lstrip("0123456789")  # `_k16_seed0` of a k-shot task
    if not templated.is_templated(task) or not number[:1].isdigit():
      continue
    kind = {**dataclasses.asdict(task.kshot)} if task.kshot else {}
    kind |= {k: v for k, v in task.content.items() if k != "template"}
    if kinds.setdefault(whole, kind) == kind:
      found.setdefault(whole, []).append(name)
  return {name: tasks for name, tasks in found.items() if len(tasks) > 1}


def _insist_alike(name: str, templates: Sequence[Template]) -> None:
  """Check that there are several templates, with the same number of masks."""
  if len(templates) < 2:
    raise ValueError(
      f"{name}: {len(templates)} template; expected two or more. For a single "
      "template use templated_task."
    )
  first, *others = templates
  for other in others:
    if other.masks != first.masks:
      raise ValueError(
        f"{other.place}: {other.masks} masks, but {first.place} has "
        f"{first.masks}. Templates of one task need the same number of masks."
      )
