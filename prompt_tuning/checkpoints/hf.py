"""Hugging Face T5: `model.safetensors`, in shards or whole, and `config.json`.

Nothing here imports torch. A file `pytorch_model.bin` is a pickle and is never
opened. Source: transformers' modeling_t5.py and configuration_t5.py (5.23), the
safetensors format.
"""

import dataclasses
import json
import math
import os
from collections.abc import Collection, Mapping
from typing import Any

import ml_dtypes  # noqa: F401  NumPy learns bfloat16 from it, safetensors too
import numpy as np
import safetensors
import safetensors.numpy

from prompt_tuning.checkpoints import (
  flax_msgpack,
  hf_config,
  hf_names,
  json_files,
  paths,
  sizes,
)
from prompt_tuning.checkpoints.errors import (
  ABSENT,
  CheckpointError,
  Mismatch,
  parsing,
  unreadable,
)
from prompt_tuning.checkpoints.source import (
  Box,
  Checkpoint,
  Leaf,
  TransposedLeaf,
  dtype_named,
  missing,
)
from prompt_tuning.core import files, schema
from prompt_tuning.core.schema import TEXT, WHOLE, Each
from prompt_tuning.models.t5.config import T5Config

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_SHARD_BYTES = 5 * 10**9  # transformers' own limit for one file
_HEADER_BYTES = 100_000_000  # the library's own limit
_HEADER = Each({"dtype": TEXT, "shape": [WHOLE], "data_offsets": [WHOLE]})
_DTYPES = {
  "F64": "float64",
  "F32": "float32",
  "F16": "float16",
  "BF16": "bfloat16",
}


@dataclasses.dataclass(frozen=True)
class SafetensorsLeaf(Leaf):
  """A tensor in a safetensors file.

  Attributes:
    path: the file.
  """

  path: str

  def read_into(self, box: Box, out: np.ndarray) -> None:
    """See `Leaf.read_into`."""
    # Open the file anew each time, because pages of a mapped file count as this
    # process's memory until it is unmapped.
    with safetensors.safe_open(self.path, framework="np") as file:
      part = (
        file.get_slice(self.name)[box] if box else file.get_tensor(self.name)
      )
    out[...] = part.astype(out.dtype, copy=False)


@dataclasses.dataclass(frozen=True)
class SharedLeaf(Leaf):
  """One table that a file holds under several names.

  Attributes:
    copies: the leaves, the main one first.
  """

  copies: tuple[Leaf, ...]

  def read_into(self, box: Box, out: np.ndarray) -> None:
    """See `Leaf.read_into`; every copy must hold the same bytes."""
    first, *others = self.copies
    first.read_into(box, out)
    for copy in others:
      other = np.empty(out.shape, out.dtype)
      copy.read_into(box, other)
      if out.tobytes() != other.tobytes():
        raise ValueError(f"{copy.name} differs from {first.name}")


def open_hf(path: str) -> Checkpoint:
  """Open a Hugging Face T5.

  Args:
    path: its folder, or one `.safetensors` file beside its `config.json`.

  Returns:
    The checkpoint, under T5X's names; tensors that contradict each other or
    the configuration are `broken`.

  Raises:
    CheckpointError: it is not a Hugging Face T5, or one that this project's
      model cannot express; lists all reasons.
  """
  folder = path if files.is_dir(path) else os.path.dirname(path)
  config = hf_config.read(folder)
  tensors = _tensors(path)
  unknown = hf_names.unknown(tensors)
  mismatches = hf_config.mismatches(config)
  mismatches += hf_config.generation_mismatches(folder)
  other = _other_kind(tensors)
  if other is not None:
    raise CheckpointError(path, [*mismatches, other])
  if len(unknown) == len(tensors):
    # Another kind of model. A few unknown tensors are kept under their names,
    # so that `restore` lists them with all else that does not fit.
    mismatches += [
      Mismatch(
        name, ABSENT, str(tensors[name]), "No tensor of a T5 has this name."
      )
      for name in unknown
    ]
  if mismatches:
    raise CheckpointError(path, mismatches)
  params, notes, broken = _renamed(tensors, config)
  broken += sizes.contradictions(config, params)
  return Checkpoint(
    path, "hf", params, config=config, notes=notes, broken=tuple(broken)
  )


def _other_kind(names: Collection[str]) -> Mismatch | None:
  """Name the kind of model, if the names of its tensors tell it."""
  prefix = hf_names.wrapper(names)
  if prefix:
    hint = (
      "A wrapper was saved, not the model. Remove the prefix: python -c "
      f"\"import ml_dtypes, safetensors.numpy as s; f = '{WEIGHTS}'; "
      f"s.save_file({{k.removeprefix('{prefix}'): v for k, v in "
      "s.load_file(f).items()}, f, metadata={'format': 'pt'})\""
    )
    expected, found = f"names such as {hf_names.HF_EMBEDDING}", f"{prefix!r}"
    return Mismatch("names of tensors", expected, f"{found} before them", hint)
  stacks = {name.split(".")[0] for name in names}
  if "encoder" in stacks and not stacks & {"decoder", hf_names.HF_HEAD[:7]}:
    hint = (
      "A T5EncoderModel has no decoder, so it cannot answer: use the whole "
      "model."
    )
    return Mismatch(
      "decoder.*", "an encoder and a decoder", "an encoder alone", hint
    )
  return None


def is_hf(folder: str) -> bool:
  """Say whether a folder has a T5's `config.json` and safetensors weights."""
  try:
    config = hf_config.read(folder)
  except CheckpointError:
    return False
  weights = (os.path.join(folder, name) for name in (WEIGHTS, INDEX))
  mismatches = hf_config.mismatches(config)
  return not mismatches and any(map(files.is_file, weights))


def _tensors(path: str) -> dict[str, Leaf]:
  """Open every tensor of a model, by Hugging Face's name."""
  if not files.is_dir(path):
    return file_tensors(path)
  index = os.path.join(path, INDEX)
  if not files.is_file(index):
    return file_tensors(os.path.join(path, WEIGHTS))
  content = json_files.read(index, "the index of a sharded safetensors model")
  json_files.check(index, content, {"weight_map": Each(TEXT)})
  weight_map: dict[str, str] = content["weight_map"]
  tensors = {
    name: leaf
    for shard in sorted(set(weight_map.values()))
    for name, leaf in file_tensors(_shard(path, shard)).items()
    if weight_map.get(name, shard) == shard
  }
  mismatches = [
    missing(n, f"a tensor in {f}")
    for n, f in weight_map.items()
    if n not in tensors
  ]
  mismatches += [
    Mismatch(n, ABSENT, f"{x}, not in the index")
    for n, x in tensors.items()
    if n not in weight_map
  ]
  if mismatches:
    raise CheckpointError(index, mismatches)
  return tensors


def _shard(folder: str, name: str) -> str:
  """Resolve a shard's file name; links are followed, as HF's cache needs."""
  try:
    files.check_name(name, "weight_map")
  except ValueError as error:
    index = os.path.join(folder, INDEX)
    raise unreadable(index, "files in its folder", repr(name)) from error
  return os.path.join(folder, name)


def file_tensors(file: str) -> dict[str, Leaf]:
  """Open the tensors of one safetensors file."""
  if files.is_url(file):
    return _object_tensors(file)
  leaves: dict[str, Leaf] = {}
  mismatches = []
  opened = safetensors.safe_open
  with parsing(file, "a safetensors file"):
    files.open_file(file).close()  # fails for a pipe, which would wait for ever
  with parsing(file, "a safetensors file"), opened(file, "np") as stream:
    for name in stream.keys():  # noqa: SIM118  no mapping
      view = stream.get_slice(name)
      dtype = dtype_named(_DTYPES.get(view.get_dtype(), ""))
      if dtype is None:
        content = f"dtype {view.get_dtype()}"
        mismatches.append(Mismatch(name, "a floating point tensor", content))
      else:
        shape = tuple(view.get_shape())
        leaves[name] = SafetensorsLeaf(name, shape, dtype, file)
  if mismatches:
    raise CheckpointError(file, mismatches)
  return leaves


def _object_tensors(file: str) -> dict[str, Leaf]:
  """Open the tensors of a safetensors file in a bucket, see `file_tensors`.

  The library wants a file of this machine. A header is the length of its JSON
  in eight bytes, and the JSON: {name: {dtype, shape, data_offsets}}.
  """
  with parsing(file, "a safetensors file"), files.open_file(file) as stream:
    length = int.from_bytes(stream.read(8), "little")
    if length > _HEADER_BYTES:
      raise ValueError(f"a header of {length} bytes")
    header = schema.parse(stream.read(length))
    header.pop("__metadata__", None)
    json_files.check(file, header, _HEADER)
    size, start = files.size_of(stream), 8 + length
  leaves: dict[str, Leaf] = {}
  mismatches = []
  for name, about in header.items():
    dtype = dtype_named(_DTYPES.get(about["dtype"], ""))
    shape, (begin, end) = tuple(about["shape"]), about["data_offsets"]
    if dtype is None:
      content = f"dtype {about['dtype']}"
      mismatches.append(Mismatch(name, "a floating point tensor", content))
      continue
    nbytes = math.prod(shape) * dtype.itemsize
    if end - begin != nbytes or start + end > size:
      content = f"bytes {begin} to {end} of {size - start}"
      mismatches.append(Mismatch(name, f"{nbytes} bytes in {file}", content))
      continue
    pieces = ((start + begin, nbytes),)
    leaves[name] = flax_msgpack.InlineLeaf(name, shape, dtype, file, pieces)
  if mismatches:
    raise CheckpointError(file, mismatches)
  return leaves


def _renamed(
  tensors: Mapping[str, Leaf], config: Mapping[str, Any]
) -> tuple[dict[str, Leaf], tuple[str, ...], list[Mismatch]]:
  """Name the tensors as T5X does, and join the copies of the table."""
  params: dict[str, Leaf] = {}
  unknown = set(hf_names.unknown(tensors))
  for name, leaf in tensors.items():
    renamed = hf_names.to_t5x(name)
    if renamed is not None:
      params[renamed[0]] = _oriented(leaf, renamed[1])
    elif name in unknown:
      params[name] = leaf
  copies = [hf_names.HF_EMBEDDING, *hf_names.HF_EMBEDDING_ALIASES]
  head = tensors.get(hf_names.HF_HEAD)
  notes = [
    f"{name}, which no T5 uses, was left out"
    for name in hf_names.HF_UNUSED
    if name in tensors
  ]
  if hf_config.has_tied_head(config):
    copies.append(hf_names.HF_HEAD)
    params.pop(hf_names.HEAD, None)
  table, broken = _shared([tensors[n] for n in copies if n in tensors])
  if table is not None:
    params[hf_names.EMBEDDING] = table
  if not hf_config.has_tied_head(config) and head is None:
    if config.get("tie_word_embeddings", True) is False:
      hint = (
        f"{hf_config.FILE} says that the head is not tied to the table "
        f"(tie_word_embeddings is false), so {hf_names.HF_HEAD} must be "
        "there: get a complete copy of the model."
      )
      expected = str(table or "the head")
      broken.append(missing(hf_names.HEAD, expected, hint))
    elif table is not None:
      params[hf_names.HEAD] = _oriented(table, True)
      notes.append("the head is a copy of the embedding table, unscaled")
  return dict(sorted(params.items())), tuple(notes), broken


def _oriented(leaf: Leaf, transposed: bool) -> Leaf:
  """Give a leaf the orientation of T5X."""
  if not transposed:
    return leaf
  return TransposedLeaf(leaf.name, leaf.shape[::-1], leaf.dtype, leaf)


def _shared(copies: list[Leaf]) -> tuple[Leaf | None, list[Mismatch]]:
  """Join the copies of the embedding table; at least one is needed."""
  if not copies:
    return None, [missing(hf_names.EMBEDDING, "the embedding table")]
  first, *others = copies
  mismatches = [
    Mismatch(c.name, f"{first}, as {first.name}", str(c))
    for c in others
    if c.shape != first.shape or c.dtype != first.dtype
  ]
  table = SharedLeaf(first.name, first.shape, first.dtype, tuple(copies))
  return table, mismatches


def write_hf(
  path: str | os.PathLike[str],
  params: Mapping[str, Leaf],
  config: T5Config,
  *,
  dtype: np.dtype | None = None,
  shard_bytes: int = _SHARD_BYTES,
  overwrite: paths.Overwrite = False,
) -> None:
  """Write a model for `T5ForConditionalGeneration.from_pretrained`.

  Args:
    path: the folder to make.
    params: T5X's path -> leaf, unstacked.
    config: the model.
    dtype: of the tensors; by default each keeps its own.
    shard_bytes: largest size of a file; memory holds one shard at a time.
    overwrite: whether a model of this format may be replaced, or what else.

  Raises:
    CheckpointError: a leaf has no Hugging Face name, or the folder cannot be
      written.
  """
  named = {}
  for t5x, leaf in params.items():
    renamed = hf_names.to_hf(t5x)
    if renamed is None:
      hint = "Hugging Face's T5 has no such tensor."
      raise CheckpointError(path, [Mismatch(t5x, ABSENT, str(leaf), hint)])
    named[renamed[0]] = (leaf, renamed[1], dtype or leaf.dtype)
  shards = _shards(named, shard_bytes)
  saved_as = dtype or params[hf_names.EMBEDDING].dtype
  with paths.replacing(path, overwrite, is_hf, hf_config.FILE) as folder:
    os.mkdir(folder)
    weight_map = {}
    for number, names in enumerate(shards, 1):
      file = WEIGHTS
      if len(shards) > 1:
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
      tensors = {name: _tensor(*named[name]) for name in names}
      save_tensors(os.path.join(folder, file), tensors)
      weight_map.update(dict.fromkeys(names, file))
    _write_json(
      os.path.join(folder, hf_config.FILE), hf_config.to_json(config, saved_as)
    )
    if len(shards) > 1:
      total = sum(x.size * d.itemsize for x, _, d in named.values())
      index = {"metadata": {"total_size": total}, "weight_map": weight_map}
      _write_json(os.path.join(folder, INDEX), index)


def save_tensors(file: str, tensors: Mapping[str, np.ndarray]) -> None:
  """Write a safetensors file, with the mark that torch's readers expect."""
  with parsing(file, "a place to write to"):
    safetensors.numpy.save_file(dict(tensors), file, metadata={"format": "pt"})


def _tensor(leaf: Leaf, transposed: bool, dtype: np.dtype) -> np.ndarray:
  """Read one leaf as the tensor to be written, contiguous."""
  array = leaf.read(dtype)
  return np.ascontiguousarray(array.T) if transposed else array


def _shards(
  named: Mapping[str, tuple[Leaf, bool, np.dtype]], limit: int
) -> list[list[str]]:
  """Fill files up to a limit, in the order of the names."""
  shards: list[list[str]] = []
  used = limit
  for name in sorted(named):
    leaf, _, dtype = named[name]
    nbytes = leaf.size * dtype.itemsize
    if used + nbytes > limit or not shards:
      shards.append([])
      used = 0
    shards[-1].append(name)
    used += nbytes
  return shards


def _write_json(path: str, value: Mapping[str, Any]) -> None:
  """Write a JSON file as Hugging Face formats it."""
  with open(path, "w", encoding="utf-8") as stream:
    json.dump(value, stream, indent=2, sort_keys=True)
    stream.write("\n")
