"""Find which T5 a checkpoint holds, from the shapes of its parameters."""

import dataclasses
from collections.abc import Collection, Mapping
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
    checkpoint: an open checkpoint.

  Returns:
    The configuration. Shapes do not show the distance of the last relative
    position bucket, nor the activation. These come from the format if it has
    them (Hugging Face), then from the published size of the same shape, then
    from T5's defaults.

  Raises:
    CheckpointError: the parameters are not a T5's.
  """
  params = checkpoint.params
  needed = (EMBEDDING, _BIAS, _QUERY, _MLP_OUT)
  broken = {mismatch.path for mismatch in checkpoint.broken}
  mismatches = [
    missing(name, "a matrix")
    if leaf is None
    else Mismatch(name, "a matrix", str(leaf))
    for name in needed
    if name not in broken
    and ((leaf := params.get(name)) is None or not _is_matrix(leaf))
  ]
  if mismatches or broken.intersection(needed):
    raise CheckpointError(checkpoint.path, [*checkpoint.broken, *mismatches])
  config = _from_shapes(params, params.keys() | broken)
  for published in SIZES.values():
    if all(getattr(published, f) == getattr(config, f) for f in _SHAPE_FIELDS):
      config = dataclasses.replace(
        config, relpos_max_distance=published.relpos_max_distance
      )
  if checkpoint.config is not None:
    said = hf_config.t5_fields(checkpoint.config)
    config = dataclasses.replace(config, **said)
  return config


def contradictions(
  said: Mapping[str, Any], params: Mapping[str, Leaf]
) -> list[Mismatch]:
  """List the sizes in a `config.json` that the weights contradict.

  Args:
    said: the contents of Hugging Face's `config.json`.
    params: the weights under T5X's names.

  Returns:
    One mismatch per field. Absent fields cannot mismatch, except that decoders
    are as deep as encoders by default. Leaves that are absent or not a matrix
    are not compared.
  """
  sizes = {
    "num_layers": _layers(params, "encoder"),
    "num_decoder_layers": _layers(params, "decoder"),
  }
  told = {  # leaf -> what its axes are called
    EMBEDDING: ("vocab_size", "d_model"),
    _BIAS: ("num_heads", "relative_attention_num_buckets"),
    _QUERY: ("d_model", "num_heads x d_kv"),
    _MLP_OUT: ("d_ff", "d_model"),
  }
  claims = dict(said)
  if claims.get("num_decoder_layers") is None:
    claims["num_decoder_layers"] = claims.get("num_layers")
  heads, width = said.get("num_heads"), said.get("d_kv")
  if isinstance(heads, int) and isinstance(width, int):
    claims["num_heads x d_kv"] = heads * width
  for name, fields in told.items():
    leaf = params.get(name)
    if leaf is not None and _is_matrix(leaf):
      pairs = zip(fields, leaf.shape, strict=True)
      sizes |= {field: size for field, size in pairs if field not in sizes}
  return [
    Mismatch(
      f"{hf_config.FILE}:{field}",
      f"{size}, as the weights have",
      repr(claims[field]),
    )
    for field, size in sizes.items()
    if claims.get(field) not in (None, size)
  ]


def _is_matrix(leaf: Leaf) -> bool:
  return len(leaf.shape) == 2 and bool(leaf.size)


def _from_shapes(
  params: Mapping[str, Leaf], names: Collection[str]
) -> T5Config:
  """Read sizes from the leaves, and variants from the names of all leaves."""
  vocab_size, emb_dim = params[EMBEDDING].shape
  num_heads, relpos_buckets = params[_BIAS].shape
  gated = _GATED in names
  return T5Config(
    vocab_size=vocab_size,
    emb_dim=emb_dim,
    num_heads=num_heads,
    head_dim=params[_QUERY].shape[1] // num_heads,
    mlp_dim=params[_MLP_OUT].shape[0],
    num_encoder_layers=_layers(names, "encoder"),
    num_decoder_layers=_layers(names, "decoder"),
    mlp_activations=("gelu", "linear") if gated else ("relu",),
    logits_via_embedding=HEAD not in names,
    relpos_buckets=relpos_buckets,
  )


def _layers(names: Collection[str], stack: str) -> int:
  """Count the layers of a stack."""
  start = f"{stack}/layers_"
  return len({n.split("/")[1] for n in names if n.startswith(start)})


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
    checkpoint: an open checkpoint.
    target: flat path -> something with a `shape`, unstacked or stacked.

  Returns:
    The line, or the empty string if the sizes do not differ.
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
