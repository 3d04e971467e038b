"""The similarity of prompts, and so of their tasks."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prompt_tuning.core import files
from prompt_tuning.jobs import load

PICTURE, NUMBERS = "similarity.png", "similarity.json"
BY = ("mean", "tokens")

_WIDEST = 12  # names as heads of a table that fits a screen
_NUMBERED = 24  # fields of a picture in which numbers can be read


class Similarity(NamedTuple):
  """Similarities of prompts.

  Attributes:
    names: of the prompts.
    matrix: [n, n] cosines.
    by: how they were computed, see `of`.
  """

  names: tuple[str, ...]
  matrix: np.ndarray
  by: str

  def sources(self, name: str) -> list[tuple[str, float]]:
    """List the other prompts, the most similar first.

    Args:
      name: of one of the prompts.
    """
    number = self.names.index(name)
    others = [
      (other, float(self.matrix[number, k]))
      for k, other in enumerate(self.names)
      if k != number
    ]
    return sorted(others, key=lambda pair: -pair[1])


def of(prompts: Mapping[str, np.ndarray], by: str = "mean") -> Similarity:
  """Compare prompts of one model.

  Args:
    prompts: name -> vectors [P, H] before the text; lengths may differ.
    by: `mean` is the cosine of the means over positions; `tokens` the mean of
      the cosines of all pairs of positions.

  Returns:
    The similarities.

  Raises:
    ValueError: there are fewer than two prompts, widths differ, a prompt has no
      direction because its vectors are zero, or `by` is unknown.

  Source: Vu et al. 2022 (SPoT), section 4.1: cosine similarity of average
  tokens, and per-token average cosine similarity.
  """
  if by not in BY:
    raise ValueError(f"--by {by!r}: expected {' or '.join(BY)}.")
  if len(prompts) < 2:
    raise ValueError(
      f"Got {len(prompts)} prompts to compare; expected at least two."
    )
  widths = {name: vectors.shape[1] for name, vectors in prompts.items()}
  if len(set(widths.values())) > 1:
    listed = ", ".join(f"{name}: {width}" for name, width in widths.items())
    raise ValueError(
      f"Prompts for models of different widths cannot be compared ({listed})."
    )
  directions = []
  for name, vectors in prompts.items():
    double = np.asarray(vectors, np.float64)
    rows = double.mean(0, keepdims=True) if by == "mean" else double
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (norms > 0).all():
      raise ValueError(
        f"{name} has vectors of zeros; expected vectors with a direction, "
        "because cosines need one."
      )
    # The mean of all pairs' cosines is the product of the mean directions.
    directions.append((rows / norms).mean(0))
  stacked = np.stack(directions)
  return Similarity(tuple(prompts), stacked @ stacked.T, by)


def read(paths: Mapping[str, str]) -> dict[str, np.ndarray]:
  """Read prompts; a folder with several runs gives one for each.

  Args:
    paths: name -> a path for `load.load`; a name may be empty.

  Returns:
    Name -> vectors [P, H].

  Raises:
    CheckpointError: nothing that was tuned.
    ValueError: something without vectors before the text, prompts of two
      backbones, or two of one name.
  """
  prompts: dict[str, np.ndarray] = {}
  owners: dict[str, str] = {}
  for name, path in paths.items():
    tuned = load.load(path)
    for run, run_name in enumerate(tuned.names):
      label = "_".join(filter(None, (name, run_name))) or files.path(path).stem
      if label in prompts:
        raise ValueError(
          f"Two prompts are called {label}; give each a name, as in one={path}."
        )
      vectors = load.vectors(tuned.runs, run)
      if "encoder" not in vectors:
        raise ValueError(
          f"{path} has no vectors before the text, but only these are "
          f"compared; it has {', '.join(vectors) or 'no virtual tokens'}."
        )
      prompts[label] = vectors["encoder"]
    if tuned.fingerprint is not None:
      owners[tuned.fingerprint] = path
  if len(owners) > 1:
    listed = "; ".join(f"{path}: {model}" for model, path in owners.items())
    raise ValueError(
      f"Prompts for different models cannot be compared ({listed})."
    )
  return prompts


def table(similarity: Similarity) -> str:
  """Write the matrix if it fits, and the best sources of every prompt.

  Args:
    similarity: of the prompts.
  """
  names, lines = similarity.names, []
  width = max(map(len, names))
  if len(names) <= _WIDEST:
    cell = max(6, width + 1)
    lines.append(" " * width + "".join(f"{name:>{cell}}" for name in names))
    lines += [
      f"{name:<{width}}" + "".join(f"{value:>{cell}.2f}" for value in row)
      for name, row in zip(names, similarity.matrix, strict=True)
    ]
    lines.append("")
  lines.append("most similar first")
  for name in names:
    best = similarity.sources(name)[:5]
    listed = ", ".join(f"{other} {value:.2f}" for other, value in best)
    lines.append(f"{name:<{width}}  {listed}")
  return "\n".join(lines)


def write(
  similarity: Similarity, folder: str | os.PathLike[str]
) -> list[pathlib.Path]:
  """Write the matrix as numbers and as a heat map.

  Args:
    similarity: of the prompts.
    folder: where to; it is made.

  Returns:
    The paths.

  Raises:
    ValueError: the folder cannot be written to.
  """
  root = files.path(folder)
  files.ensure_writable(root, "--out")
  numbers = {
    "by": similarity.by,
    "names": list(similarity.names),
    "cosines": similarity.matrix.tolist(),
  }
  files.write_text(root / NUMBERS, json.dumps(numbers, indent=1) + "\n")
  _draw(similarity, root / PICTURE)
  return [root / NUMBERS, root / PICTURE]


def _draw(similarity: Similarity, path: pathlib.Path) -> None:
  # Imported here because it is slow to import.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  names, matrix = similarity.names, similarity.matrix
  size = 2.5 + 0.45 * len(names)
  figure = Figure(figsize=(size + 1, size), layout="constrained")
  canvas = FigureCanvasAgg(figure)
  axes = figure.subplots()
  image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
  numbers = range(len(names))
  axes.set_xticks(
    numbers, names, rotation=60, ha="right", rotation_mode="anchor"
  )
  axes.set_yticks(numbers, names)
  if len(names) <= _NUMBERED:
    for i, row in enumerate(matrix):
      for j, value in enumerate(row):
        color = "white" if abs(value) > 0.6 else "black"
        axes.text(
          j,
          i,
          f"{value:.2f}",
          ha="center",
          va="center",
          color=color,
          fontsize=7,
        )
  what = {"mean": "means over positions", "tokens": "all pairs of positions"}
  axes.set_title(f"cosine of {what[similarity.by]}")
  figure.colorbar(image, ax=axes, shrink=0.8)
  with files.replacing(path) as temporary:
    canvas.print_png(temporary)


def named(words: Sequence[str]) -> dict[str, str]:
  """Read `name=path` and `path`.

  Args:
    words: of a command line.

  Returns:
    Name -> path; the name of a bare path is that of its last folder.

  Raises:
    ValueError: one name twice.
  """
  paths: dict[str, str] = {}
  for word in words:
    name, equals, path = word.partition("=")
    if not equals:
      name, path = files.path(word).stem, word
    if name in paths:
      raise ValueError(
        f"The name {name} occurs twice; give one another name, as in "
        f"other={word}."
      )
    paths[name] = path
  return paths
