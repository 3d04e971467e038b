"""PEFT prompt adapters: `adapter_config.json`, `adapter_model.safetensors`.

Source: PEFT 0.21.2, what it writes and what it needs in order to load.
"""

import json
import os
from typing import Any

import numpy as np

from prompt_tuning.checkpoints import hf, paths
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  Mismatch,
  parsing,
)
from prompt_tuning.checkpoints.prompts import Prompt, as_prompt
from prompt_tuning.models.t5.config import T5Config

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
TENSOR = "prompt_embeddings"
# Adapters of these types are nothing but prompt vectors when saved: whatever
# produced them in training is not kept.
_TYPES = ("PROMPT_TUNING", "P_TUNING")
_TASKS = ("SEQ_2_SEQ_LM", None)
_VERSION = "0.21.2"


def read_peft(path: str) -> Prompt:
  """Read the prompt of an adapter.

  PEFT allocates one prompt for the encoder and one for the decoder of a
  sequence-to-sequence model, and then only ever uses the first: of the [2P, H]
  it saves by default, rows P and above were never trained or read.

  Args:
    path: the adapter's folder.

  Returns:
    The encoder's prompt, [P, H].

  Raises:
    CheckpointError: not such an adapter, or one whose tensor does not have the
      size that its configuration says.
  """
  config = _read_config(path)
  tensors = hf.file_tensors(os.path.join(path, WEIGHTS))
  length, width = config["num_virtual_tokens"], config["token_dim"]
  sizes = [(length, width), (2 * length, width)]
  wrong = [
    Mismatch(name, f"only {TENSOR}", str(leaf))
    for name, leaf in tensors.items()
    if name != TENSOR
  ]
  leaf = tensors.get(TENSOR)
  if leaf is None or leaf.shape not in sizes:
    expected = " or ".join(str(list(size)) for size in sizes)
    wrong.append(Mismatch(TENSOR, expected, str(leaf or "nothing")))
  if wrong or leaf is None:
    raise CheckpointError(path, wrong)
  notes: tuple[str, ...] = ()
  if leaf.shape[0] == 2 * length:
    notes = (
      f"kept the first {length} of {2 * length} rows: PEFT saves a decoder "
      "half that it never uses",
    )
  return as_prompt(leaf.read()[:length], "peft", path, notes)


def is_peft(path: str) -> bool:
  """Say whether a folder has the configuration of a prompt adapter."""
  try:
    _read_config(path)
  except CheckpointError:
    return False
  return True


def _read_config(path: str) -> dict[str, Any]:
  """Read and check an adapter's configuration."""
  file = os.path.join(path, CONFIG)
  with parsing(file, "PEFT's adapter_config.json"):
    with open(file, encoding="utf-8") as stream:
      config = json.load(stream)
    if not isinstance(config, dict):
      raise ValueError(f"a {type(config).__name__}")
  allowed = {"peft_type": _TYPES, "task_type": _TASKS}
  wrong = [
    Mismatch(f"{CONFIG}:{key}", f"one of {values}", repr(config.get(key)))
    for key, values in allowed.items()
    if config.get(key) not in values
  ]
  wrong += [
    Mismatch(f"{CONFIG}:{key}", "a positive integer", repr(config.get(key)))
    for key in ("num_virtual_tokens", "token_dim")
    if type(config.get(key)) is not int or config[key] < 1
  ]
  if wrong:
    raise CheckpointError(path, wrong)
  return config


def write_peft(
  path: str | os.PathLike[str],
  values: np.ndarray,
  *,
  model: T5Config | None = None,
  base_model: str | None = None,
  overwrite: paths.Overwrite = False,
) -> None:
  """Write a prompt as an adapter that PEFT loads.

  Args:
    path: the folder to make.
    values: [P, H]; saved as float32, with one submodule (the encoder).
    model: the backbone, for the fields that PEFT records about it.
    base_model: name or path of the Hugging Face backbone, which PEFT records
      too; not needed for loading.
    overwrite: whether an adapter may be replaced, or what else.

  Raises:
    CheckpointError: not a prompt, of another width than the model, or no place
      to write.
  """
  prompt = as_prompt(np.asarray(values), "peft", os.fspath(path))
  length, width = prompt.values.shape
  if model is not None and model.emb_dim != width:
    raise CheckpointError(
      path,
      [Mismatch("prompt", f"[P, {model.emb_dim}]", f"[{length}, {width}]")],
    )
  config = {
    "auto_mapping": None,
    "base_model_name_or_path": base_model,
    "inference_mode": True,
    "modules_to_save": None,
    "num_attention_heads": model.num_heads if model else None,
    "num_layers": model.num_decoder_layers if model else None,
    "num_transformer_submodules": 1,
    "num_virtual_tokens": length,
    "peft_type": "PROMPT_TUNING",
    "peft_version": _VERSION,
    "prompt_tuning_init": "RANDOM",
    "prompt_tuning_init_text": None,
    "revision": None,
    "task_type": "SEQ_2_SEQ_LM",
    "token_dim": width,
    "tokenizer_kwargs": None,
    "tokenizer_name_or_path": None,
  }
  with paths.replacing(path, overwrite, is_peft) as folder:
    os.mkdir(folder)
    tensors = {TENSOR: np.ascontiguousarray(prompt.values)}
    hf.save_tensors(os.path.join(folder, WEIGHTS), tensors)
    with open(os.path.join(folder, CONFIG), "w", encoding="utf-8") as stream:
      json.dump(config, stream, indent=2, sort_keys=True)
      stream.write("\n")
