"""Tasks of one form, for pre-training a prompt and for using it (PPT).

A prompt is first trained on a task made of plain text, which has the form of
the real task; then on a few examples of the real task. `pretraining` declares
the former; `in_form` writes any task in the same form. Both are templated tasks
with the same label words, so that the prompt need not learn new ones.

  sentence_pair     text_a <mask> text_b                 yes, maybe, no
  single_sentence   text <mask>                terrible, bad, maybe, good, great
  multiple_choice   text ? A. one B. another ? The correct one is <mask>   A, B
  unified           any task of classes, with their words as options     A, B

A letter is the piece without a leading blank, `<!>A`: 188 in T5's vocabulary,
where `A` in a text is 71. A plain target begins with a blank, so that its
letter is the piece of a text (71).

Source: Gu et al. 2021, section 3.
"""

import dataclasses
import functools
import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_tuning.core import files, tree
from prompt_tuning.data import (
  corpus,
  custom,
  lexicon,
  postprocessors,
  sentence_tasks,
  sentences,
  spec,
  templated,
)
from prompt_tuning.data.metrics import classification
from prompt_tuning.data.sentence_tasks import Labeller, Passage, Row
from prompt_tuning.prompting import rendering
from prompt_tuning.prompting.label_words import NO_BLANK

BENCHMARK = "sentences"
MODULE = "prompt_tuning.data.tasks.ppt"

SENTENCE_PAIR, SINGLE = "sentence_pair", "single_sentence"
CHOICE, UNIFIED = "multiple_choice", "unified"
_CHOOSE = '{"options"} ? The correct one is {"mask"}'
# Form -> its template, as in the paper, section 3.
TEMPLATES: Mapping[str, str] = {
  SENTENCE_PAIR: '{"placeholder": "text_a"} {"mask"} {"placeholder": "text_b"}',
  SINGLE: '{"placeholder": "text_a"} {"mask"}',
  CHOICE: f'{{"placeholder": "text_a"}} ? {_CHOOSE}',
  UNIFIED: f'{{"placeholder": "text_a"}} ? {_CHOOSE}',
}
# A unified task of pairs has both sentences before its options.
_UNIFIED_PAIR = (
  f'{{"placeholder": "text_a"}} {{"placeholder": "text_b"}} ? {_CHOOSE}'
)
_PAIR_WORDS = ("no", "maybe", "yes")
_OPTIONS_SLOT = '{"options"}'


@dataclasses.dataclass(frozen=True)
class Rows:
  """The source of the rows of a task made of plain text.

  Attributes:
    text: the corpus.
    form: the form, a key of `TEMPLATES`.
    examples: split -> number of rows.
    seed: seed of the draws.
    options: numbers of options; the rows use them in turn.
    labeller: labels single sentences.
    classes: names of the classes.
    max_words: longer sentences are cut to this; None for no limit.
    shuffled: whether every row gets the label of another.
  """

  text: corpus.Text
  form: str
  examples: Mapping[str, int]
  seed: int
  options: tuple[int, ...]
  labeller: Labeller
  classes: tuple[str, ...]
  max_words: int | None
  shuffled: bool

  def of_split(self, split: str) -> list[Row]:
    """Make the rows of a split.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: too little text, or an unknown class: with file and line.
    """
    passages = list(self._passages(split))
    if not passages:
      raise ValueError(
        f"{self.text.files[split]}: the corpus has no sentence; expected text "
        "with a letter or a digit."
      )
    rows = list(self._make(passages, self.examples[split]))
    if self.shuffled:
      return sentence_tasks.shuffle_labels(rows, self.seed)
    return rows

  def content(self) -> dict[str, Any]:
    """Describe everything that decides the rows, as JSON values."""
    described = {
      "version": sentence_tasks.VERSION,
      "text": self.text.content(),
      "form": self.form,
      "examples": dict(self.examples),
      "seed": self.seed,
      "max_words": self.max_words,
      "shuffled": self.shuffled,
    }
    if self.form == SINGLE:
      described |= {
        "labeller": _described(self.labeller),
        "classes": list(self.classes),
      }
    elif self.form != SENTENCE_PAIR:
      described["options"] = list(self.options)
    return described

  def _make(self, passages: Sequence[Passage], count: int) -> Any:
    arguments = (passages, count, self.seed)
    if self.form == SENTENCE_PAIR:
      return sentence_tasks.pairs(*arguments)
    if self.form == SINGLE:
      return sentence_tasks.labelled(*arguments, self.labeller, self.classes)
    return sentence_tasks.choices(*arguments, self.options)

  def _passages(self, split: str) -> Any:
    for place, document in self.text.placed_documents(split):
      if document.answer:
        raise ValueError(
          f"{place}: the line has a question with an answer; expected running "
          "text ('text')."
        )
      texts = tuple(
        " ".join(text.split()[: self.max_words])
        for text in sentences.split(document.text)
      )
      if texts:
        yield Passage(place, texts)


# Task -> source of its rows, for seqio's registration.
_rows: dict[str, Rows] = {}


def pretraining(
  name: str,
  form: str,
  text: corpus.Text,
  examples: Mapping[str, int] | None = None,
  seed: int = 0,
  options: int = 6,
  labeller: Labeller | str = lexicon.label,
  label_words: Mapping[str, Any] | None = None,
  max_words: int | None = None,
  template: str = "",
  target_format: str = rendering.SENTINEL,
  shuffled: bool = False,
) -> spec.TaskSpec:
  """Declare a task made of plain text, for pre-training a prompt.

  Args:
    name: name of the task: letters, digits, `_`, `.`, `:`.
    form: `sentence_pair`: adjacent sentences, two of a document that are not
      adjacent, and two of different documents, a third each. `single_sentence`:
      the labeller's class. `multiple_choice`: which sentence follows; one wrong
      option is of the same document. `unified`: the same with 2 to 16 options,
      each number equally often.
    text: the corpus.
    examples: split of the corpus -> rows; by default 10,000 to train on, and
      512 of `validation`.
    seed: seed of the rows.
    options: number of options of `multiple_choice`.
    labeller: labels the rows of `single_sentence`: a function of a sentence
      that returns a class, or None for no label; or `module:function`. By
      default `lexicon.label`; the paper's was RoBERTa, fine-tuned on Yelp's
      stars. The cache key has the hash of its module and its values (arguments
      of a partial, attributes, captured variables) as far as they are JSON; if
      its answers change in another way, choose another task name.
    label_words: class -> its word or words. By default the paper's words, see
      the module. For other classes, of the user's own labeller, they must be
      given, in the order of the classes.
    max_words: longer sentences are cut to this. Options are not shortened in
      any other way, and many long options may not fit.
    template: a template in place of the form's, see `prompting.template`.
    target_format: `sentinel` or `plain`, see `prompting.rendering.FORMATS`.
    shuffled: give every row the label of another, as a control.

  Returns:
    The registered spec.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a bad argument.
  """
  custom.check_name(name)
  check_form(name, form)
  counts = _counts(name, text, examples)
  if form == CHOICE and options not in sentence_tasks.UNIFIED_OPTIONS:
    raise ValueError(f"{name}: options {options}: expected 2 to 16.")
  sizes = (options,) if form == CHOICE else sentence_tasks.UNIFIED_OPTIONS
  words = dict(label_words or _words_of_form(form, sizes, target_format))
  classes = tuple(words)
  if form == SENTENCE_PAIR:
    classes = sentence_tasks.PAIR_CLASSES
    _insist_on_classes(name, words, classes)
  rows = Rows(
    text=text,
    form=form,
    examples=counts,
    seed=seed,
    options=sizes,
    labeller=_callable(name, labeller),
    classes=classes,
    max_words=max_words,
    shuffled=shuffled,
  )
  source = _source(f"{name}_rows", rows)
  return templated.declare(
    name,
    source.name,
    template=template or TEMPLATES[form],
    label_words=words,
    target_format=target_format,
  )


def in_form(
  name: str,
  source: str,
  form: str,
  fields: Mapping[str, str],
  label_words: Mapping[str, Any] | None = None,
  options: Sequence[str] | Mapping[str, str] = (),
  template: str = "",
  target_format: str = rendering.SENTINEL,
) -> spec.TaskSpec:
  """Declare a task in the form on which a prompt was pre-trained.

  Args:
    name: name of the task.
    source: the task with the rows and the classes, see `templated.declare`.
    form: see `pretraining`.
    fields: `text_a`, and for pairs `text_b` -> the row's field.
    label_words: for `sentence_pair` and `single_sentence`: class -> one of the
      words of pre-training: `{"entailment": "yes", ...}`.
    options: for `multiple_choice`: the row's fields with the options, in the
      order of the classes, or the one field with a list of them. For `unified`:
      class -> text of its option, by default the class name.
    template: a template in place of the form's, such as a hard pattern with the
      user's own words (the paper's hybrid). `{"options"}` stands for the
      options.
    target_format: see `pretraining`.

  Returns:
    The registered spec.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a bad argument.
  """
  check_form(name, form)
  classes = spec.task(source).label_words
  pattern = template or TEMPLATES[form]
  if form == UNIFIED and not template and "text_b" in fields:
    pattern = _UNIFIED_PAIR
  if form in (SENTENCE_PAIR, SINGLE):
    if not label_words or options:
      raise ValueError(
        f"{name}: a task of the form {form} needs label_words, class -> word, "
        "and no options."
      )
    words: Mapping[str, Any] = label_words
  else:
    if label_words or (form == CHOICE and not options):
      raise ValueError(
        f"{name}: the words of the form {form} are letters: give options, and "
        "no label_words."
      )
    _insist_on_slot(name, form, pattern)
    shown = (
      _option_fields(name, options, classes)
      if form == CHOICE
      else _option_words(name, options, classes)
    )
    pattern = pattern.replace(_OPTIONS_SLOT, shown)
    letters = _letters(len(classes), target_format)
    words = dict(zip(classes, letters, strict=True))
  return templated.declare(
    name,
    source,
    template=pattern,
    label_words=words,
    fields=fields,
    target_format=target_format,
  )


def rows_of(task: str) -> Rows:
  """Return the source of the rows of a task that `pretraining` declared."""
  return _rows[task]


def check_form(name: str, form: str) -> None:
  """Check that a form exists.

  Raises:
    ValueError: an unknown form.
  """
  if form not in TEMPLATES:
    raise ValueError(
      f"{name}: unknown form {form!r}.{tree.nearest(form, TEMPLATES)} Expected "
      f"one of {', '.join(TEMPLATES)}."
    )


def _source(name: str, rows: Rows) -> spec.TaskSpec:
  """Add the spec of the rows, which has no text form of its own."""
  task = spec.TaskSpec(
    name=name,
    benchmark=BENCHMARK,
    dataset=rows.text.name,
    module=MODULE,
    source=spec.GENERATED,
    splits={split: split for split in rows.examples},
    label_words=rows.classes,
    postprocess=postprocessors.LabelId(rows.classes),
    metrics=(classification.accuracy,),
    eval_features=("idx",),
    content=rows.content(),
  )
  spec.add(task)
  _rows[name] = rows
  return task


def _counts(
  name: str, text: corpus.Text, given: Mapping[str, int] | None
) -> dict[str, int]:
  if given is None:
    usual = {corpus.TRAIN: 10_000, corpus.VALIDATION: 512}
    given = {split: usual[split] for split in text.splits}
  for split, count in given.items():
    if split not in text.splits or count < 1:
      raise ValueError(
        f"{name}: examples {dict(given)}: expected numbers from 1 of the "
        f"corpus's splits: {', '.join(text.splits)}."
      )
  return dict(given)


def _words_of_form(
  form: str, sizes: Sequence[int], target_format: str
) -> dict[str, str]:
  """Return class -> word, as in the paper."""
  if form == SENTENCE_PAIR:
    return dict(zip(sentence_tasks.PAIR_CLASSES, _PAIR_WORDS, strict=True))
  if form == SINGLE:
    return {name: name for name in lexicon.CLASSES}
  letters = _letters(max(sizes), target_format)
  names = sentence_tasks.letter_classes(max(sizes))
  return dict(zip(names, letters, strict=True))


def _letters(count: int, target_format: str) -> list[str]:
  """Return the letters of choices, see the module."""
  mark = NO_BLANK if target_format == rendering.SENTINEL else ""
  return [mark + letter for letter in sentence_tasks.letter_classes(count)]


def _insist_on_classes(
  name: str, words: Mapping[str, Any], classes: Sequence[str]
) -> None:
  if set(words) != set(classes):
    raise ValueError(
      f"{name}: label_words of {', '.join(map(str, words))}; expected the "
      f"classes {', '.join(classes)}."
    )


def _insist_on_slot(name: str, form: str, pattern: str) -> None:
  """Check that a template shows the options."""
  if _OPTIONS_SLOT not in pattern:
    raise ValueError(
      f"{name}: template {pattern!r}: a task of the form {form} is answered by "
      f"the letters of its options; write {_OPTIONS_SLOT} where they stand."
    )


def _option_fields(
  name: str,
  options: Sequence[str] | Mapping[str, str],
  classes: Sequence[str],
) -> str:
  """Write the slot of options in fields of the row."""
  if isinstance(options, Mapping | str):
    raise ValueError(
      f"{name}: options {options!r}: expected a list of the row's fields."
    )
  if len(options) not in (1, len(classes)):
    raise ValueError(
      f"{name}: options {list(options)}: expected a field for each of "
      f"{len(classes)} classes, or one that lists them all."
    )
  return json.dumps({"options": list(options)})


def _option_words(
  name: str,
  options: Sequence[str] | Mapping[str, str],
  classes: Sequence[str],
) -> str:
  """Write options that are the same in every row: the classes' words."""
  words = options or {label: label for label in classes}
  if not isinstance(words, Mapping):
    raise ValueError(
      f"{name}: options {options!r}: expected class -> how it is called."
    )
  _insist_on_classes(name, words, classes)
  letters = sentence_tasks.letter_classes(len(classes))
  pairs = zip(letters, classes, strict=True)
  text = " ".join(f"{letter}. {words[label]}" for letter, label in pairs)
  return json.dumps({"text": text}, ensure_ascii=False)


def _callable(name: str, labeller: Labeller | str) -> Labeller:
  if callable(labeller):
    return labeller
  module, _, attribute = labeller.partition(":")
  try:
    function: Callable[..., Any] = getattr(
      importlib.import_module(module), attribute
    )
  except (ImportError, AttributeError, ValueError) as error:
    raise ValueError(
      f"{name}: labeller {labeller!r}: {error}. Expected module:function, in a "
      "module that Python finds."
    ) from error
  return function


def _described(labeller: Labeller) -> list[str]:
  """Describe a labeller by its name, the hash of its module, and its values."""
  if isinstance(labeller, functools.partial):
    held = [*labeller.args, labeller.keywords]
    return [*_described(labeller.func), _held(held)]
  written: Any = inspect.unwrap(labeller)
  holds: list[Any] = []
  if inspect.ismethod(written) or inspect.isbuiltin(written):
    owner = written.__self__
    holds = [] if inspect.ismodule(owner) else [owner]
    written = getattr(written, "__func__", written)
  elif inspect.isfunction(written):
    holds = [cell.cell_contents for cell in written.__closure__ or ()]
  else:
    holds = [written]
    written = type(written)
  try:
    path = inspect.getsourcefile(written)
  except TypeError:  # not written in Python
    path = None
  described = [_named(written), files.file_sha256(path) if path else ""]
  return [*described, _held(holds)] if holds else described


def _held(values: Sequence[Any]) -> str:
  """Write a labeller's values; values outside JSON are named by their class."""
  return json.dumps([_in_json(value, _attributes) for value in values])


def _in_json(value: Any, otherwise: Callable[[Any], Any]) -> Any:
  try:
    return json.loads(json.dumps(value, sort_keys=True))
  except (TypeError, ValueError):  # of another kind, or within itself
    return otherwise(value)


def _attributes(value: Any) -> Any:
  if isinstance(value, type) or inspect.isroutine(value):
    return _named(value)
  held = sorted(getattr(value, "__dict__", {}).items())
  kind = _named(type(value))
  return [kind, {name: _in_json(one, _kind) for name, one in held}]


def _kind(value: Any) -> str:
  return _named(type(value))


def _named(written: Any) -> str:
  # A method of a type that is not written in Python names no module.
  module = getattr(written, "__module__", "")
  return f"{module}:{written.__qualname__}"
