"""The classes of a task, and the words by which a model names them."""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prompt_tuning.core.types import EOS_ID, PAD_ID
from prompt_tuning.data import spec, templated
from prompt_tuning.models.scorers import ClassTable, WordsLike
from prompt_tuning.prompting import label_words, rendering
from prompt_tuning.prompting.label_words import LabelWords, WordPieces

Encode = Callable[[str], Sequence[int]]
logger = logging.getLogger(__name__)


def of_task(name: str, given: WordsLike, encode: Encode) -> ClassTable:
  """Find the classes of a task.

  Args:
    name: of a task, or of a mixture whose tasks have the same label words.
    given: see `scorers.WordsLike`.
    encode: the vocabulary's.

  Returns:
    Answers and words. The answers are the task's label words, in their order;
    of a task without any, the names of the given classes. A task of a template
    has words of its own; those that the vocabulary lacks are dropped, and named
    in a warning.

  Raises:
    ValueError: no words, words of other classes, or ones that the vocabulary
      cannot tell apart.
  """
  own = _own_words(name)
  start: tuple[int, ...] = ()
  of_template = _template_words(name)
  if of_template:
    words, target_format = of_template
    if given is not None:
      words = _words(name, given, words.classes)
    start = rendering.word_start(target_format, encode)
    words = _known(name, words, encode)
  else:
    words = _words(name, given, own)
  names = own or words.classes
  answers = [[*encode(text), EOS_ID] for text in names]
  rows = np.full((len(answers), max(map(len, answers))), PAD_ID, np.int32)
  for row, ids in zip(rows, answers, strict=True):
    row[: len(ids)] = ids
  return ClassTable(names, rows, WordPieces.of(words, encode, start))


def _template_words(name: str) -> tuple[LabelWords, str] | None:
  """Return the label words of a templated task and its target format.

  The tasks of a mixture have the same targets, so that the first may speak for
  all of them, unless their words differ.

  Raises:
    ValueError: they do.
  """
  tasks = [task for task, _ in spec.get(name).components("train")]
  tasks = tasks or [spec.task(name)]
  words = [templated.label_words(task) for task in tasks]
  if any(other != words[0] for other in words):
    raise ValueError(
      f"The tasks of {name} have different label words. Classes can be scored "
      "of tasks with the same ones only; train them apart."
    )
  if words[0] is None:
    return None
  return words[0], tasks[0].content["target_format"]


def _known(name: str, words: LabelWords, encode: Encode) -> LabelWords:
  """Drop words that the vocabulary lacks, and say so."""
  unknown = label_words.survey(words, encode).unknown
  if not unknown:
    return words
  logger.warning(
    "%s: the vocabulary lacks %d of %d label words, which are not scored: %s.",
    *(name, len(unknown), sum(map(len, words.words))),
    ", ".join(map(str, unknown)),
  )
  return words.without_unknown(encode)


def _own_words(name: str) -> tuple[str, ...]:
  """Return the label words that all tasks of a mixture share."""
  tasks = [task for task, _ in spec.get(name).components("train")]
  tasks = tasks or [spec.task(name)]
  lists = {task.label_words for task in tasks}
  if len(lists) > 1:
    raise ValueError(
      f"The tasks of {name} have different label words: "
      f"{'; '.join(', '.join(words) or 'none' for words in lists)}. Classes "
      "can be scored of tasks with the same ones only; train them apart."
    )
  return lists.pop()


def _words(name: str, given: WordsLike, own: tuple[str, ...]) -> LabelWords:
  """Read what the user gives; by default a class has its own word."""
  if given is None and not own:
    raise ValueError(
      f"{name} has no label words: set LABEL_WORDS (a file, or a mapping of "
      "targets to their words), or take another OBJECTIVE and SCORER."
    )
  if isinstance(given, str):
    return label_words.read(given, classes=own)
  if given is None:
    given = own
  if not isinstance(given, Mapping):
    if own and len(given) != len(own):
      raise ValueError(
        f"LABEL_WORDS has {len(given)} words; {name} has {len(own)} classes: "
        f"{', '.join(own)}."
      )
    given = dict(zip(own or given, given, strict=True))
  if own and set(given) != set(own):
    raise ValueError(
      f"LABEL_WORDS has words of {', '.join(given)}; the classes of {name} are "
      f"{', '.join(own)}."
    )
  return LabelWords.of({key: given[key] for key in own or given})
