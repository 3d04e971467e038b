"""Hugging Face's `config.json` and this project's `T5Config`."""

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_tuning.checkpoints import json_files
from prompt_tuning.checkpoints.errors import Mismatch
from prompt_tuning.core import files, schema
from prompt_tuning.core.schema import (
  ANY,
  FINITE,
  TEXT,
  Each,
  Maybe,
  at_least,
)
from prompt_tuning.core.types import EOS_ID, PAD_ID
from prompt_tuning.models.t5.config import T5Config

FILE = "config.json"
GENERATION_FILE = "generation_config.json"
_IDS = {
  "pad_token_id": PAD_ID,
  "eos_token_id": EOS_ID,
  "decoder_start_token_id": PAD_ID,
  "forced_bos_token_id": None,
  "forced_decoder_ids": None,
}
_IDS_HINT = (
  "A model that was trained with other ids cannot be used. If yours was not, "
  "correct the file."
)
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_MODEL_TYPES = ("t5", "mt5")
_NORM_EPSILON = 1e-6
_ACTIVATIONS = {  # feed_forward_proj -> T5Config.mlp_activations
  "relu": ("relu",),
  "gated-gelu_new": ("gelu", "linear"),  # what the next one means, spelt out
  "gated-gelu": ("gelu", "linear"),
  "gated-silu": ("silu", "linear"),
  "gated-relu": ("relu", "linear"),
}
_SIZE = Maybe(at_least(1))
# The keys that this package or others read; an absent key has its default.
_SCHEMA = {
  "model_type?": Maybe(TEXT),
  "feed_forward_proj?": Maybe(TEXT),
  "layer_norm_epsilon?": Maybe(FINITE),
  "dropout_rate?": FINITE,
  "relative_attention_max_distance?": at_least(1),
} | dict.fromkeys(
  (
    *("vocab_size?", "d_model?", "d_kv?", "d_ff?", "num_heads?"),
    *("num_layers?", "num_decoder_layers?", "relative_attention_num_buckets?"),
  ),
  _SIZE,
)


def read(folder: str) -> dict[str, Any]:
  """Read `config.json`."""
  file = os.path.join(folder, FILE)
  config: dict[str, Any] = json_files.read(file, "Hugging Face's config.json")
  json_files.check(file, config, _SCHEMA)
  return config


def mismatches(config: Mapping[str, Any]) -> list[Mismatch]:
  """List the settings in `config.json` that this project's T5 cannot follow."""
  checks = (
    ("model_type", _MODEL_TYPES, None),
    ("layer_norm_epsilon", (_NORM_EPSILON,), _NORM_EPSILON),
    ("feed_forward_proj", tuple(_ACTIVATIONS), "relu"),
  )
  return [
    Mismatch(f"{FILE}:{key}", f"one of {allowed}", repr(config.get(key)))
    for key, allowed, default in checks
    if config.get(key, default) not in allowed
  ] + _special_ids(config, FILE)


def generation_mismatches(folder: str) -> list[Mismatch]:
  """List the same for `generation_config.json`, which wins in transformers.

  Args:
    folder: of the model; the file need not exist.

  Raises:
    CheckpointError: the file cannot be read.
  """
  file = os.path.join(folder, GENERATION_FILE)
  if not (files.exists(file) or os.path.islink(file)):
    return []
  config = json_files.read(file, f"Hugging Face's {GENERATION_FILE}")
  json_files.check(file, config, Each(ANY))
  return _special_ids(config, GENERATION_FILE)


def _special_ids(config: Mapping[str, Any], file: str) -> list[Mismatch]:
  """List ids that have another meaning than in T5.

  Batches, targets, scores and decoding here are made of T5's three, as in T5X,
  whose checkpoints have no place to say others.
  """
  return [
    Mismatch(
      f"{file}:{key}",
      f"{wanted}, as in every published T5",
      schema.shown(config[key]),
      _IDS_HINT,
    )
    for key, wanted in _IDS.items()
    if key in config and not _is_id(config[key], wanted)
  ]


def _is_id(value: Any, wanted: int | None) -> bool:
  """Say whether an id, or a list with one id, is the expected one or null."""
  if isinstance(value, list) and len(value) == 1:
    (value,) = value
  return value is None or (type(value) is int and value == wanted)


def base_model(config: Mapping[str, Any] | None, path: str) -> str | None:
  """Give the name by which transformers loads a model.

  Args:
    config: the contents of `config.json`; None if the model has none.
    path: of the checkpoint, as the user gave it.

  Returns:
    The name on the Hub if the checkpoint has one, else its path. None if
    transformers cannot load the checkpoint.
  """
  if config is None:
    return None
  name = config.get("_name_or_path")
  is_on_hub = isinstance(name, str) and _HUB_NAME.fullmatch(name)
  return name if is_on_hub else path


def has_tied_head(config: Mapping[str, Any]) -> bool:
  """Say whether a configuration means T5 1.0's tied, scaled head.

  transformers 5 always writes `tie_word_embeddings: true`. Another field now
  has the old meaning: whether the output is scaled.
  """
  if config.get("model_type") != "t5":
    return False
  tied = config.get("tie_word_embeddings", True) is not False
  return bool(config.get("scale_decoder_outputs", tied))


def t5_fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """Read the fields of `T5Config` that shapes do not show.

  Args:
    config: the contents of `config.json`.

  Returns:
    Some fields of `T5Config`.
  """
  activations = config.get("feed_forward_proj", "relu")
  return {
    "mlp_activations": _ACTIVATIONS[activations],
    "relpos_max_distance": config.get("relative_attention_max_distance", 128),
    "dropout_rate": config.get("dropout_rate", 0.1),
  }


def to_json(config: T5Config, dtype: np.dtype) -> dict[str, Any]:
  """Describe a model as Hugging Face's `T5Config` does.

  Args:
    config: the model.
    dtype: of the weights.

  Returns:
    The contents of `config.json`.

  Raises:
    ValueError: activations that Hugging Face has no name for.
  """
  names = {v: k for k, v in _ACTIVATIONS.items()}
  if config.mlp_activations not in names:
    raise ValueError(
      f"mlp_activations {config.mlp_activations} has no Hugging Face name; "
      f"known: {list(names)}."
    )
  projection = names[config.mlp_activations]
  return {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "vocab_size": config.vocab_size,
    "d_model": config.emb_dim,
    "d_kv": config.head_dim,
    "d_ff": config.mlp_dim,
    "num_heads": config.num_heads,
    "num_layers": config.num_encoder_layers,
    "num_decoder_layers": config.num_decoder_layers,
    "feed_forward_proj": projection,
    "relative_attention_num_buckets": config.relpos_buckets,
    "relative_attention_max_distance": config.relpos_max_distance,
    "dropout_rate": config.dropout_rate,
    "layer_norm_epsilon": _NORM_EPSILON,
    "initializer_factor": 1.0,
    "tie_word_embeddings": config.logits_via_embedding,
    "is_encoder_decoder": True,
    "use_cache": True,
    "pad_token_id": PAD_ID,
    "eos_token_id": EOS_ID,
    "decoder_start_token_id": PAD_ID,
    "dtype": dtype.name,
  }
