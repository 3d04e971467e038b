"""The small models that ship with the package, their vocabularies and prompts.

In the place of a checkpoint or a vocabulary file, `embedded:ladder_1` names the
one in the package. Each model has a folder with a checkpoint in T5X's native
layout, `checkpoint_<step>`, and `sentencepiece.model`. In the place of a
prompt, `embedded:prompts/opposite` names an export in the package.
"""

import os
import pathlib

from prompt_tuning.core import tree

SCHEME = "embedded:"
DEFAULT = "embedded:ladder_1"
_PROMPTS = "prompts"
_VOCABULARY = "sentencepiece.model"
_ROOT = pathlib.Path(__file__).parents[1] / "embedded"
# Fingerprint of the weights -> the model, for readers of what was learned.
_BY_FINGERPRINT = {
  "d2c074858137583f": "ladder_1",
  "9feef5a981b8b5ba": "ladder_1_span_corruption",
  "793ed943242ef0fa": "ladder_2",
  "f98178ccf33e83a3": "tall_3",
}


def names() -> list[str]:
  """List the models that ship with the package."""
  folders = {path.name for path in _ROOT.iterdir() if path.is_dir()}
  return sorted(folders - {_PROMPTS})


def with_fingerprint(fingerprint: str | None) -> str | None:
  """Name the model of the package that has a fingerprint.

  Args:
    fingerprint: the fingerprint of a backbone, if one was recorded.

  Returns:
    Its name, such as `embedded:ladder_1`; None for any other backbone.
  """
  name = _BY_FINGERPRINT.get(fingerprint or "")
  return None if name is None else SCHEME + name


def loading(fingerprint: str | None) -> str:
  """Write the line of Python that loads a backbone, for cards.

  Args:
    fingerprint: of the backbone, if one was recorded.

  Returns:
    The line; for a model that is not in the package, with words in capitals.
  """
  name = with_fingerprint(fingerprint)
  given = f'"{name}"' if name else '"CHECKPOINT", "sentencepiece.model"'
  return f"model = pt.load_model({given})"


def prompt_names() -> list[str]:
  """List the prompts that ship with the package."""
  folder = _ROOT / _PROMPTS
  return sorted(path.name for path in folder.iterdir() if path.is_dir())


def checkpoint(path: str | os.PathLike[str]) -> str:
  """Resolve the path of a checkpoint.

  Args:
    path: any path; one that begins with `embedded:` names a model.

  Returns:
    The path; for an embedded model, the path of its checkpoint.

  Raises:
    ValueError: no such model; the message names the nearest one.
  """
  name = os.fspath(path)
  if not name.startswith(SCHEME):
    return name
  (folder,) = _folder(name).glob("checkpoint_*")
  return str(folder)


def is_prompt(path: str | os.PathLike[str]) -> bool:
  """Say whether a path names a prompt of the package."""
  return os.fspath(path).startswith(f"{SCHEME}{_PROMPTS}/")


def prompt(path: str | os.PathLike[str]) -> str:
  """Resolve the path of a prompt, or of anything else tuned.

  Args:
    path: any path; one that begins with `embedded:` names a prompt.

  Returns:
    The path; for a prompt of the package, the path of its folder.

  Raises:
    ValueError: no such prompt; the message names the nearest one.
  """
  name = os.fspath(path)
  if not name.startswith(SCHEME):
    return name
  kind, _, prompt_name = name.removeprefix(SCHEME).rpartition("/")
  if kind not in ("", _PROMPTS) or prompt_name not in prompt_names():
    nearest = tree.nearest(prompt_name, prompt_names())
    raise ValueError(
      f"No prompt {name!r} ships with the package.{nearest} Known, behind "
      f"{SCHEME}{_PROMPTS}/: {', '.join(prompt_names())}."
    )
  if not kind:
    raise ValueError(
      f"{name!r} is not a prompt; did you mean "
      f"{SCHEME}{_PROMPTS}/{prompt_name}?"
    )
  return str(_ROOT / _PROMPTS / prompt_name)


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
  if is_prompt(name):
    raise ValueError(
      f"{name} is a prompt; expected a model: {', '.join(names())}."
    )
  if model not in names():
    raise ValueError(
      f"No model {model!r} ships with the package."
      f"{tree.nearest(model, names())} Known: {', '.join(names())}."
    )
  return _ROOT / model
