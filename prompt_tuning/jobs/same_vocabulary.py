"""Holding a vocabulary against those that models and prompts were trained with.

Ids of another one are other words, and answers then mean nothing. What says
nothing of its vocabulary is taken as it is: NumPy files, PEFT's adapters, and
checkpoints without a vocabulary beside them.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from prompt_tuning.checkpoints.vocabulary_mark import VocabularyMark
from prompt_tuning.core import embedded, files
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.jobs import pretrain_report

# Beside a model: as transformers, and as T5 and `pretrain` call it.
_NAMES = ("spiece.model", "sentencepiece.model")
_T5X = re.compile(r"checkpoint_\d+")


def mark(vocabulary: Vocabulary) -> VocabularyMark:
  """Describe the vocabulary of this process, for what is trained with it."""
  return VocabularyMark(
    vocabulary.sha256,
    vocabulary.ids_sha256,
    vocabulary.size,
    embedded.spelled(vocabulary.path),
  )


def insist(theirs: VocabularyMark | None, ours: Vocabulary, what: str) -> None:
  """Insist that something was trained with a vocabulary.

  Args:
    theirs: what it was trained with; None where it does not say.
    ours: with which it shall be used.
    what: calls it something, such as its path.

  Raises:
    ValueError: it was another one. Another form of the same file is none.
  """
  if theirs is None or theirs.sha256 == ours.sha256:
    return
  if theirs.ids_sha256 == ours.ids_sha256:
    return
  raise ValueError(
    f"{what} was trained with the vocabulary {theirs}; the one given is "
    f"{mark(ours)}, under whose ids are other words. Set VOCABULARY_FILE "
    "(vocabulary_path) to the file that it was trained with."
  )


def change(described: Mapping[str, Any] | None, ours: Vocabulary) -> str:
  """Say what is to be said of a run that has another vocabulary now.

  Args:
    described: in its manifest; None in those of older versions.
    ours: the other one.

  Returns:
    A message that names the files.
  """
  theirs = VocabularyMark.of_manifest(described) if described else None
  given = mark(ours)
  if theirs is not None and theirs.file == given.file:
    return f"{given.file} has changed since"
  known = theirs or "another one than this run's"
  return f"the bundle has {known}, VOCABULARY_FILE is {given}"


def insist_of_model(path: str | os.PathLike[str], ours: Vocabulary) -> None:
  """Insist on the vocabulary of a model, where its folder tells which it is.

  Args:
    path: of a checkpoint.
    ours: with which it shall be used.

  Raises:
    ValueError: the folder has another one.
  """
  theirs = beside(path, ours)
  insist(theirs, ours, f"The model {path}")


def beside(
  path: str | os.PathLike[str], ours: Vocabulary
) -> VocabularyMark | None:
  """Find the vocabulary that lies beside a checkpoint.

  Args:
    path: of the checkpoint; T5X's is a folder of the model's own, and what
      `pretrain` wrote, two below.
    ours: with which it shall be used; not looked into again.

  Returns:
    The vocabulary; None where there is none, or ours.
  """
  folder = files.path(files.absolute(embedded.checkpoint(path)))
  folders = [folder]
  if _T5X.fullmatch(folder.name):
    folders.append(folder.parent)
  if (folder.parent / pretrain_report.FILE).is_file():
    folders.append(folder.parent.parent)
  for file in (place / name for place in folders for name in _NAMES):
    if file.is_file():
      return _of_file(str(file), ours)
  return None


def _of_file(path: str, ours: Vocabulary) -> VocabularyMark | None:
  if files.real(path) == files.real(ours.path):
    return None
  try:
    theirs = vocabularies.load(path)
  except (ValueError, OSError):  # none that T5 could have
    return None
  return VocabularyMark(theirs.sha256, theirs.ids_sha256, theirs.size, path)
