"""Which T5 a checkpoint holds, told from the shapes of its parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from prompt_tuning.checkpoints import hf_config
from prompt_tuning.checkpoints.errors import CheckpointError, Mismatch
from prompt_tuning.checkpoints.hf_names import EMBEDDING, HEAD
from prompt_tuning.checkpoints.source import Checkpoint, Leaf, missing
from prompt_tuning.models.t5.config import SIZES, T5Config

_BIAS = "encoder/relpos_bias/rel_embedding"
_QUERY = "encoder/layers_0/attention/query/kernel"
_MLP_OUT = "encoder/layers_0/mlp/wo/kernel"
_GATED = "encoder/layers_0/mlp/wi_0/kernel"
_SHAPE_FIELDS = (
  "vocab_size",
  "emb_dim",
  "num_heads",
  "head_dim",
  "mlp_dim",
  "num_encoder_layers",
  "num_decoder_layers",
  "logits_via_embedding",
  "relpos_buckets",
)


def infer_config(checkpoint: Checkpoint) -> T5Config:
  """Work out a model's configuration from its checkpoint.

  Args:
    checkpoint: opened.

  Returns:
    The configuration. What shapes do not tell (the distance of the last
    relative position bucket, which activation) comes from the format where it
    says so (Hugging Face), then from the published size of the same shape,
    then from T5's defaults.

  Raises:
    CheckpointError: the parameters are not a T5's.
  """
  params = checkpoint.params
  needed = (EMBEDDING, _BIAS, _QUERY, _MLP_OUT)
  wrong = [
    missing(name, "a matrix")
    if leaf is None
    else Mismatch(name, "a matrix", str(leaf))
    for name in needed
    if (leaf := params.get(name)) is None
    or len(leaf.shape) != 2
    or not leaf.size
  ]
  if wrong:
    raise CheckpointError(checkpoint.path, wrong)
  config = _from_shapes(params)
  for published in SIZES.values():
    if all(getattr(published, f) == getattr(config, f) for f in _SHAPE_FIELDS):
      config = dataclasses.replace(
        config, relpos_max_distance=published.relpos_max_distance
      )
  if checkpoint.config is not None:
    said = hf_config.t5_fields(checkpoint.config)
    config = dataclasses.replace(config, **said)
  return config


def _from_shapes(params: Mapping[str, Leaf]) -> T5Config:
  vocab_size, emb_dim = params[EMBEDDING].shape
  num_heads, relpos_buckets = params[_BIAS].shape
  gated = _GATED in params
  return T5Config(
    vocab_size=vocab_size,
    emb_dim=emb_dim,
    num_heads=num_heads,
    head_dim=params[_QUERY].shape[1] // num_heads,
    mlp_dim=params[_MLP_OUT].shape[0],
    num_encoder_layers=_layers(params, "encoder"),
    num_decoder_layers=_layers(params, "decoder"),
    mlp_activations=("gelu", "linear") if gated else ("relu",),
    logits_via_embedding=HEAD not in params,
    relpos_buckets=relpos_buckets,
  )


def _layers(params: Mapping[str, Leaf], stack: str) -> int:
  """Count the layers of a stack."""
  start = f"{stack}/layers_"
  return len({p.split("/")[1] for p in params if p.startswith(start)})


def size_name(config: T5Config) -> str | None:
  """Name the published size of a configuration's shapes, if there is one."""
  fields = (*_SHAPE_FIELDS, "mlp_activations")
  for name, published in SIZES.items():
    if all(getattr(published, f) == getattr(config, f) for f in fields):
      return name
  return None


def described(config: T5Config) -> dict[str, Any]:
  """List the fields of a configuration that a checkpoint fixes."""
  fields = (*_SHAPE_FIELDS, "mlp_activations", "relpos_max_distance")
  return {field: getattr(config, field) for field in fields}


def hint(checkpoint: Checkpoint, target: Mapping[str, Any]) -> str:
  """Say in one line that a checkpoint is of another size than the target.

  Args:
    checkpoint: opened.
    target: flat path -> something with a `shape`, unstacked or stacked.

  Returns:
    The line, or the empty string where sizes are not what differs.
  """
  try:
    config = infer_config(checkpoint)
  except CheckpointError:
    return ""
  wanted = target.get(EMBEDDING)
  have = checkpoint.params[EMBEDDING].shape
  name = size_name(config) or ", ".join(
    f"{k}={v}" for k, v in described(config).items()
  )
  if wanted is None or tuple(wanted.shape) == have:
    return f"The checkpoint has the shapes of: {name}."
  return (
    f"The checkpoint has the shapes of: {name}. Its embedding table is "
    f"{list(have)}, the model's {list(wanted.shape)}: choose the model of the "
    "checkpoint's size."
  )
