"""Shapes and constants of the published T5 family.

Sources: Raffel et al. 2020 (T5 1.0), T5X's gin files (T5 1.1), Xue et al. 2021
(mT5). Field names are those of T5X's minimal T5.
"""

import dataclasses
from typing import Any

import numpy as np

from prompt_tuning.core import bounds, tree
from prompt_tuning.core.shape import ModelShape

REMAT_POLICIES = ("none", "minimal", "full")
# Not float16: masked logits are infinite in it, and padded rows become NaN.
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class T5Config:
  """All settings that decide a T5's parameters and arithmetic.

  Attributes:
    vocab_size: rows of the embedding table (V), not of the tokenizer: the table
      is padded, 32,100 -> 32,128 for T5. Ids from this one on are virtual
      tokens.
    emb_dim: d_model (H).
    num_heads: attention heads (N). `num_heads * head_dim` may differ from
      `emb_dim` (it does in T5 1.1 small).
    head_dim: size of one head (D).
    mlp_dim: d_ff (F).
    num_encoder_layers: encoder layers (L).
    num_decoder_layers: decoder layers (L).
    mlp_activations: one kernel `wi_<i>` per entry, multiplied together:
      ("gelu", "linear") in T5 1.1; ("relu",), with a kernel named `wi`, in 1.0.
    logits_via_embedding: tie the head to the table and scale by 1/sqrt(H), as
      T5 1.0 does; otherwise a separate `logits_dense`.
    dropout_rate: probability of dropping an activation while training.
    relpos_buckets: relative position buckets per head.
    relpos_max_distance: distance from which all distances share the last
      bucket.
    dtype: dtype of activations, float32 or bfloat16.
    param_dtype: dtype of freshly initialised parameters; restored ones keep the
      dtype they were restored in.
    float32_attention_logits: compute attention logits and softmax in float32.
    scan_layers: stack the layers of each stack under one `layers` subtree with
      a leading L axis and scan over them.
    remat_policy: what the backward pass computes again, under T5X's names:
      `none` keeps every activation; `minimal` keeps the products with kernels
      and computes cheap values again (norms, activations, attention weights);
      `full` keeps only each layer's input.
    attention_bytes: maximum size, in bytes, of the attention logits that a
      layer computes at once. If a batch needs more, its rows are computed in
      groups, and again in the backward pass. None: all rows at once, which
      suits accelerators and meshes.
    absorb_from: number of multiplications from which cross-attention of short
      targets does not project the encoder's states, see
      `attention.Attention.absorbs`.
  """

  vocab_size: int = 32_128
  emb_dim: int = 512
  num_heads: int = 6
  head_dim: int = 64
  mlp_dim: int = 1_024
  num_encoder_layers: int = 8
  num_decoder_layers: int = 8
  mlp_activations: tuple[str, ...] = ("gelu", "linear")
  logits_via_embedding: bool = False
  dropout_rate: float = 0.1
  relpos_buckets: int = 32
  relpos_max_distance: int = 128
  dtype: Any = np.float32
  param_dtype: Any = np.float32
  float32_attention_logits: bool = False
  scan_layers: bool = False
  remat_policy: str = "minimal"
  attention_bytes: int | None = None
  absorb_from: int = 1 << 27

  def __post_init__(self) -> None:
    if (name := np.dtype(self.dtype).name) not in DTYPES:
      raise ValueError(
        f"Activations of {name}: expected one of {', '.join(DTYPES)}. Change "
        "ACTIVATION_DTYPE (in Python `dtype`)."
      )
    bounds.insist_rate("DROPOUT_RATE", self.dropout_rate)
    if self.remat_policy not in REMAT_POLICIES:
      raise ValueError(
        f"REMAT is {self.remat_policy!r}; expected one of "
        f"{', '.join(REMAT_POLICIES)}."
      )

  @property
  def shape(self) -> ModelShape:
    """The shape of the model, for tuning methods."""
    gates = len(self.mlp_activations)
    kernels = [f"wi_{i}" for i in range(gates)] if gates > 1 else ["wi"]
    return ModelShape(
      self.emb_dim,
      self.num_heads,
      self.head_dim,
      self.mlp_dim,
      self.num_encoder_layers,
      self.num_decoder_layers,
      tuple(kernels),
    )


def _t5_1_1(
  heads: int,
  layers: int,
  d_model: int,
  d_ff: int,
  vocab: int = 32_128,
  d_kv: int = 64,
) -> T5Config:
  return T5Config(
    vocab_size=vocab,
    emb_dim=d_model,
    num_heads=heads,
    head_dim=d_kv,
    mlp_dim=d_ff,
    num_encoder_layers=layers,
    num_decoder_layers=layers,
  )


def _t5_1_0(
  heads: int, layers: int, d_model: int, d_ff: int, d_kv: int = 64
) -> T5Config:
  return T5Config(
    emb_dim=d_model,
    num_heads=heads,
    head_dim=d_kv,
    mlp_dim=d_ff,
    num_encoder_layers=layers,
    num_decoder_layers=layers,
    mlp_activations=("relu",),
    logits_via_embedding=True,
  )


# The project's own ladder of T5 1.1 models, pre-trained by `prompt-tuning
# pretrain`: 101 times the non-embedding parameters from the first rung to the
# last, which is T5 1.1 small with another vocabulary.
def _rung(
  d_model: int, heads: int, d_kv: int, d_ff: int, layers: int
) -> T5Config:
  return T5Config(
    vocab_size=4_096,
    emb_dim=d_model,
    num_heads=heads,
    head_dim=d_kv,
    mlp_dim=d_ff,
    num_encoder_layers=layers,
    num_decoder_layers=layers,
  )


# The shape of prompt-tuning's bundled test checkpoint; for tests, dry runs.
_TINY = T5Config(
  emb_dim=4,
  num_heads=2,
  head_dim=2,
  mlp_dim=8,
  num_encoder_layers=2,
  num_decoder_layers=2,
  relpos_buckets=4,
  relpos_max_distance=8,
)

SIZES: dict[str, T5Config] = {
  "t5_1_1_tiny": _TINY,
  "t5_1_1_small": _t5_1_1(6, 8, 512, 1_024),
  "t5_1_1_base": _t5_1_1(12, 12, 768, 2_048),
  "t5_1_1_large": _t5_1_1(16, 24, 1_024, 2_816),
  "t5_1_1_xl": _t5_1_1(32, 24, 2_048, 5_120),
  "t5_1_1_xxl": _t5_1_1(64, 24, 4_096, 10_240),
  "t5_1_0_small": _t5_1_0(8, 6, 512, 2_048),
  "t5_1_0_base": _t5_1_0(12, 12, 768, 3_072),
  "t5_1_0_large": _t5_1_0(16, 24, 1_024, 4_096),
  "t5_1_0_3b": _t5_1_0(32, 24, 1_024, 16_384, d_kv=128),
  "t5_1_0_11b": _t5_1_0(128, 24, 1_024, 65_536, d_kv=128),
  "mt5_small": _t5_1_1(6, 8, 512, 1_024, vocab=250_112),
  "mt5_base": _t5_1_1(12, 12, 768, 2_048, vocab=250_112),
  "mt5_large": _t5_1_1(16, 24, 1_024, 2_816, vocab=250_112),
  "mt5_xl": _t5_1_1(32, 24, 2_048, 5_120, vocab=250_112),
  "mt5_xxl": _t5_1_1(64, 24, 4_096, 10_240, vocab=250_112),
  "mt5_80b": _t5_1_1(256, 16, 8_192, 65_536, vocab=250_368),
  "mt5_150b": _t5_1_1(96, 32, 12_288, 36_864, vocab=250_368, d_kv=128),
  "ladder_1": _rung(96, 6, 16, 184, 2),
  "ladder_2": _rung(128, 4, 32, 320, 3),
  "ladder_3": _rung(192, 6, 32, 512, 4),
  "ladder_4": _rung(320, 5, 64, 768, 5),
  "ladder_5": _rung(512, 6, 64, 1_024, 8),
}


def get(name: str, **overrides: Any) -> T5Config:
  """Return the configuration of a published size, with some fields changed.

  Args:
    name: a key of `SIZES`, such as `t5_1_1_small`.
    **overrides: fields of `T5Config`.

  Returns:
    The configuration.

  Raises:
    ValueError: an unknown size; the message names the nearest known one.
  """
  if name not in SIZES:
    raise ValueError(
      f"Unknown T5 size {name!r}.{tree.nearest(name, SIZES)} "
      f"Known sizes: {', '.join(SIZES)}."
    )
  return dataclasses.replace(SIZES[name], **overrides)
