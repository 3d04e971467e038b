"""The sites a T5 of some configuration has, and the shapes they take."""

from collections.abc import Iterator

from prompt_tuning.core import tree
from prompt_tuning.core.delta import (
  ATTENTION_SITES,
  MLP_SITES,
  STACKS,
  SUBLAYER_SITES,
  Delta,
)
from prompt_tuning.core.types import Shape
from prompt_tuning.models.t5.config import T5Config


def kernel_features(config: T5Config) -> dict[str, tuple[int, int]]:
  """List every kernel that `Delta.lowrank` and `Delta.scale` may name.

  Args:
    config: model configuration.

  Returns:
    `<sublayer>/<kernel>` -> (inputs, outputs).
  """
  width, joined = config.emb_dim, config.num_heads * config.head_dim
  inward = {"query": joined, "key": joined, "value": joined}
  gates = range(len(config.mlp_activations))
  names = [f"wi_{i}" for i in gates] if len(gates) > 1 else ["wi"]
  kernels: dict[str, tuple[int, int]] = {}
  for site in ATTENTION_SITES:
    kernels |= {f"{site}/{name}": (width, out) for name, out in inward.items()}
    kernels[f"{site}/out"] = (joined, width)
  for site in MLP_SITES:
    kernels |= {f"{site}/{name}": (width, config.mlp_dim) for name in names}
    kernels[f"{site}/wo"] = (config.mlp_dim, width)
  return kernels


def num_layers(config: T5Config, site: str) -> int:
  """Count the layers that have a site, named by sublayer, kernel or stack."""
  if site.startswith("enc"):
    return config.num_encoder_layers
  return config.num_decoder_layers


def check(delta: Delta, config: T5Config) -> int:
  """Check a delta's site names and shapes against a model.

  Args:
    delta: arrays or `jax.ShapeDtypeStruct`s.
    config: model configuration.

  Returns:
    The number of runs, K (1 for an empty delta).

  Raises:
    ValueError: lists every unknown site (naming the nearest known one), every
      array of another shape, and disagreement about the number of runs.
  """
  wrong = _unknown_sites(delta, config)
  runs: dict[str, int] = {}
  for name, shape, expected in _expectations(delta, config):
    runs[name] = shape[0] if shape else 0
    fits = len(shape) == len(expected) + 1 and all(
      want in (None, got) for want, got in zip(expected, shape[1:], strict=True)
    )
    if not fits:
      want = ", ".join("any" if e is None else str(e) for e in expected)
      wrong.append(f"{name}: expected [runs, {want}], got {list(shape)}")
  if len(set(runs.values())) > 1:
    wrong.append(f"arrays of different numbers of runs: {runs}")
  if wrong:
    raise ValueError(
      f"The delta does not fit this model (d_model {config.emb_dim}, "
      f"{config.num_heads} heads of {config.head_dim}, d_ff "
      f"{config.mlp_dim}):\n  " + "\n  ".join(wrong)
    )
  return next(iter(runs.values()), 1)


def _known_sites(config: T5Config) -> dict[str, list[str]]:
  kernels = list(kernel_features(config))
  return {
    "prefix": list(ATTENTION_SITES),
    "hidden": list(STACKS),
    "bottleneck": list(SUBLAYER_SITES),
    "lowrank": kernels,
    "scale": [*kernels, *(f"{site}/hidden" for site in MLP_SITES)],
  }


def _unknown_sites(delta: Delta, config: T5Config) -> list[str]:
  return [
    f"{field}[{site!r}]: no such site.{tree.nearest(site, known)}"
    for field, known in _known_sites(config).items()
    for site in getattr(delta, field)
    if site not in known
  ]


def _expectations(
  delta: Delta, config: T5Config
) -> Iterator[tuple[str, Shape, tuple[int | None, ...]]]:
  """Yield (name, shape, expected shape behind the run axis; None = any)."""
  expected: tuple[int | None, ...]
  width = config.emb_dim
  heads = (config.num_heads, config.head_dim)
  kernels = kernel_features(config)
  sizes = {site: out for site, (_, out) in kernels.items()}
  sizes |= {f"{site}/hidden": config.mlp_dim for site in MLP_SITES}
  if delta.virtual is not None:
    yield "virtual", delta.virtual.shape, (None, width)
  if delta.head_rows is not None:
    yield "head_rows", delta.head_rows.shape, (None, width)
  for site, prefix in delta.prefix.items():
    for part, array in prefix._asdict().items():
      expected = (num_layers(config, site), None, *heads)
      yield f"prefix[{site}].{part}", array.shape, expected
  for stack, hidden in delta.hidden.items():
    expected = (num_layers(config, stack), None, width)
    yield f"hidden[{stack}]", hidden.values.shape, expected
  for site, adapter in delta.bottleneck.items():
    rank = adapter.down.shape[-1]
    shapes: dict[str, Shape] = {"down": (width, rank), "up": (rank, width)}
    shapes |= {"down_bias": (rank,)}
    for part, array in adapter._asdict().items():
      if array is not None:
        expected = (num_layers(config, site), *shapes.get(part, (width,)))
        yield f"bottleneck[{site}].{part}", array.shape, expected
  for site in set(delta.lowrank) & set(kernels):
    layers, low = num_layers(config, site), delta.lowrank[site]
    inputs, outputs = kernels[site]
    yield f"lowrank[{site}].a", low.a.shape, (layers, inputs, None)
    expected = (layers, low.a.shape[-1], outputs)
    yield f"lowrank[{site}].b", low.b.shape, expected
  for site in set(delta.scale) & set(sizes):
    expected = (num_layers(config, site), sizes[site])
    yield f"scale[{site}]", delta.scale[site].shape, expected
