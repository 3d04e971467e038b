"""Tokenisation: run a seqio task once and collect its tokens.

Imports TensorFlow and seqio; used only if a cache is missing or damaged.
"""

import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from prompt_tuning.core import files
from prompt_tuning.core.types import EOS_ID
from prompt_tuning.data import adopted, spec, templated, vocabulary
from prompt_tuning.data.prepare import writing
from prompt_tuning.data.ragged import from_rows
from prompt_tuning.data.tasks import registry
from prompt_tuning.data.token_rows import FEATURES, TokenRows
from prompt_tuning.prompting.rendering import Renderer

# TFDS reads GLUE 1.0.0 but writes only this version of it; the rows are the
# same, except that QQP had three more.
_PREPARABLE = {"glue": "2.0.0"}
# Examples taken out of TensorFlow at once: one by one takes twice as long.
_BATCH = 256


def fetch(task: spec.TaskSpec, data_dir: pathlib.Path) -> None:
  """Let TFDS download and prepare a task's source.

  Args:
    task: the task.
    data_dir: TFDS's data directory.

  Raises:
    ValueError: TFDS cannot; the message explains how to prepare the source
      offline.
  """
  name, _, version = task.source.partition(":")
  newest = _PREPARABLE.get(name.split("/")[0], version)
  try:
    builder = tfds.builder(f"{name}:{newest}", data_dir=str(data_dir))
    builder.download_and_prepare()
    if newest != version:
      writing.add_version(pathlib.Path(builder.data_dir), version)
  except Exception as error:  # network, checksum, licence: TFDS has many
    raise ValueError(
      f"{task.source} is not in {data_dir} and could not be fetched: {error}. "
      "Without a network, make it from the official files with `prompt-tuning "
      "data prepare`."
    ) from error


def fingerprint(task: spec.TaskSpec, split: str) -> str:
  """Hash the rows of an adopted task, see `adopted.fingerprint`."""
  return adopted.fingerprint(task, split)


def tokenise(
  task: spec.TaskSpec,
  split: str,
  lengths: Mapping[str, int | None],
  data_dir: pathlib.Path,
) -> TokenRows:
  """Tokenise a split.

  Args:
    task: the task.
    split: name of the split.
    lengths: limits of `inputs` and `targets`; a longer row is cut to `limit -
      1` tokens and EOS, as in seqio's `append_eos_after_trim`. A template
      decides which of its parts are shortened.
    data_dir: TFDS's data directory.

  Returns:
    The token rows and the other columns.

  Raises:
    ValueError: no examples, a split that the source does not have, or a limit
      that is too small for the template.
  """
  seqio_task = registry.get(task.name)
  source = seqio_task.source
  if task.kshot:
    source = registry.get(task.kshot.base).source
  if hasattr(source, "tfds_dataset"):
    # For a user's seqio tasks, the folders to copy are unknown.
    files.insist_local(data_dir, f"--tfds_data_dir for {task.name},")
    source.tfds_dataset.override_data_dir(str(data_dir))
  names = (spec.INPUTS, spec.TARGETS, *task.eval_features)
  if isinstance(task, adopted.AdoptedTask):
    adopted.check_vocabulary(task)
    dataset = adopted.dataset(task, split, lengths)
    names = tuple(name for name in dataset.element_spec if name not in FEATURES)
    lengths = dict.fromkeys(FEATURES)  # seqio has cut what is longer
  else:
    # AutoGraph reads a function's source file when it compiles the function. If
    # the file was edited or pulled after the import, other code is at those
    # lines. Our own tasks do not need AutoGraph; a user's own seqio tasks may.
    get_dataset = tf.autograph.experimental.do_not_convert(
      seqio_task.get_dataset
    )
    # Without lengths seqio does not trim, so that what is cut can be counted.
    dataset = get_dataset(
      sequence_length=None, split=split, shuffle=False, use_cached=False
    )
  renderer = templated.renderer(task, vocabulary.load())
  dtype = _dtype(renderer)
  tokens: dict[str, list[np.ndarray]] = {name: [] for name in FEATURES}
  columns = []
  truncated = dict.fromkeys(FEATURES, 0)
  unlabelled = 0
  for batch in dataset.ragged_batch(_BATCH).as_numpy_iterator():
    whole = {feature: list(_rows(batch[feature])) for feature in FEATURES}
    cut = {name: _cut(rows, lengths[name]) for name, rows in whole.items()}
    parts: list[list[int]] = []
    if renderer:
      parts_of_tokens = list(_rows(batch[templated.PARTS]))
      cut["inputs"], parts = _shorten(
        renderer, whole["inputs"], parts_of_tokens, lengths["inputs"]
      )
    for feature in FEATURES:
      pairs = zip(whole[feature], cut[feature], strict=True)
      truncated[feature] += sum(len(row) > len(short) for row, short in pairs)
      tokens[feature] += [row.astype(dtype) for row in cut[feature]]
    columns_of_batch = zip(*(_rows(batch[name]) for name in names), strict=True)
    for number, values in enumerate(columns_of_batch):
      plain = dict(zip(names, map(_plain, values), strict=True))
      if renderer:
        plain[templated.PARTS] = parts[number]
      unlabelled += plain[spec.TARGETS] == spec.UNLABELLED
      text = json.dumps(plain, ensure_ascii=False).encode()
      columns.append(np.frombuffer(text, np.uint8))
  if not columns:
    raise ValueError(
      f"{task.name} {split}: no examples of the source are left; expected at "
      "least one."
    )
  if unlabelled and split == "train":
    raise ValueError(
      f"{task.name} {split}: {unlabelled} of {len(columns)} examples have no "
      "label or answer; training needs one for every example."
    )
  arrays = {name: from_rows(rows, dtype) for name, rows in tokens.items()}
  arrays["columns"] = from_rows(columns, np.uint8)
  return TokenRows(arrays, truncated)


def _dtype(renderer: Renderer | None) -> type[np.integer[Any]]:
  """Choose the dtype of tokens: a small vocabulary's ids need two bytes."""
  has_soft = renderer is not None and renderer.template.has_soft
  is_small = vocabulary.load().size < 2**16 and not has_soft
  return np.uint16 if is_small else np.int32


def _cut(rows: Sequence[np.ndarray], limit: int | None) -> list[np.ndarray]:
  """Cut rows that are too long, as seqio's `append_eos_after_trim` does."""
  return [
    row
    if limit is None or len(row) <= limit
    else np.append(row[: limit - 1], EOS_ID)
    for row in rows
  ]


def _shorten(
  renderer: Renderer,
  rows: Sequence[np.ndarray],
  parts: Sequence[np.ndarray],
  limit: int | None,
) -> tuple[list[np.ndarray], list[list[int]]]:
  """Shorten rows by the rules of their template; count its parts' tokens."""
  shortened, counts = [], []
  number = len(renderer.template.parts)
  for row, of_tokens in zip(rows, parts, strict=True):
    ids = row[:-1]  # EOS is of no part
    room = len(ids) if limit is None else limit - 1
    stay = renderer.shorten(ids, of_tokens, room)
    shortened.append(np.append(ids[stay], EOS_ID))
    counts.append(np.bincount(of_tokens[stay], minlength=number).tolist())
  return shortened, counts


def _rows(values: Any) -> Iterable[Any]:
  """Split a batch of examples, an array or ragged rows, into rows."""
  if isinstance(values, np.ndarray):
    return values
  splits = values.row_splits
  return [values.values[a:b] for a, b in itertools.pairwise(splits)]


def _plain(value: Any) -> Any:
  """Turn a numpy value into JSON's types."""
  if isinstance(value, bytes):
    return value.decode("utf-8")
  if isinstance(value, np.ndarray):
    return [_plain(part) for part in value.tolist()]
  return value.item() if hasattr(value, "item") else value
