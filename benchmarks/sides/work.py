"""What every side gets: a frozen T5 on disk, a prompt, batches.

numpy only, so that a worker loads nothing but its own side.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

MODEL, PROMPT = "model", "prompt"
RATE = 1e-3  # of Adam, the one optimizer that all sides have alike

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Shape:
  """One step's shape.

  Attributes:
    rows: examples.
    inputs: text tokens of each, without the prompt.
    targets: target tokens of each.
  """

  rows: int
  inputs: int
  targets: int


def text(shape: Shape, vocab_size: int, seed: int = 0) -> Batch:
  """Draw a batch without padding.

  Args:
    shape: of the batch.
    vocab_size: ids are below it.
    seed: of the ids.

  Returns:
    `inputs` [B, T] and `targets` [B, S], int32, no padding, EOS at the end.
  """
  rng = np.random.default_rng(seed)

  def draw(length: int) -> np.ndarray:
    ids = rng.integers(2, vocab_size, (shape.rows, length), np.int32)
    ids[:, -1] = 1
    return ids

  return {"inputs": draw(shape.inputs), "targets": draw(shape.targets)}


def prompt_file(folder: pathlib.Path) -> pathlib.Path:
  """Say where the initial prompt lies: [P, H] float32."""
  return folder / f"{PROMPT}.npy"


def values_file(folder: pathlib.Path, method: str) -> pathlib.Path:
  """Say where the first values of another method's parameters lie."""
  return folder / f"{method}.npz"


def adapter_folder(folder: pathlib.Path, method: str) -> pathlib.Path:
  """Say where they lie as PEFT reads them."""
  return folder / f"{method}_adapter"


def save(path: pathlib.Path, batches: Sequence[Batch]) -> None:
  """Write batches of any shapes for `batches` to read."""
  arrays = {
    f"{number}/{name}": values
    for number, batch in enumerate(batches)
    for name, values in batch.items()
  }
  np.savez(path, **arrays)


def batches(asked: Mapping[str, Any]) -> Iterator[Batch]:
  """Give the batches of one request to a worker.

  Args:
    asked: `file`, that `save` wrote, and the `numbers` of batches in it; or
      `shape`, `vocab_size` and `times`: as many batches of that shape.
  """
  if "file" not in asked:
    shape = Shape(*asked["shape"])
    for seed in range(asked["times"]):
      yield text(shape, asked["vocab_size"], seed)
    return
  with np.load(asked["file"]) as arrays:
    for number in asked["numbers"]:
      at = f"{number}/"
      names = [name for name in arrays.files if name.startswith(at)]
      yield {name.removeprefix(at): arrays[name] for name in names}
