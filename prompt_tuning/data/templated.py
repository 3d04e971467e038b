"""A task whose inputs a template writes, and whose classes have label words.

It is made of another task, a published one or one's own, of which it takes the
rows, the classes, the splits and the metrics.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.core import tree
from prompt_tuning.data import custom, postprocessors, spec
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.prompting import label_words as words_of_files
from prompt_tuning.prompting import rendering
from prompt_tuning.prompting import template as templates
from prompt_tuning.prompting.label_words import NO_BLANK, LabelWords
from prompt_tuning.prompting.rendering import Renderer
from prompt_tuning.prompting.template import Template

BENCHMARK = "templated"
MODULE = "prompt_tuning.data.tasks.templated"
# A token cache's column: how many tokens every part of the template has.
PARTS = "parts"
# What becomes of words that a setting asks about.
KEEP, DROP = "keep", "drop"


@dataclasses.dataclass(frozen=True)
class OfAnswers:
  """Reads a target, or a prediction of one, as the base task reads its own.

  Attributes:
    words: target text -> what the base task calls the class.
    base: the base task's postprocessor.
  """

  words: Mapping[str, str]
  base: spec.Postprocess

  def __call__(self, text: str, **of_seqio: Any) -> Any:
    """Postprocess a text, see `data.postprocessors`."""
    text = postprocessors.to_text(text).strip()
    return self.base(self.words.get(text, text), **of_seqio)


def declare(
  name: str,
  source: str,
  template: str = "",
  template_file: str | None = None,
  template_number: int = 0,
  label_words: Mapping[str, Any] | None = None,
  label_words_file: str | None = None,
  label_words_number: int = 0,
  classes: Sequence[str] = (),
  fields: Mapping[str, str] | None = None,
  target_format: str = rendering.SENTINEL,
  common_words: str = KEEP,
  several_pieces: str = KEEP,
) -> spec.TaskSpec:
  """Declare a task of a template and label words.

  Args:
    name: of the task: letters, digits, `_`, `.`, `:`.
    source: the task that has the rows and the classes: a published one, or one
      of `custom.declare`.
    template: see `prompting.template`; or
    template_file: a file of templates, one per line, as OpenPrompt has them.
    template_number: which of them, from 0.
    label_words: class -> its word, its words, or its words with weights; or
    label_words_file: see `prompting.label_words.read`.
    label_words_number: which list, where the file has several.
    classes: what the label words call the source's classes, in their order; by
      default what the source's own words are.
    fields: the template's name of a field -> the row's, where they differ:
      `{"text_a": "premise"}`.
    target_format: `sentinel` for a model of span corruption, `plain` for one
      that was trained to go on with a text; see `prompting.rendering.FORMATS`.
    common_words: `keep` or `drop` words of several classes; the first word of a
      class stays.
    several_pieces: `keep` or `drop`, where classes are scored, words of several
      pieces; what a model learns to answer stays.

  Returns:
    The registered spec. Its name works wherever a task's does, also with
    `_k16_seed0` behind it.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a bad argument, template or label word, a source without
      classes, or without the fields: with file and line.
  """
  custom.check_name(name)
  base = _base(name, source)
  if bool(template) == bool(template_file):
    raise ValueError(f"{name}: give template or template_file, one of them.")
  if (label_words is None) == (label_words_file is None):
    raise ValueError(
      f"{name}: give label_words or label_words_file, one of them."
    )
  parsed = (
    templates.read(template_file, template_number)
    if template_file
    else templates.parse(template, f"{name}: template")
  )
  names = tuple(classes) or base.label_words
  if len(names) != len(base.label_words):
    raise ValueError(
      f"{name}: {len(names)} classes, and {source} has "
      f"{len(base.label_words)}: {', '.join(base.label_words)}."
    )
  words = (
    words_of_files.read(label_words_file, names, label_words_number)
    if label_words_file
    else _in_order(name, label_words or {}, names)
  )
  choices = {"common_words": common_words, "several_pieces": several_pieces}
  for setting, value in choices.items():
    if value not in (KEEP, DROP):
      raise ValueError(
        f"{name}: {setting} {value!r}: expected {KEEP!r} or {DROP!r}."
      )
  if common_words == DROP:
    words = words.without_common()
  renamed = dict(fields or {})
  _check_fields(name, base, parsed, renamed)
  task = _task(
    *(name, base, parsed, words, renamed, target_format, several_pieces)
  )
  spec.add(task)
  return task


def is_templated(task: spec.TaskSpec) -> bool:
  """Whether `declare` made a task."""
  return task.benchmark == BENCHMARK


def label_words(task: spec.TaskSpec) -> LabelWords | None:
  """Return the label words of a task that `declare` made, None of another."""
  described = task.content.get("label_words")
  if not is_templated(task) or described is None:
    return None
  return LabelWords(
    tuple(described["classes"]),
    tuple(map(tuple, described["words"])),
    tuple(map(tuple, described["weights"])),
  )


def first_words(task: spec.TaskSpec) -> tuple[str, ...]:
  """Return the word of every class that a model learns to answer.

  Args:
    task: any; one that `declare` did not make has none.
  """
  words = label_words(task)
  if words is None:
    return ()
  return tuple(texts[0].removeprefix(NO_BLANK) for texts in words.words)


def renderer(task: spec.TaskSpec, vocabulary: Vocabulary) -> Renderer | None:
  """Return what writes the inputs of a task that `declare` made.

  Args:
    task: any.
    vocabulary: of the model.

  Returns:
    It, or None where another task has no template.
  """
  if not is_templated(task):
    return None
  parsed = templates.parse(task.content["template"], task.name)
  target_format = task.content["target_format"]
  return Renderer(parsed, vocabulary.encode, target_format)


def field_of_row(task: spec.TaskSpec, field: str) -> str:
  """Return the row's name of a template's field."""
  return str(task.content["fields"].get(field, field))


def _base(name: str, source: str) -> spec.TaskSpec:
  base = spec.task(source)
  if base.kshot or base.benchmark == BENCHMARK:
    raise ValueError(
      f"{name}: the source {source!r} is itself made of another task; name "
      f"that. `{name}{spec.KSHOT_ENDING}` is a k-shot task of this one."
    )
  if not base.label_words:
    raise ValueError(
      f"{name}: the source {source!r} has no classes, so that no word can "
      "stand for one."
    )
  if base.source == spec.GENERATED:
    raise ValueError(f"{name}: the source {source!r} has no rows of fields.")
  return base


def _in_order(
  name: str, words: Mapping[str, Any], classes: Sequence[str]
) -> LabelWords:
  """Put label words into the order of class ids."""
  unknown = [key for key in words if key not in classes]
  missing = [key for key in classes if key not in words]
  if unknown or missing:
    wrong = unknown[0] if unknown else missing[0]
    what = "unknown" if unknown else "no words of"
    raise ValueError(
      f"{name}: label_words: {what} class {wrong!r}."
      f"{tree.nearest(str(wrong), classes) if unknown else ''} Expected: "
      f"{', '.join(classes)}."
    )
  return LabelWords.of({key: words[key] for key in classes})


def _check_fields(
  name: str, base: spec.TaskSpec, template: Template, fields: Mapping[str, str]
) -> None:
  """Insist that fields are renamed which are there, and that files have them.

  Those of a TFDS source are not known before its rows are read.
  """
  for field in fields:
    if field not in template.fields:
      raise ValueError(
        f"{name}: fields: the template has no field {field!r}."
        f"{tree.nearest(field, template.fields)} It has: "
        f"{', '.join(template.fields) or 'none'}."
      )
  if base.source != spec.FILE:
    return
  for split in base.splits:
    row = custom.first_row(base, split)
    for field in template.fields:
      row.value(fields.get(field, field), template.place)


def _task(
  name: str,
  base: spec.TaskSpec,
  template: Template,
  words: LabelWords,
  fields: Mapping[str, str],
  target_format: str,
  several_pieces: str,
) -> spec.TaskSpec:
  rendering.check_format(template, target_format)
  if template.masks != 1:
    raise ValueError(
      f"{template.place}: {template.masks} masks; label words answer one."
    )
  answers = [
    [rendering.target([word], target_format) for word in texts]
    for texts in words.words
  ]
  targets = tuple(texts[0] for texts in answers)
  if len(set(targets)) < len(targets):
    raise ValueError(
      f"{name}: two classes have the same first label word, which is what a "
      f"model learns to answer: {', '.join(targets)}."
    )
  return dataclasses.replace(
    base,
    name=name,
    benchmark=BENCHMARK,
    module=MODULE,
    label_words=targets,
    postprocess=OfAnswers(
      _class_of(answers, base.label_words), base.postprocess
    ),
    log_examples=False,
    content={
      "base": base.identity(),
      "template": template.source,
      "target_format": target_format,
      "fields": dict(fields),
      # Caches and runs of before know nothing of it.
      **({"several_pieces": DROP} if several_pieces == DROP else {}),
      "label_words": {
        "classes": list(words.classes),
        "words": [list(texts) for texts in words.words],
        "weights": [list(weights) for weights in words.weights],
      },
    },
  )


def _class_of(
  answers: Sequence[Sequence[str]], classes: Sequence[str]
) -> dict[str, str]:
  """Map every answer to its class, but for those of several classes.

  The first answer of a class, its target, is always its own.
  """
  owners: dict[str, set[str]] = {}
  for texts, name in zip(answers, classes, strict=True):
    for text in texts:
      owners.setdefault(text, set()).add(name)
  result = {
    text: next(iter(names)) for text, names in owners.items() if len(names) == 1
  }
  first = {t[0]: name for t, name in zip(answers, classes, strict=True)}
  return result | first
