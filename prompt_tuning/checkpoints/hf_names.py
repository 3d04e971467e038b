"""One table between Hugging Face's names for a T5's tensors and T5X's."""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

EMBEDDING = "token_embedder/embedding"
HEAD = "decoder/logits_dense/kernel"
HF_EMBEDDING = "shared.weight"
HF_HEAD = "lm_head.weight"

# Further names under which a file may repeat the embedding table.
HF_EMBEDDING_ALIASES = (
  "encoder.embed_tokens.weight",
  "decoder.embed_tokens.weight",
)

# A tensor that every T5 has, with any wrapper.
_ANY_T5 = "encoder.block.0.layer.0.SelfAttention.q.weight"

# Early versions wrote these tensors, and every reader ignores them:
# cross-attention has no relative positions.
HF_UNUSED = (
  "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)


class Row(NamedTuple):
  """One tensor, or one tensor of every layer.

  Attributes:
    hf: Hugging Face's name; `{}` stands for the layer.
    t5x: T5X's path; `{}` stands for the layer.
    transposed: whether the axes are reversed: torch has the kernel of a
      `Linear` as [outputs, inputs] and the relative biases as [buckets, N].
  """

  hf: str
  t5x: str
  transposed: bool = False


def _attention(hf: str, t5x: str) -> tuple[Row, ...]:
  kernels = {"q": "query", "k": "key", "v": "value", "o": "out"}
  return tuple(
    Row(f"{hf}.{a}.weight", f"{t5x}/{b}/kernel", True)
    for a, b in kernels.items()
  )


def _mlp(hf: str, t5x: str) -> tuple[Row, ...]:
  return tuple(
    Row(f"{hf}.DenseReluDense.{name}.weight", f"{t5x}/mlp/{name}/kernel", True)
    for name in ("wi", "wi_0", "wi_1", "wo")  # `wi` in T5 1.0, the pair in 1.1
  )


def _norm(hf: str, t5x: str) -> Row:
  return Row(f"{hf}.layer_norm.weight", f"{t5x}_layer_norm/scale")


_ENC_HF, _ENC = "encoder.block.{}.layer", "encoder/layers_{}"
_DEC_HF, _DEC = "decoder.block.{}.layer", "decoder/layers_{}"
_BIAS_HF = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"

TABLE: tuple[Row, ...] = (
  Row(HF_EMBEDDING, EMBEDDING),
  Row(HF_HEAD, HEAD, True),
  Row(f"encoder.{_BIAS_HF}", "encoder/relpos_bias/rel_embedding", True),
  Row(f"decoder.{_BIAS_HF}", "decoder/relpos_bias/rel_embedding", True),
  Row("encoder.final_layer_norm.weight", "encoder/encoder_norm/scale"),
  Row("decoder.final_layer_norm.weight", "decoder/decoder_norm/scale"),
  *_attention(f"{_ENC_HF}.0.SelfAttention", f"{_ENC}/attention"),
  *_mlp(f"{_ENC_HF}.1", _ENC),
  _norm(f"{_ENC_HF}.0", f"{_ENC}/pre_attention"),
  _norm(f"{_ENC_HF}.1", f"{_ENC}/pre_mlp"),
  *_attention(f"{_DEC_HF}.0.SelfAttention", f"{_DEC}/self_attention"),
  *_attention(
    f"{_DEC_HF}.1.EncDecAttention", f"{_DEC}/encoder_decoder_attention"
  ),
  *_mlp(f"{_DEC_HF}.2", _DEC),
  _norm(f"{_DEC_HF}.0", f"{_DEC}/pre_self_attention"),
  _norm(f"{_DEC_HF}.1", f"{_DEC}/pre_cross_attention"),
  _norm(f"{_DEC_HF}.2", f"{_DEC}/pre_mlp"),
)

_LAYER = re.compile(r"(?<=block\.)\d+(?=\.)|(?<=/layers_)\d+(?=/)")
_BY_HF = {row.hf: row for row in TABLE}
_BY_T5X = {row.t5x: row for row in TABLE}


def to_t5x(hf: str) -> tuple[str, bool] | None:
  """Rename one tensor.

  Args:
    hf: Hugging Face's name.

  Returns:
    T5X's path and whether the axes are reversed, or None for an unknown name.
  """
  return _renamed(hf, _BY_HF, "t5x")


def to_hf(t5x: str) -> tuple[str, bool] | None:
  """Rename one tensor; the inverse of `to_t5x`."""
  return _renamed(t5x, _BY_T5X, "hf")


def _renamed(
  name: str, rows: dict[str, Row], side: str
) -> tuple[str, bool] | None:
  if "{}" in name:
    return None
  if name in rows:  # the relative biases, which HF keeps in block 0
    return getattr(rows[name], side), rows[name].transposed
  layer = _LAYER.search(name)
  if layer is None or layer.group() != str(int(layer.group())):
    return None
  row = rows.get(f"{name[: layer.start()]}{{}}{name[layer.end() :]}")
  if row is None:
    return None
  return getattr(row, side).format(layer.group()), row.transposed


def wrapper(names: Collection[str]) -> str:
  """Find the prefix that a wrapper, such as torch's DataParallel, added.

  Args:
    names: of all tensors.

  Returns:
    `module.`, `model.` or the like; empty if most names have none.
  """
  prefixes = {n.removesuffix(_ANY_T5) for n in names if n.endswith(_ANY_T5)}
  prefix = prefixes.pop() if len(prefixes) == 1 else ""
  wrapped = [n for n in names if n.startswith(prefix)] if prefix else []
  return prefix if 2 * len(wrapped) > len(names) else ""


def unknown(names: Iterable[str]) -> list[str]:
  """List the Hugging Face names that no table here knows."""
  known = {*HF_EMBEDDING_ALIASES, *HF_UNUSED}
  return sorted(n for n in names if n not in known and to_t5x(n) is None)
