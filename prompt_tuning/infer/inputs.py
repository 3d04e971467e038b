"""Inputs of the frozen model: token rows, and the run of each row."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from prompt_tuning.core.types import EOS_ID
from prompt_tuning.data.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


class Rows(Protocol):
  """Token rows: a list of arrays, or a `data.ragged.Ragged`."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Inputs:
  """Token rows and their runs.

  Attributes:
    rows: n rows of ids, with EOS and without virtual tokens.
    run_ids: [n] integers, the run of each row.
    truncated: number of truncated rows.

  Raises:
    ValueError: the numbers of runs and rows differ.
  """

  rows: Rows
  run_ids: np.ndarray
  truncated: int = 0

  def __post_init__(self) -> None:
    if len(self.rows) != len(self.run_ids):
      raise ValueError(
        f"{len(self.rows)} inputs and {len(self.run_ids)} runs; expected one "
        "run per input."
      )

  def __len__(self) -> int:
    return len(self.rows)


class Chained:
  """Several sets of rows, concatenated without a copy."""

  def __init__(self, parts: Sequence[Rows]):
    self._parts = parts
    self._starts = np.cumsum([0, *(len(part) for part in parts)])

  def __len__(self) -> int:
    return int(self._starts[-1])

  def __getitem__(self, index: int) -> np.ndarray:
    part = int(np.searchsorted(self._starts, index, side="right")) - 1
    return self._parts[part][index - int(self._starts[part])]

  def __iter__(self) -> Iterator[np.ndarray]:
    return (self[index] for index in range(len(self)))


def encode(
  vocabulary: Vocabulary,
  texts: Sequence[str],
  run_ids: int | Sequence[int] = 0,
  limit: int | None = None,
) -> Inputs:
  """Turn texts into token rows.

  Args:
    vocabulary: vocabulary of the model.
    texts: n texts.
    run_ids: one run for all texts, or the run of each.
    limit: maximum number of tokens of a row, with EOS and without virtual
      tokens. A longer row is cut to `limit - 1` tokens and EOS, as in training;
      a warning counts these rows.

  Returns:
    The rows.

  Raises:
    ValueError: a limit below 1, or the numbers of runs and texts differ.
  """
  if limit is not None and limit < 1:
    raise ValueError(
      f"An input length of {limit} leaves no room for EOS; set "
      "TASK_FEATURE_LENGTHS to at least 1."
    )
  rows, truncated = [], 0
  for ids in vocabulary.encode_batch(texts):
    if limit is not None and len(ids) >= limit:
      truncated += len(ids) > limit - 1
      ids = ids[: limit - 1]
    rows.append(np.asarray([*ids, EOS_ID], np.int32))
  if truncated:
    logger.warning(
      "%d of %d inputs have more than %d tokens and were cut. To keep them "
      "whole, raise TASK_FEATURE_LENGTHS (input_length).",
      *(truncated, len(rows), limit),
    )
  if isinstance(run_ids, int | np.integer):
    run_ids = [int(run_ids)] * len(rows)
  return Inputs(rows, np.asarray(run_ids, np.int32), truncated)


def encode_targets(
  vocabulary: Vocabulary, texts: Sequence[str]
) -> list[np.ndarray]:
  """Turn target texts into token rows with EOS, without a length limit."""
  return [
    np.asarray([*ids, EOS_ID], np.int32)
    for ids in vocabulary.encode_batch(texts)
  ]
