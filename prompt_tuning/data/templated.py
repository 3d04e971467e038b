"""Tasks whose inputs come from a template, with label words for classes.

A class has label words, any of which answers the only mask, or a rule, with one
word for each of several masks.

A templated task uses the rows, the classes, the splits and the metrics of
another task, a published one or a user's own.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.core import tree
from prompt_tuning.data import custom, postprocessors, spec
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.prompting import label_words as words_of_files
from prompt_tuning.prompting import rendering
from prompt_tuning.prompting import rules as files_of_rules
from prompt_tuning.prompting import template as templates
from prompt_tuning.prompting.label_words import NO_BLANK, LabelWords
from prompt_tuning.prompting.rendering import Renderer
from prompt_tuning.prompting.rules import Rules
from prompt_tuning.prompting.template import Template

logger = logging.getLogger(__name__)

BENCHMARK = "templated"
MODULE = "prompt_tuning.data.tasks.templated"
# A column of the token cache: number of tokens of every part of the template.
PARTS = "parts"
# Values of the settings about words: keep or drop them.
KEEP, DROP = "keep", "drop"
# Keys of a spec's `places`: the template, and the words of every class.
_TEMPLATE, _ANSWERS = "template", "answers"


@dataclasses.dataclass(frozen=True)
class OfAnswers:
  """Reads targets and predictions as the base task reads its own.

  Attributes:
    words: target text -> the base task's name of the class.
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
  sub_prompts: Sequence[str] = (),
  rules: Mapping[str, Sequence[str]] | None = None,
  rules_file: str | None = None,
  substitutes: Mapping[str, str] | None = None,
  reversed_order: Sequence[int] = (),
  reversed_classes: Sequence[str] = (),
) -> spec.TaskSpec:
  """Declare a task with a template and label words.

  Args:
    name: name of the task: letters, digits, `_`, `.`, `:`.
    source: the task with the rows and the classes: a published one, or one of
      `custom.declare`.
    template: see `prompting.template`; or
    sub_prompts: templates that are joined into one, each with its own masks,
      such as those for the conditions of a rule; or
    template_file: a file of templates, one per line, as OpenPrompt has them.
    template_number: index of the template in the file, from 0.
    label_words: class -> its word, its words, or its words with weights, any of
      which answers the only mask; or
    label_words_file: see `prompting.label_words.read`.
    label_words_number: index of the list, if the file has several; or
    rules: class -> its words, one for each mask; or
    rules_file: see `prompting.rules.read`.
    classes: the names of the source's classes in label words or rules, in the
      order of the classes; by default the source's own words.
    fields: the template's name of a field -> the row's name, if they differ:
      `{"text_a": "premise"}`.
    target_format: `sentinel` for a model of span corruption, `plain` for one
      that was trained to continue a text; see `prompting.rendering.FORMATS`.
    common_words: `keep` or `drop` words of several classes; the best word of a
      class is kept (the first of equals), with a warning if the class has no
      other.
    several_pieces: `keep` or `drop` words of several pieces when classes are
      scored. A class without other words keeps one; the targets of training
      stay the same.
    substitutes: word of the rules -> word to use instead, for example one with
      a single piece.
    reversed_order: for every mask, the index of the word that answers it in
      rules with head and tail exchanged, see `prompting.rules.Rules.exchanged`.
    reversed_classes: the classes of these rules, besides those that the rules
      file marks.

  Returns:
    The registered spec. Its name can be used like that of any task, also with
    the suffix `_k16_seed0`.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a bad argument, template or label word, a source without
      classes, or without the fields: with file and line.
  """
  custom.check_name(name)
  base = _base(name, source)
  parsed = _template(
    name, template, sub_prompts, template_file, template_number
  )
  names = tuple(classes) or base.label_words
  if len(names) != len(base.label_words):
    raise ValueError(
      f"{name}: {len(names)} classes, but {source} has "
      f"{len(base.label_words)}: {', '.join(base.label_words)}."
    )
  given = (label_words, label_words_file, rules, rules_file)
  if sum(value is not None for value in given) != 1:
    raise ValueError(
      f"{name}: give one of label_words, label_words_file, rules and "
      "rules_file. Rules are for classes that have a word at each mask."
    )
  renamed = dict(fields or {})
  if rules is None and rules_file is None:
    if substitutes or reversed_order or reversed_classes:
      raise ValueError(
        f"{name}: substitutes, reversed_order and reversed_classes belong to "
        "rules, but the task has none. Set rules or rules_file, or leave them "
        "out."
      )
    words = (
      words_of_files.read(label_words_file, names, label_words_number)
      if label_words_file
      else _in_order(name, label_words or {}, names)
    )
    places = words.places
    content, targets = _of_words(
      name, parsed, words, target_format, common_words, several_pieces
    )
  else:
    read = (
      files_of_rules.read(rules_file, names)
      if rules_file
      else Rules.of(rules or {}).in_order(names)
    )
    read.insist_on(parsed.masks, parsed.place)
    read = read.exchanged(reversed_order, reversed_classes)
    read = read.with_substitutes(substitutes or {})
    places = read.places
    content, targets = _of_rules(read, parsed, target_format)
  _check_fields(name, base, parsed, renamed)
  task = _task(name, base, parsed, content, targets, renamed, target_format)
  task = dataclasses.replace(
    task, places={_TEMPLATE: (parsed.place,), _ANSWERS: places}
  )
  spec.add(task)
  return task


def is_templated(task: spec.TaskSpec) -> bool:
  """Whether `declare` made a task."""
  return task.benchmark == BENCHMARK


def label_words(task: spec.TaskSpec) -> LabelWords | None:
  """Return the label words of a task that `declare` made; else None."""
  described = task.content.get("label_words")
  if not is_templated(task) or described is None:
    return None
  return LabelWords(
    tuple(described["classes"]),
    tuple(map(tuple, described["words"])),
    tuple(map(tuple, described["weights"])),
    tuple(task.places.get(_ANSWERS, ())),
  )


def rules(task: spec.TaskSpec) -> Rules | None:
  """Return the rules of a task that `declare` made from rules; else None."""
  described = task.content.get("rules")
  if not is_templated(task) or described is None:
    return None
  return Rules.of(
    dict(zip(described["classes"], described["words"], strict=True)),
    task.places.get(_ANSWERS, ()),
  )


def first_words(task: spec.TaskSpec) -> tuple[str, ...]:
  """Return the word of every class that is the target in training.

  Args:
    task: any task; empty if `declare` did not make it. For rules, all words of
      a class.
  """
  words, of_masks = label_words(task), rules(task)
  if of_masks is not None:
    return tuple(
      " ".join(word.removeprefix(NO_BLANK) for word in of_class)
      for of_class in of_masks.words
    )
  if words is None:
    return ()
  return tuple(texts[0].removeprefix(NO_BLANK) for texts in words.words)


def renderer(task: spec.TaskSpec, vocabulary: Vocabulary) -> Renderer | None:
  """Return the renderer of the inputs of a task that `declare` made.

  Args:
    task: any task.
    vocabulary: vocabulary of the model.

  Returns:
    The renderer, or None if the task has no template.
  """
  if not is_templated(task):
    return None
  target_format = task.content["target_format"]
  return Renderer(_parsed(task), vocabulary.encode, target_format)


def has_soft(name: str) -> bool:
  """Whether a template places the virtual tokens.

  Args:
    name: name of a task or mixture; for a mixture, whether any of its tasks
      does.
  """
  entry = spec.get(name)
  names = entry.rates if isinstance(entry, spec.MixtureSpec) else [name]
  return any(places_tokens(spec.task(one).content) for one in names)


def places_tokens(content: Mapping[str, Any]) -> bool:
  """The same for a task that may be registered only in another process.

  Args:
    content: content of its spec, perhaps read from a file.
  """
  template = content.get("template")
  if "target_format" not in content or not isinstance(template, str):
    return False
  try:
    return templates.parse(template).has_soft
  except ValueError:  # the language of another version
    return False


def field_of_row(task: spec.TaskSpec, field: str) -> str:
  """Return the row's name of a template's field."""
  return str(task.content["fields"].get(field, field))


def _parsed(task: spec.TaskSpec) -> Template:
  (place,) = task.places.get(_TEMPLATE, (task.name,))
  return templates.parse(task.content["template"], place)


def _template(
  name: str,
  template: str,
  sub_prompts: Sequence[str],
  template_file: str | None,
  template_number: int,
) -> Template:
  """Parse the template, given in one of three ways."""
  if sum(map(bool, (template, sub_prompts, template_file))) != 1:
    raise ValueError(
      f"{name}: give one of template, template_file and sub_prompts."
    )
  if template_file:
    return templates.read(template_file, template_number)
  if sub_prompts:
    return templates.compose(sub_prompts, f"{name}: sub_prompts")
  return templates.parse(template, f"{name}: template")


def _of_words(
  name: str,
  template: Template,
  words: LabelWords,
  target_format: str,
  common_words: str,
  several_pieces: str,
) -> tuple[dict[str, Any], list[list[str]]]:
  """Describe label words, and write every class's targets."""
  choices = {"common_words": common_words, "several_pieces": several_pieces}
  for setting, value in choices.items():
    if value not in (KEEP, DROP):
      raise ValueError(
        f"{name}: {setting} {value!r}: expected {KEEP!r} or {DROP!r}."
      )
  if common_words == DROP:
    words = _without_common(name, words)
  rendering.check_format(template, target_format)
  if template.masks != 1:
    raise ValueError(
      f"{template.place}: {template.masks} masks; label words answer only "
      "one. Give rules or rules_file, with a word for each mask."
    )
  targets = [
    [rendering.target([word], target_format) for word in texts]
    for texts in words.words
  ]
  firsts = [texts[0] for texts in targets]
  for number, text in enumerate(firsts):
    if text in firsts[:number]:
      other = words.place(firsts.index(text))
      raise ValueError(
        f"{name}: {words.place(number)} and {other} have the same first label "
        f"word, {text!r}. A model learns to answer this word: give each class "
        "another one."
      )
  content = {
    "classes": list(words.classes),
    "words": [list(texts) for texts in words.words],
    "weights": [list(weights) for weights in words.weights],
  }
  # Older caches and runs do not have it.
  dropped = {"several_pieces": DROP} if several_pieces == DROP else {}
  return {**dropped, "label_words": content}, targets


def _without_common(name: str, words: LabelWords) -> LabelWords:
  """Drop words of several classes; warn of classes with no other words."""
  for number in words.only_common:
    logger.warning(
      "%s: %s: other classes also have all its words; it keeps its best word, "
      "%r.",
      *(name, words.place(number), words.words[number][words.best[number]]),
    )
  return words.without_common()


def _of_rules(
  rules: Rules, template: Template, target_format: str
) -> tuple[dict[str, Any], list[list[str]]]:
  """Describe rules, and write every class's target."""
  rendering.check_format(template, target_format)
  targets = [rendering.target(words, target_format) for words in rules.words]
  for number, text in enumerate(targets):
    if text in targets[:number]:
      other = rules.place(targets.index(text))
      raise ValueError(
        f"{rules.place(number)} has the same words as {other}: the model "
        "cannot tell the two classes apart."
      )
  content = {
    "classes": list(rules.classes),
    "words": [list(texts) for texts in rules.words],
  }
  return {"rules": content}, [[text] for text in targets]


def _base(name: str, source: str) -> spec.TaskSpec:
  base = spec.task(source)
  if base.kshot or base.benchmark == BENCHMARK:
    raise ValueError(
      f"{name}: the source {source!r} is itself made from another task: name "
      f"that task as source. `{name}{spec.KSHOT_ENDING}` is a k-shot task of "
      "this one."
    )
  if not base.label_words:
    raise ValueError(
      f"{name}: the source {source!r} has no classes, but label words need "
      "classes. Choose another source."
    )
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
  """Check that renamed fields are in the template, and that files have them.

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
  answered: Mapping[str, Any],
  targets: Sequence[Sequence[str]],
  fields: Mapping[str, str],
  target_format: str,
) -> spec.TaskSpec:
  return dataclasses.replace(
    base,
    name=name,
    benchmark=BENCHMARK,
    module=MODULE,
    label_words=tuple(texts[0] for texts in targets),
    postprocess=OfAnswers(
      _class_of(targets, base.label_words), base.postprocess
    ),
    log_examples=False,
    content={
      "base": base.identity(),
      "template": template.source,
      "target_format": target_format,
      "fields": dict(fields),
      **answered,
    },
  )


def _class_of(
  targets: Sequence[Sequence[str]], classes: Sequence[str]
) -> dict[str, str]:
  """Map every target to its class, except targets of several classes.

  The first one of a class is always its own.
  """
  owners: dict[str, set[str]] = {}
  for texts, name in zip(targets, classes, strict=True):
    for text in texts:
      owners.setdefault(text, set()).add(name)
  result = {
    text: next(iter(names)) for text, names in owners.items() if len(names) == 1
  }
  first = {t[0]: name for t, name in zip(targets, classes, strict=True)}
  return result | first
