"""What every side gets: a frozen T5 on disk, a prompt, batches.

numpy only, so that a worker loads nothing but its own side.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

MODEL, PROMPT = "model", "prompt.npy"
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
  return folder / PROMPT


def batches(asked: Mapping[str, Any]) -> Iterator[Batch]:
  """Give the batches of one request to a worker.

  Args:
    asked: `shape` and `times`: as many batches of that shape; or `file`: those
      in a file that `save` wrote.
  """
  if "file" in asked:
    with np.load(asked["file"]) as arrays:
      for number in range(len(arrays.files) // 2):
        yield {
          name: arrays[f"{name}_{number}"] for name in ("inputs", "targets")
        }
    return
  shape = Shape(*asked["shape"])
  for seed in range(asked["times"]):
    yield text(shape, asked["vocab_size"], seed)
