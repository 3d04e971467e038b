"""The classes of a task, and their label words."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.core.types import EOS_ID, PAD_ID
from prompt_tuning.data import spec, templated
from prompt_tuning.models.scorers import (
  ClassTable,
  OutputRows,
  Scorer,
  WordsLike,
)
from prompt_tuning.prompting import label_words, rendering
from prompt_tuning.prompting.aggregation import LEARNED
from prompt_tuning.prompting.label_words import LabelWords, WordPieces
from prompt_tuning.prompting.rules import RulePieces, Rules
from prompt_tuning.tuners.word_rows import answer

Encode = Callable[[str], Sequence[int]]
logger = logging.getLogger(__name__)


def of_task(name: str, given: WordsLike, encode: Encode) -> ClassTable:
  """Find the classes of a task.

  Args:
    name: of a task, or of a mixture whose tasks have the same label words.
    given: see `scorers.WordsLike`.
    encode: the vocabulary's.

  Returns:
    Targets and words. The targets are the task's label words in their order, or
    the names of the given classes if the task has none. A templated task has
    its own words. Of these, words that the vocabulary lacks are left out, and
    also words of several pieces if the task says so. A warning names some of
    them, a message names all. Another warning names the classes that keep one
    such word because they have no other, and another one the classes whose
    given word is the name of another class.

  Raises:
    ValueError: there are no words, they are for other classes, or the
      vocabulary cannot distinguish them.
  """
  given_words, task = _given_words(name, given)
  if given is not None and isinstance(given_words, LabelWords):
    _warn_of_exchanged(name, given_words)
  names = _own_words(name)
  pieces: WordPieces
  if isinstance(given_words, Rules):
    masks = range(len(given_words.words[0]))
    sentinels = list(map(rendering.mask_text, masks))
    pieces = RulePieces.of_rules(given_words, sentinels, encode)
  else:
    names = names or given_words.classes
    start: tuple[int, ...] = ()
    keep = None
    if task is not None:
      start = rendering.word_start(task["target_format"], encode)
      keep = _kept(name, given_words, task, encode)
    pieces = WordPieces.of(given_words, encode, start, keep)
  targets = [[*encode(text), EOS_ID] for text in names]
  rows = np.full((len(targets), max(map(len, targets))), PAD_ID, np.int32)
  for row, ids in zip(rows, targets, strict=True):
    row[: len(ids)] = ids
  return ClassTable(names, rows, pieces)


def _warn_of_exchanged(name: str, words: LabelWords) -> None:
  """Warn if the user's word for a class is the name of another class.

  The user may mean it, or the list may have another order than the classes.
  """
  names = [answer(each).strip().casefold() for each in words.classes]
  exchanged = []
  for number, texts in enumerate(words.words):
    best = texts[words.best[number]]
    called = answer(best).strip().casefold()
    if called != names[number] and called in names:
      exchanged.append(f"{best!r} for the class {words.classes[number]!r}")
  if exchanged:
    logger.warning(
      "%s: LABEL_WORDS has %s, which is the name of another class. If you do "
      "not mean that, list the words in the order of the classes, %s, or give "
      "a mapping of classes to words.",
      *(name, " and ".join(exchanged), ", ".join(words.classes)),
    )


def words_of(name: str, given: WordsLike) -> LabelWords:
  """Find the words of a task's classes, for any vocabulary.

  Args:
    name: see `of_task`.
    given: see `of_task`.

  Raises:
    ValueError: see `of_task`; or a task of rules.
  """
  words, _ = _given_words(name, given)
  if isinstance(words, Rules):
    raise ValueError(
      f"{name} has rules, with a word at each mask, but TUNER learns numbers "
      "for label words of a single mask. Choose another TUNER, or another "
      "task."
    )
  return words


def insist_on_weighed(
  name: str,
  given: WordsLike,
  scorer: Scorer | None,
  weighed: Sequence[Sequence[str]],
) -> None:
  """Insist that learned weights belong to the words that are scored.

  Args:
    name: see `of_task`.
    given: see `of_task`.
    scorer: the scorer; the check applies only if it uses learned weights.
    weighed: for every class the words for which a run has weights; empty if it
      has none.

  Raises:
    ValueError: the weights are for other words, or in another order; see also
      `words_of`.
  """
  if getattr(scorer, "aggregate", "") != LEARNED or not weighed:
    return
  scored = words_of(name, given)
  if len(weighed) != len(scored.words):
    raise ValueError(
      f"{name} has {len(scored.words)} classes, but the run has weights for "
      f"the label words of {len(weighed)} classes. Choose another task, or "
      "another run."
    )
  for number, (ours, theirs) in enumerate(
    zip(scored.words, weighed, strict=True)
  ):
    if ours != tuple(theirs):
      raise ValueError(
        f"{scored.place(number)} of {name} has {len(ours)} label words, "
        f"{label_words.some(ours)}, but the run has weights for {len(theirs)} "
        f"other words, or in another order: {label_words.some(theirs)}. Set "
        "LABEL_WORDS, or the task's label words, to those of the run."
      )


def insist_on_answers(
  name: str,
  given: WordsLike,
  scorer: Scorer | None,
  answers: Sequence[str],
  *,
  in_training: bool = False,
) -> None:
  """Insist that learned output rows are those of the classes, in their order.

  A row belongs to a word, but scoring uses only the row's position. Its word
  must be the target or the first label word of the class at this position, each
  without a sentinel, because methods name rows after the targets of their task,
  or after LABEL_WORDS.

  Args:
    name: see `of_task`.
    given: see `of_task`.
    scorer: the scorer; the check applies only if it reads learned rows.
    answers: the words of a run's rows; empty if it has none.
    in_training: whether the rows train on this task. Then a word of no class is
      the user's choice for the class at its position.

  Raises:
    ValueError: there is not one row per class, or rows belong to other words;
      see also `of_task`.
  """
  if not isinstance(scorer, OutputRows) or not answers:
    return
  words, _ = _given_words(name, given)
  targets = [*map(answer, _own_words(name) or words.classes)]
  own = [{target} for target in targets]
  if isinstance(words, LabelWords):
    for of_class, texts in zip(own, words.words, strict=True):
      of_class.add(answer(texts[0]))
  found = (
    f"{name} has {len(own)} classes, {', '.join(targets):.120}, but the run "
    f"has {len(answers)} output rows, for {', '.join(answers):.120}."
  )
  if len(answers) != len(own):
    raise ValueError(
      f"{found} Choose another task or run, or one word per class for the "
      "method."
    )
  for row, target, of_class in zip(answers, targets, own, strict=True):
    if row not in of_class and any(row in of_other for of_other in own):
      raise ValueError(
        f"{found} Rows are read in their order, so the row for {row!r} would "
        f"score the class {target!r}. Choose another task or run, or list the "
        "method's words in the order of the classes."
      )
    if row not in of_class and not in_training:
      raise ValueError(
        f"{found} If these are rows of the same classes, in the same order, "
        "set LABEL_WORDS to the words of the rows. If not, choose another task "
        "or run."
      )


def _given_words(
  name: str, given: WordsLike
) -> tuple[LabelWords | Rules, Mapping[str, Any] | None]:
  """Return the words of classes, and what a templated task's spec says.

  Raises:
    ValueError: see `of_task`.
  """
  of_template = _template_words(name)
  if of_template is None:
    return _words(name, given, _own_words(name)), None
  words, content = of_template
  if given is not None and isinstance(words, Rules):
    raise ValueError(
      f"{name} has rules, with a word at each mask, but LABEL_WORDS are words "
      "of a single mask. Set LABEL_WORDS to None, or change the task's rules."
    )
  if given is not None:
    words = _words(name, given, words.classes)
  return words, content


def _template_words(
  name: str,
) -> tuple[LabelWords | Rules, Mapping[str, Any]] | None:
  """Return the label words or rules of a templated task, and its content.

  The tasks of a mixture have the same targets, so the first one stands for all,
  unless their words differ.

  Raises:
    ValueError: they do.
  """
  tasks = [task for task, _ in spec.get(name).components("train")]
  tasks = tasks or [spec.task(name)]
  words = [
    templated.label_words(task) or templated.rules(task) for task in tasks
  ]
  if any(other != words[0] for other in words):
    raise ValueError(
      f"The tasks of {name} have different label words. To score classes, the "
      "tasks of a run need the same label words. Train these tasks in separate "
      "runs."
    )
  if words[0] is None:
    return None
  return words[0], tasks[0].content


def _kept(
  name: str, words: LabelWords, content: Mapping[str, Any], encode: Encode
) -> Sequence[Sequence[bool]]:
  """Choose the words that are scored, and log which are not."""
  survey = label_words.survey(words, encode)
  single = content.get("several_pieces") == templated.DROP
  kept = label_words.scored(words, encode, single)
  lost = {"the vocabulary lacks": survey.unknown}
  if single:
    several = [word for word in survey.several if word not in kept.saved]
    lost["several pieces are"] = tuple(several)
  for what, of_kind in lost.items():
    if of_kind:
      logger.warning(
        "%s: %s %d of %d label words, which are not scored: %s.",
        *(name, what, len(of_kind), sum(survey.words)),
        label_words.some(of_kind),
      )
      logger.debug(
        "%s: %s, and so not scored: %s.",
        *(name, what, ", ".join(map(str, of_kind))),
      )
  if kept.saved:
    logger.warning(
      "%s: these label words have several pieces. They are scored anyway, "
      "because their classes have no word of one piece: %s.",
      *(name, ", ".join(map(str, kept.saved))),
    )
  return kept.words


def _own_words(name: str) -> tuple[str, ...]:
  """Return the label words that all tasks of a mixture share."""
  tasks = [task for task, _ in spec.get(name).components("train")]
  tasks = tasks or [spec.task(name)]
  lists = {task.label_words for task in tasks}
  if len(lists) > 1:
    raise ValueError(
      f"The tasks of {name} have different label words: "
      f"{'; '.join(', '.join(words) or 'none' for words in lists)}. To score "
      "classes, the tasks of a run need the same label words. Train these "
      "tasks in separate runs."
    )
  return lists.pop()


def _words(name: str, given: WordsLike, own: tuple[str, ...]) -> LabelWords:
  """Read the user's words; by default each class has its own word."""
  if given is None and not own:
    raise ValueError(
      f"{name} has no label words: set LABEL_WORDS (a file, or a mapping of "
      "targets to their words), or choose another OBJECTIVE and SCORER."
    )
  if isinstance(given, str):
    return label_words.read(given, classes=own)
  if given is None:
    given = own
  if not isinstance(given, Mapping):
    if own and len(given) != len(own):
      raise ValueError(
        f"LABEL_WORDS has {len(given)} words; expected one for each of the "
        f"{len(own)} classes of {name}: {', '.join(own)}."
      )
    names = own or [
      word if isinstance(word, str) else word[0] for word in given
    ]
    given = dict(zip(names, given, strict=True))
  if own and set(given) != set(own):
    raise ValueError(
      f"LABEL_WORDS has words for the classes {', '.join(given)}; expected "
      f"the classes of {name}: {', '.join(own)}."
    )
  return LabelWords.of({key: given[key] for key in own or given})
