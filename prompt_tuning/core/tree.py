"""Nested parameter trees as flat `{"a/b/c": leaf}` dictionaries and back."""

from collections.abc import Iterable, Mapping
from typing import Any

SEPARATOR = "/"


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Flatten a nested mapping into `{"a/b/c": leaf}`, sorted by path.

  Args:
    tree: nested mappings with string keys; anything else is a leaf.

  Returns:
    One entry per leaf. Empty sub-mappings vanish.

  Raises:
    ValueError: a key is not a string, or contains the separator.
  """
  flat: dict[str, Any] = {}

  def visit(node: Any, path: tuple[str, ...]) -> None:
    if not isinstance(node, Mapping):
      flat[SEPARATOR.join(path)] = node
      return
    for key, child in node.items():
      if not isinstance(key, str) or SEPARATOR in key:
        raise ValueError(
          f"Tree keys must be strings without {SEPARATOR!r}; got {key!r} "
          f"under {SEPARATOR.join(path)!r}."
        )
      visit(child, (*path, key))

  visit(tree, ())
  return dict(sorted(flat.items()))


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Rebuild the nested mapping of `flatten`.

  Raises:
    ValueError: one path is both a leaf and the parent of another.
  """
  tree: dict[str, Any] = {}
  for path, leaf in flat.items():
    *parents, name = path.split(SEPARATOR)
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
      if not isinstance(node, dict):
        raise ValueError(
          f"{path!r} lies below another leaf; a leaf cannot have children."
        )
    if name in node:
      raise ValueError(f"{path!r} is both a leaf and a parent.")
    node[name] = leaf
  return tree


def nearest(name: str, known: Iterable[str]) -> str:
  """Name the known word closest to a misspelt one, for error messages.

  Args:
    name: what was given.
    known: what would have been accepted.

  Returns:
    ` Did you mean 'x'?`, or the empty string when nothing is close.
  """
  import difflib

  matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f" Did you mean {matches[0]!r}?" if matches else ""
