"""The small models that ship with the package, and their vocabularies.

Wherever a checkpoint or a vocabulary file is asked for, `embedded:ladder_1`
names the one in the package. Each model has a folder with a checkpoint in T5X's
native layout, `checkpoint_<step>`, and `sentencepiece.model`.
"""

import os
import pathlib

from prompt_tuning.core import tree

SCHEME = "embedded:"
DEFAULT = "embedded:ladder_1"
_VOCABULARY = "sentencepiece.model"
_ROOT = pathlib.Path(__file__).parents[1] / "embedded"


def names() -> list[str]:
  """List the models that ship with the package."""
  return sorted(path.name for path in _ROOT.iterdir() if path.is_dir())


def checkpoint(path: str | os.PathLike[str]) -> str:
  """Resolve the path of a checkpoint.

  Args:
    path: any path; one that begins with `embedded:` names a model.

  Returns:
    The path; of an embedded model, that of its checkpoint.

  Raises:
    ValueError: no such model; the message names the nearest one.
  """
  name = os.fspath(path)
  if not name.startswith(SCHEME):
    return name
  (folder,) = _folder(name).glob("checkpoint_*")
  return str(folder)


def vocabulary(path: str) -> str:
  """Resolve the path of a vocabulary file, see `checkpoint`."""
  if not path.startswith(SCHEME):
    return path
  return str(_folder(path) / _VOCABULARY)


def spelled(path: str) -> str:
  """Name a file of an embedded model as a user would; others stay as they are.

  Args:
    path: of a vocabulary, perhaps in this package.
  """
  folder = pathlib.Path(path).parent
  return f"{SCHEME}{folder.name}" if folder.parent == _ROOT else path


def _folder(name: str) -> pathlib.Path:
  model = name.removeprefix(SCHEME)
  if model not in names():
    raise ValueError(
      f"No model {model!r} ships with the package."
      f"{tree.nearest(model, names())} Known: {', '.join(names())}."
    )
  return _ROOT / model
