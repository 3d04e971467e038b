"""Compare a vocabulary with those of models and prompts.

In another vocabulary, ids stand for other words, and answers have no meaning.
Some files do not record their vocabulary and are not checked: NumPy files,
PEFT's adapters, and checkpoints without a vocabulary beside them.
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

# Names of the vocabulary beside a model: that of transformers, and that of T5
# and `pretrain`.
_NAMES = ("spiece.model", "sentencepiece.model")
_T5X = re.compile(r"checkpoint_\d+")


def mark(vocabulary: Vocabulary) -> VocabularyMark:
  """Describe the vocabulary of this process, for bundles and exports."""
  return VocabularyMark(
    vocabulary.sha256,
    vocabulary.ids_sha256,
    vocabulary.size,
    embedded.spelled(vocabulary.path),
  )


def insist(theirs: VocabularyMark | None, ours: Vocabulary, what: str) -> None:
  """Insist that something was trained with a vocabulary.

  Args:
    theirs: the vocabulary of its training; None if it is not recorded.
    ours: the vocabulary for its use.
    what: its name in errors, such as its path.

  Raises:
    ValueError: the vocabularies differ. Another form of the same file is equal.
  """
  if theirs is None or theirs.sha256 == ours.sha256:
    return
  if theirs.ids_sha256 == ours.ids_sha256:
    return
  raise ValueError(
    f"{what} was trained with the vocabulary {theirs}, but the one given is "
    f"{mark(ours)}, in which the same ids mean other words. Set "
    "VOCABULARY_FILE (vocabulary_path) to the file that it was trained with."
  )


def change(described: Mapping[str, Any] | None, ours: Vocabulary) -> str:
  """Write a message about a run whose vocabulary has changed.

  Args:
    described: in its manifest; None in those of older versions.
    ours: the other one.

  Returns:
    A message that names the files.
  """
  theirs = VocabularyMark.of_manifest(described) if described else None
  given = mark(ours)
  if theirs is not None and theirs.file == given.file:
    return f"{given.file} has changed since the bundle was written"
  known = theirs or "another vocabulary"
  return f"the bundle has {known}, VOCABULARY_FILE is {given}"


def insist_of_model(path: str | os.PathLike[str], ours: Vocabulary) -> None:
  """Insist on the vocabulary of a model, if its folder has one.

  Args:
    path: path of a checkpoint.
    ours: the vocabulary for its use.

  Raises:
    ValueError: the folder has another one.
  """
  theirs = beside(path, ours)
  insist(theirs, ours, f"The model {path}")


def beside(
  path: str | os.PathLike[str], ours: Vocabulary
) -> VocabularyMark | None:
  """Find the vocabulary beside a checkpoint.

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
