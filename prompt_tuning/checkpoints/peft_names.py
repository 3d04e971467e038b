"""PEFT's names of a T5's modules (Hugging Face's names), and our sites."""

import re
from collections.abc import Collection, Iterable, Sequence

from prompt_tuning.checkpoints import hf_names
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.site_names import ATTENTION_SITES, MLP_SITES

PREFIX = "base_model.model."
# Sublayer -> its T5X path, by which `hf_names` knows it.
_SUBLAYERS = {
  "enc_self": "encoder/layers_{}/attention",
  "dec_self": "decoder/layers_{}/self_attention",
  "cross": "decoder/layers_{}/encoder_decoder_attention",
  "enc_mlp": "encoder/layers_{}/mlp",
  "dec_mlp": "decoder/layers_{}/mlp",
}
_BY_PATH = {path: sublayer for sublayer, path in _SUBLAYERS.items()}
_PATH = re.compile(r"(\w+/layers_)(\d+)(/\w+)/(\w+)/kernel")
_KEY = re.compile(r"(.+\.(?:[qkvo]|wi|wi_0|wi_1|wo))\.(.+)")


def module(site: str, layer: int) -> str:
  """Name a kernel's module.

  Args:
    site: `<sublayer>/<kernel>`.
    layer: the layer's number.

  Returns:
    Such as `encoder.block.0.layer.0.SelfAttention.q`.
  """
  sublayer, kernel = site.split("/")
  path = f"{_SUBLAYERS[sublayer].format(layer)}/{kernel}/kernel"
  renamed = hf_names.to_hf(path)
  assert renamed is not None, path
  return renamed[0].removesuffix(".weight")


def parse(key: str) -> tuple[str, int, str] | None:
  """Split the name of an adapter's array.

  Args:
    key: such as `base_model.model.<module>.lora_A.weight`.

  Returns:
    (`<sublayer>/<kernel>`, layer, rest of the name); None if it is not an array
    of a T5's kernel.
  """
  match = _KEY.fullmatch(key.removeprefix(PREFIX))
  if match is None or not key.startswith(PREFIX):
    return None
  renamed = hf_names.to_t5x(f"{match.group(1)}.weight")
  path = _PATH.fullmatch(renamed[0]) if renamed else None
  if path is None:
    return None
  stack, layer, sublayer, kernel = path.groups()
  site = f"{_BY_PATH[f'{stack}{{}}{sublayer}']}/{kernel}"
  return site, int(layer), match.group(2)


def targets(
  sites: Iterable[str], site_layers: Collection[tuple[str, int]]
) -> list[str]:
  """Name modules as PEFT's `target_modules` does.

  Args:
    sites: `<sublayer>/<kernel>`s.
    site_layers: (site, layer) of all modules of an adapter.

  Returns:
    `q`, if every attention has it, and whole names of other modules.
  """
  names, all_sites = set(), set(sites)
  for site in all_sites:
    sublayer, kernel = site.split("/")
    alike = MLP_SITES if sublayer in MLP_SITES else ATTENTION_SITES
    whole = {
      module(site, layer) for other, layer in site_layers if other == site
    }
    is_everywhere = all(f"{other}/{kernel}" in all_sites for other in alike)
    names |= {n.rpartition(".")[2] for n in whole} if is_everywhere else whole
  return sorted(names)


def modules(model: ModelShape) -> dict[tuple[str, int], str]:
  """Name the modules of all kernels: (site, layer) -> name."""
  return {
    (site, layer): module(site, layer)
    for site in model.kernels()
    for layer in range(model.num_layers(site))
  }


def smallest(site_layers: Collection[tuple[str, int]]) -> ModelShape:
  """Return the smallest model that has given (site, layer)s, without widths."""
  layers = {site[:3]: 0 for site in _SUBLAYERS}
  for site, layer in site_layers:
    layers[site[:3]] = max(layers[site[:3]], layer + 1)
  gates = ("wi_0", "wi_1")
  gated = any(site.endswith(gates) for site, _ in site_layers)
  return ModelShape(
    num_encoder_layers=layers["enc"],
    num_decoder_layers=max(layers["dec"], layers["cro"]),
    mlp_kernels=gates if gated else ("wi",),
  )


def matches(names: Sequence[object], module_name: str) -> bool:
  """Whether a module's name, or its end after a dot, is among names."""
  return any(f".{module_name}".endswith(f".{name}") for name in names)
