"""Prompts as NumPy files, the layout the original saves and shares.

  <model_dir>/numpy_checkpoints/checkpoint_<step>/encoder.prompt.prompt.prompt

is a NumPy file without its suffix; released prompts are the same file, called
`<task>.npy`. Source: google-research/prompt-tuning, train/utils.py.
"""

import dataclasses
import math
import os
from typing import BinaryIO

import numpy as np

from prompt_tuning.checkpoints import paths
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  Mismatch,
  parsing,
  unreadable,
)
from prompt_tuning.checkpoints.source import (
  BFLOAT16,
  Checkpoint,
  dtype_named,
  is_floating,
  missing,
  spelled,
)
from prompt_tuning.core import files, finite
from prompt_tuning.core.types import Shape

MAGIC = b"\x93NUMPY"
FILE_NAME = "encoder.prompt.prompt.prompt"  # the parameter's path, dotted
PARAMETER = "encoder/prompt/prompt/prompt"
_EXPECTED = "a NumPy file with one floating point matrix"
_MAX_HEADER = 10_000


@dataclasses.dataclass(frozen=True)
class Prompt:
  """The vectors of a prompt.

  Attributes:
    values: [P, H] float32.
    format: `npy`, `peft`, or the format of the checkpoint it was in.
    path: where it was.
    notes: remarks for the user about how it was read.
  """

  values: np.ndarray
  format: str
  path: str
  notes: tuple[str, ...] = ()


def as_prompt(
  values: np.ndarray, kind: str, path: str, notes: tuple[str, ...] = ()
) -> Prompt:
  """Check that an array is a prompt, and make it float32.

  Args:
    values: [P, H], of any floating dtype.
    kind: the format it comes from.
    path: where it was.
    notes: see `Prompt`.

  Returns:
    The prompt.

  Raises:
    CheckpointError: not a matrix with at least one row, not floating, or not
      finite.
  """
  if values.ndim != 2 or not values.size or not is_floating(values.dtype):
    content = spelled(values.shape, values.dtype)
    expected = "a floating point matrix [P, H], P and H at least 1"
    raise unreadable(path, expected, content)
  unfit = finite.fault(values)
  if unfit:
    hint = "Its training diverged, or the file is damaged: use another one."
    raise unreadable(path, finite.EXPECTED, unfit, hint)
  return Prompt(values.astype(np.float32), kind, path, notes)


def is_npy(path: str) -> bool:
  """Say whether a file starts as NumPy files do, with any name."""
  if not files.is_file(path):
    return False
  with files.open_file(path) as file:
    return file.read(len(MAGIC)) == MAGIC


def read_npy(path: str) -> Prompt:
  """Read a prompt from a NumPy file.

  Args:
    path: the file, with or without `.npy`.

  Returns:
    The prompt.

  Raises:
    CheckpointError: not a NumPy file, of dtype object (a pickle, which is never
      loaded), not a matrix, or shorter or longer than its header says.
  """
  with parsing(path, _EXPECTED), files.open_file(path) as file:
    shape, fortran, dtype = _header(file)
    start = file.tell()
    wanted = math.prod(shape) * dtype.itemsize
    held = files.size_of(file) - start
    if held != wanted:
      raise ValueError(f"{held} bytes of data, {wanted} announced")
    flat = np.frombuffer(file.read(), dtype)
    values = flat.reshape(shape, order="F" if fortran else "C")
  return as_prompt(values, "npy", path)


def _header(file: BinaryIO) -> tuple[Shape, bool, np.dtype]:
  """Read a NumPy file's header: shape, Fortran order, dtype."""
  form = np.lib.format
  version = form.read_magic(file)
  readers = {
    (1, 0): form.read_array_header_1_0,
    (2, 0): form.read_array_header_2_0,
  }
  if version not in readers:
    raise ValueError(f"NumPy format version {version}")
  shape, fortran, dtype = readers[version](file, max_header_size=_MAX_HEADER)
  if dtype.hasobject:
    raise ValueError("dtype object, which is a pickle and is never loaded")
  known = dtype_named(dtype.str)
  if known is None:
    raise ValueError(f"dtype {dtype}")
  # NumPy has no name for bfloat16 and writes it as two opaque bytes.
  return shape, fortran, BFLOAT16 if known == BFLOAT16 else dtype


def write_npy(
  path: str | os.PathLike[str],
  values: np.ndarray,
  *,
  overwrite: paths.Overwrite = False,
) -> None:
  """Write a prompt as the original does.

  Args:
    path: the file; its name is used as it is, suffix or not.
    values: [P, H]; saved as float32.
    overwrite: whether a NumPy file may be replaced, or what else.

  Raises:
    CheckpointError: not a prompt, or the file cannot be written.
  """
  prompt = as_prompt(np.asarray(values), "npy", os.fspath(path))
  values = np.ascontiguousarray(prompt.values)
  with (
    paths.replacing(path, overwrite, is_npy) as name,
    open(name, "wb") as file,
  ):
    np.save(file, values, allow_pickle=False)


def from_checkpoint(checkpoint: Checkpoint) -> Prompt:
  """Take the prompt out of a T5X checkpoint of a prompt-tuned model.

  Args:
    checkpoint: an open checkpoint.

  Returns:
    The prompt.

  Raises:
    CheckpointError: the checkpoint has no prompt, or its bytes are damaged.
  """
  leaf = checkpoint.params.get(PARAMETER)
  if leaf is None:
    hint = (
      "It is a model without a prompt: name a prompt, an adapter, an export or "
      "a run."
    )
    raise CheckpointError(
      checkpoint.path, [missing(PARAMETER, "a prompt [P, H]", hint)]
    )
  return as_prompt(leaf.read(), checkpoint.format, checkpoint.path)


def insist(
  prompt: Prompt, length: int | None = None, width: int | None = None
) -> Prompt:
  """Insist on a prompt's size.

  Args:
    prompt: as read.
    length: P, if it matters.
    width: H of the model to use it with, if known.

  Returns:
    The same prompt.

  Raises:
    CheckpointError: it has another size.
  """
  expected = tuple(
    want or have
    for want, have in zip((length, width), prompt.values.shape, strict=True)
  )
  if prompt.values.shape != expected:
    raise CheckpointError(
      prompt.path,
      [Mismatch("prompt", f"{list(expected)}", f"{list(prompt.values.shape)}")],
    )
  return prompt
