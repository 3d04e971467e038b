"""Recognise files and folders that no reader takes, and say what to do.

This module reads only first bytes and lists of names. It never loads a pickle.
"""

import os
import pathlib
import re
import zipfile
from typing import NamedTuple

from prompt_tuning.core import files

# Endings of what `torch.save` writes.
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_STEP = re.compile(r"checkpoint_\d+")
_SHOWN = 12  # names that a message lists
_TO_SAFETENSORS = (
  "Convert it where torch is installed; weights_only runs no code that is in "
  'the file: python -c "import torch, safetensors.torch as s; d = torch.load('
  "'{source}', map_location='cpu', weights_only=True); s.save_file({{k: "
  "v.clone().contiguous() for k, v in d.items()}}, '{target}', "
  "metadata={{'format': 'pt'}})\""
)
_TO_NUMPY = (
  "Convert it where torch is installed; weights_only runs no code that is in "
  'the file: python -c "import torch, numpy; d = torch.load('
  "'{source}', map_location='cpu', weights_only=True); numpy.save("
  "'prompt.npy', d.float().numpy())\", with d['NAME'] where it holds several "
  "arrays."
)
_MESH_TENSORFLOW = b"model_checkpoint_path"  # T5X's reader says more about it
_ADAPTER = "adapter_config.json"


class Kind(NamedTuple):
  """The kind of a file or a folder.

  Attributes:
    name: for the message.
    advice: what to do.
  """

  name: str
  advice: str


def of_file(path: str) -> Kind | None:
  """Recognise a file of another format by its first bytes.

  Args:
    path: a file that no reader here may take.

  Returns:
    Its kind; None if unknown.
  """
  name = os.path.basename(path)
  with files.open_file(path) as file:
    start = file.read(512)
    size = files.size_of(file)
  if not start:
    return Kind("an empty file", "Copy it again.")
  if start.startswith(b"PK\x03\x04"):
    return _zip(path)
  if start[:1] == b"\x80" and 2 <= start[1] <= 5 and name.endswith(PICKLES):
    return _pickle(path)
  if _is_safetensors(start, size):
    return Kind("a safetensors file", _beside(path))
  if start.startswith(b"version https://git-lfs"):
    advice = (
      "It is a placeholder for the real file: run `git lfs pull` in the "
      "repository that it is from."
    )
    return Kind("a Git LFS pointer", advice)
  for magic, kind in _MAGIC.items():
    if start.startswith(magic):
      return kind
  text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
  if text[:1] in (b"{", b"["):
    return Kind("JSON", _OF_JSON.format(source=name))
  if text[:1] == b"<":
    advice = "It is a web page, not the file: download the file again."
    return Kind("a web page", advice)
  if not _is_map(start[0]) and not start.startswith(_MESH_TENSORFLOW):
    found = f"a file that begins with {start[:24]!r}"
    return Kind(found, "This project does not read its format.")
  return None


def _is_map(byte: int) -> bool:
  """Say whether a byte begins a msgpack map, as in T5X's and Flax's files."""
  return 0x80 <= byte <= 0x8F or byte in (0xDE, 0xDF)


_MAGIC = {
  b"\x93NUMPY": Kind("a NumPy file", "It is a prompt, not a model."),
  b"\x1f\x8b": Kind("a gzip file", "Unpack it first."),
  b"\xfd7zXZ": Kind("an xz file", "Unpack it first."),
  b"\x89HDF": Kind(
    "an HDF5 file, as Keras writes it",
    "Save the model with transformers as safetensors.",
  ),
  b"GGUF": Kind("a GGUF file", "Use the checkpoint that it was made from."),
}
_OF_JSON = (
  'If it holds a prompt as a list of vectors: python -c "import json, numpy, '
  "pathlib; numpy.save('prompt.npy', numpy.asarray(json.loads(pathlib.Path("
  "'{source}').read_text()), 'float32'))\""
)


def _is_safetensors(start: bytes, size: int) -> bool:
  header = int.from_bytes(start[:8], "little")
  return start[8:9] == b"{" and 2 <= header <= size - 8


def _zip(path: str) -> Kind:
  """Tell torch's zip files, NumPy's and others apart by their names."""
  try:
    with files.open_file(path) as file, zipfile.ZipFile(file) as archive:
      names = archive.namelist()[:1_000]
  except (OSError, ValueError, zipfile.BadZipFile):
    return Kind("a damaged zip file", "Copy it again.")
  if any(name.endswith("data.pkl") for name in names):
    return _pickle(path)
  arrays = [n.removesuffix(".npy") for n in names if n.endswith(".npy")]
  if arrays:
    listed = ", ".join(arrays[:_SHOWN])
    advice = (
      "Save the prompt alone: python -c \"import numpy; numpy.save('prompt.npy'"
      f", numpy.load('{os.path.basename(path)}')['{arrays[0]}'])\""
    )
    return Kind(f"a NumPy archive (.npz) of {listed}", advice)
  return Kind("a zip file", "Unpack it first.")


def _pickle(path: str) -> Kind:
  """Say how to convert a pickle of torch; we never run the code in it."""
  return Kind(
    "a pickle of torch.save, which can run code and is never opened",
    pickle_advice(path),
  )


def pickle_advice(path: str) -> str:
  """Say how to convert a pickle.

  Args:
    path: of the file; its name and folder show what it is for.
  """
  source = os.path.basename(path)
  stem = os.path.splitext(source)[0]
  beside = os.path.join(os.path.dirname(path), _ADAPTER)
  if source == "adapter_model.bin" or files.is_file(beside):
    target = "adapter_model.safetensors"
  elif stem.startswith("pytorch_model"):
    target = stem.replace("pytorch_model", "model") + ".safetensors"
  else:
    return _TO_NUMPY.format(source=source)
  return _TO_SAFETENSORS.format(source=source, target=target)


def _beside(path: str) -> str:
  """Say which folder to name for a file of tensors, or how to convert it."""
  folder = os.path.dirname(path)
  for name, what in _MANIFESTS.items():
    if files.is_file(os.path.join(folder, name)):
      return f"It is part of {what}: name its folder, {folder}."
  return (
    "An adapter has adapter_config.json beside it, a model config.json: name "
    'the folder that has both. One array alone: python -c "import numpy, '
    "safetensors.numpy as s; d = s.load_file("
    f"'{os.path.basename(path)}'); print(list(d)); numpy.save('prompt.npy', "
    "d['NAME'])\""
  )


_MANIFESTS = {
  "adapter_config.json": "a PEFT adapter",
  "manifest.json": "a bundle",
  "delta.json": "an export",
  "config.json": "a Hugging Face model",
}


def contents(folder: str) -> list[str]:
  """List a folder's contents that the user could name in its place.

  Args:
    folder: a folder that no reader takes.

  Returns:
    `<name> (<what it is>)`; names with numbers in numeric order.
  """
  named = []
  for entry in sorted(files.path(folder).iterdir(), key=_by_number):
    kind = _kind_of_entry(entry)
    if kind:
      named.append(f"{entry.name} ({kind})")
  return named


def spelled(named: list[str]) -> str:
  """Write the list of `contents` on one line; only the last ones of many."""
  more = len(named) - _SHOWN
  start = f"{more} more, " if more > 0 else ""
  return start + ", ".join(named[-_SHOWN:])


def _by_number(entry: pathlib.Path) -> tuple[str, int, str]:
  digits = len(entry.name) - len(entry.name.rstrip("0123456789"))
  if not 0 < digits < 20:
    return entry.name, 0, entry.name
  return entry.name[:-digits], int(entry.name[-digits:]), entry.name


def _kind_of_entry(path: pathlib.Path) -> str:
  """Say what an entry of a folder is, judged by its files."""
  if path.is_file():
    with files.open_file(path) as file:
      return "a prompt" if file.read(6) == b"\x93NUMPY" else ""
  if not path.is_dir() or ".orbax-checkpoint-tmp" in path.name:
    return ""
  for name, kind in _SIGNS.items():
    if (path / name).exists():
      return kind
  return "a checkpoint" if _STEP.fullmatch(path.name) else ""


# File in a folder -> the folder's kind.
_SIGNS = {
  "adapter_config.json": "a PEFT adapter",
  "delta.json": "an export",
  "delta/delta.json": "an export",
  "manifest.json": "a bundle",
  "bundles": "a run",
  "state/_METADATA": "an Orbax checkpoint",
  "state/checkpoint": "an Orbax checkpoint",
  "default/_METADATA": "an Orbax checkpoint",
  "_METADATA": "an Orbax checkpoint",
  "checkpoint": "a T5X checkpoint",
  "model.safetensors": "a Hugging Face model",
  "model.safetensors.index.json": "a Hugging Face model",
  "encoder.prompt.prompt.prompt": "a prompt",
}
