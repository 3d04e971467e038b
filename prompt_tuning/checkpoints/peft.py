"""PEFT's adapters: `adapter_config.json` and `adapter_model.safetensors`.

Tuning methods make and read an adapter's contents, see `core.adapter`. This
module handles the files, and PEFT's names of a T5's modules.

It writes only settings that every PEFT since 0.6 knows: older versions refuse a
setting that they do not know, even if it is null.

Source: PEFT 0.21.2, what it writes and what it needs in order to load; the
settings of 0.6.2 and 0.10.0.
"""

import json
import os
import types
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from prompt_tuning.checkpoints import (
  foreign,
  hf,
  json_files,
  paths,
  peft_names,
)
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  Mismatch,
  unreadable,
)
from prompt_tuning.checkpoints.prompts import Prompt, as_prompt
from prompt_tuning.checkpoints.source import missing
from prompt_tuning.core import files, finite
from prompt_tuning.core.adapter import Adapter
from prompt_tuning.core.schema import FINITE, Maybe, at_least
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.models.t5.config import T5Config

if TYPE_CHECKING:
  from prompt_tuning.core.delta import Delta
  from prompt_tuning.tuners.method import Method

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"  # what PEFT wrote by default before 0.7
_TASKS = ("SEQ_2_SEQ_LM", None)
# Settings that are read here; each method adds its own.
_SCHEMA = {
  "lora_alpha?": FINITE,
  "r?": at_least(1),
  "num_virtual_tokens?": at_least(1),
  "token_dim?": Maybe(at_least(1)),
}


def read(
  path: str | os.PathLike[str], model: ModelShape | None = None
) -> "tuple[Method, Delta]":
  """Read an adapter with the tuning method that knows its kind.

  Args:
    path: the adapter's folder.
    model: sizes of the T5; None if unknown.

  Returns:
    The method, with the adapter's settings, and the delta of one run.

  Raises:
    CheckpointError: not an adapter, a damaged one, or one that no method here
      can express.
  """
  path = os.fspath(path)
  adapter = read_adapter(path, model)
  kind = _methods().for_peft()[adapter.config["peft_type"]]
  try:
    return kind.from_peft(adapter, model)
  except ValueError as error:
    expected = "an adapter with settings that this project supports"
    raise unreadable(path, expected, str(error).rstrip(".")) from error


def read_adapter(
  path: str | os.PathLike[str], model: ModelShape | None = None
) -> Adapter:
  """Read the files of an adapter.

  Args:
    path: the adapter's folder.
    model: sizes of the T5, to find missing arrays; None if unknown: then the
      arrays give the number of layers.

  Returns:
    Its configuration, unchanged, and its arrays, float32.

  Raises:
    CheckpointError: a file is damaged, or arrays are missing, not finite, or do
      not belong to a kernel of a T5; lists all of them.
  """
  path = os.fspath(path)
  config = _read_config(path)
  _refuse_pickle(path)
  arrays: dict[str, np.ndarray] = {}
  kernels: dict[tuple[str, int, str], np.ndarray] = {}
  mismatches = []
  for name, leaf in hf.file_tensors(os.path.join(path, WEIGHTS)).items():
    array = leaf.read()
    place = peft_names.parse(name)
    if bad := finite.fault(array):
      mismatches.append(Mismatch(name, finite.EXPECTED, bad))
      continue
    array = array.astype(np.float32)
    if place is not None:
      kernels[place] = array
    elif name.startswith(peft_names.PREFIX):
      mismatches.append(
        Mismatch(name, "an array for a kernel of a T5", str(leaf))
      )
    else:
      arrays[name] = array
  there = {(site, layer) for site, layer, _ in kernels}
  mismatches += _absent(config, there, model)
  if mismatches:
    raise CheckpointError(path, mismatches)
  return Adapter(config, arrays, kernels)


def _refuse_pickle(path: str) -> None:
  """Say how to convert the file of an older PEFT into one that can be read."""
  file = os.path.join(path, PICKLE)
  if files.is_file(file) and not files.exists(os.path.join(path, WEIGHTS)):
    content = f"{PICKLE}, a pickle, which is never opened"
    raise unreadable(path, WEIGHTS, content, foreign.pickle_advice(file))


def _read_config(path: str) -> dict[str, Any]:
  """Read a configuration, and check what all adapters have in it."""
  file = os.path.join(path, CONFIG)
  config: dict[str, Any] = json_files.read(file, "PEFT's adapter_config.json")
  json_files.check(file, config, _SCHEMA)
  allowed = {"peft_type": tuple(_methods().for_peft()), "task_type": _TASKS}
  mismatches = [
    Mismatch(f"{CONFIG}:{key}", f"one of {values}", repr(config.get(key)))
    for key, values in allowed.items()
    if config.get(key) not in values
  ]
  if mismatches:
    raise CheckpointError(path, mismatches)
  return config


def _absent(
  config: Mapping[str, Any],
  there: Collection[tuple[str, int]],
  model: ModelShape | None,
) -> list[Mismatch]:
  """List the modules that a configuration names but that have no array.

  A configuration that names modules by a pattern, or by layers, cannot be
  compared with the arrays.
  """
  names = config.get("target_modules")
  excluded = config.get("exclude_modules") or []
  if not isinstance(names, list) or not isinstance(excluded, list):
    return []
  if config.get("layers_to_transform") is not None:
    return []
  model = model or peft_names.smallest(there)
  return [
    missing(name, "its arrays, as target_modules says")
    for place, name in peft_names.modules(model).items()
    if place not in there
    and peft_names.matches(names, name)
    and not peft_names.matches(excluded, name)
  ]


def is_peft(path: str) -> bool:
  """Say whether a folder has the configuration of an adapter that we read."""
  try:
    _read_config(path)
  except CheckpointError:
    return False
  return True


def write_adapter(
  path: str | os.PathLike[str],
  adapter: Adapter,
  *,
  model: T5Config | None = None,
  base_model: str | None = None,
  overwrite: paths.Overwrite = False,
) -> None:
  """Write an adapter that PEFT loads.

  Args:
    path: the folder to make.
    adapter: the adapter that a method made.
    model: the backbone, for the fields that PEFT records about it.
    base_model: name or path of the Hugging Face backbone, which PEFT records
      too; not needed for loading.
    overwrite: whether an adapter may be replaced, or what else.

  Raises:
    CheckpointError: the folder cannot be written.
  """
  config: dict[str, Any] = {
    "auto_mapping": None,
    "base_model_name_or_path": base_model,
    "inference_mode": True,
    "revision": None,
    "task_type": "SEQ_2_SEQ_LM",
  }
  if "num_virtual_tokens" in adapter.config:
    config["num_attention_heads"] = model.num_heads if model else None
    config["num_layers"] = model.num_decoder_layers if model else None
  site_layers = {(site, layer) for site, layer, _ in adapter.kernels}
  config |= {
    name: peft_names.targets(value, site_layers)
    if type(value) is tuple
    else value
    for name, value in adapter.config.items()
  }
  tensors = {
    f"{peft_names.PREFIX}{peft_names.module(site, layer)}.{name}": array
    for (site, layer, name), array in adapter.kernels.items()
  }
  tensors |= adapter.tensors
  with paths.replacing(path, overwrite, is_peft, CONFIG) as folder:
    os.mkdir(folder)
    contiguous = {n: np.ascontiguousarray(a) for n, a in tensors.items()}
    hf.save_tensors(os.path.join(folder, WEIGHTS), contiguous)
    with open(os.path.join(folder, CONFIG), "w", encoding="utf-8") as stream:
      json.dump(config, stream, indent=2, sort_keys=True)
      stream.write("\n")


def read_vectors(path: str) -> Prompt:
  """Read an adapter that has only vectors before the text.

  Args:
    path: the adapter's folder.

  Returns:
    The vectors, [P, H].

  Raises:
    CheckpointError: not such an adapter.
  """
  from prompt_tuning.core import algebra  # imports JAX

  method, delta = read(path)
  if set(algebra.named_leaves(delta)) != {"virtual"}:
    content = f"a {read_adapter(path).config['peft_type']} adapter"
    raise unreadable(path, "vectors before the text", content)
  assert delta.virtual is not None
  values = np.asarray(delta.virtual[0])[list(method.placement.encoder_prefix)]
  rows = max(len(a) for a in read_adapter(path).tensors.values())
  notes: tuple[str, ...] = ()
  if rows > len(values):
    notes = (
      f"kept the first {len(values)} of {rows} rows: PEFT saves a decoder half "
      "that it never uses",
    )
  return as_prompt(values, "peft", path, notes)


def write_vectors(
  path: str | os.PathLike[str],
  values: np.ndarray,
  *,
  model: T5Config | None = None,
  base_model: str | None = None,
  overwrite: paths.Overwrite = False,
) -> None:
  """Write vectors before the text as an adapter.

  Args:
    path: the folder to make.
    values: [P, H]; saved as float32.
    model: see `write_adapter`.
    base_model: see `write_adapter`.
    overwrite: see `write_adapter`.

  Raises:
    CheckpointError: the values are not such vectors, their width is not the
      model's, or the folder cannot be written.
  """
  import jax.numpy as jnp

  from prompt_tuning.core.delta import Delta

  prompt = as_prompt(np.asarray(values), "peft", os.fspath(path))
  length, width = prompt.values.shape
  if model is not None and model.emb_dim != width:
    raise CheckpointError(
      path,
      [Mismatch("prompt", f"[P, {model.emb_dim}]", f"[{length}, {width}]")],
    )
  method = _methods().of_vectors(length, width)
  assert method is not None
  adapter = method.to_peft(Delta(virtual=jnp.asarray(prompt.values)[None]))
  assert isinstance(adapter, Adapter)
  write_adapter(
    path, adapter, model=model, base_model=base_model, overwrite=overwrite
  )


def _methods() -> types.ModuleType:
  """Import the tuning methods; to show a file, nobody needs them."""
  from prompt_tuning.tuners import discovery

  return discovery
