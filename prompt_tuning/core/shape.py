"""The numbers of a T5 that a tuning method may need, and nothing else of it."""

import dataclasses

from prompt_tuning.core.site_names import ATTENTION_SITES, MLP_SITES


@dataclasses.dataclass(frozen=True)
class ModelShape:
  """Sizes of a T5; those of no model by default.

  Attributes:
    emb_dim: features of a token embedding (H).
    num_heads: attention heads (N).
    head_dim: features of a head (D); N x D need not be H.
    mlp_dim: features inside an MLP (F).
    num_encoder_layers: layers of the encoder.
    num_decoder_layers: layers of the decoder.
    mlp_kernels: names of the MLP's kernels into F: `wi`, or `wi_0`, `wi_1`.
  """

  emb_dim: int = 0
  num_heads: int = 0
  head_dim: int = 0
  mlp_dim: int = 0
  num_encoder_layers: int = 0
  num_decoder_layers: int = 0
  mlp_kernels: tuple[str, ...] = ()

  def kernels(self) -> dict[str, tuple[int, int]]:
    """List every kernel: `<sublayer>/<kernel>` -> (inputs, outputs)."""
    joined = self.num_heads * self.head_dim
    sizes: dict[str, tuple[int, int]] = {}
    for site in ATTENTION_SITES:
      for name in ("query", "key", "value"):
        sizes[f"{site}/{name}"] = (self.emb_dim, joined)
      sizes[f"{site}/out"] = (joined, self.emb_dim)
    for site in MLP_SITES:
      for name in self.mlp_kernels:
        sizes[f"{site}/{name}"] = (self.emb_dim, self.mlp_dim)
      sizes[f"{site}/wo"] = (self.mlp_dim, self.emb_dim)
    return sizes

  def num_layers(self, site: str) -> int:
    """Count the layers that have a site, named by sublayer, kernel or stack."""
    if site.startswith("enc"):
      return self.num_encoder_layers
    return self.num_decoder_layers
