"""Names of a T5's sublayers and stacks, see `core.delta`; needs no JAX."""

ATTENTION_SITES = ("enc_self", "dec_self", "cross")
MLP_SITES = ("enc_mlp", "dec_mlp")
SUBLAYER_SITES = (*ATTENTION_SITES, *MLP_SITES)
STACKS = ("encoder", "decoder")
NORM_SITES = (*SUBLAYER_SITES, *STACKS)
