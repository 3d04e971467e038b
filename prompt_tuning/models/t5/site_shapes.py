"""The sites of a T5 with a given configuration, and their shapes."""

from collections.abc import Iterator

from prompt_tuning.core import tree
from prompt_tuning.core.delta import (
  ATTENTION_SITES,
  MLP_SITES,
  NORM_SITES,
  STACKS,
  SUBLAYER_SITES,
  Delta,
)
from prompt_tuning.core.types import Shape
from prompt_tuning.models.t5.config import T5Config


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
  problems = _unknown_sites(delta, config)
  runs: dict[str, int] = {}
  for name, shape, expected in _expectations(delta, config):
    runs[name] = shape[0] if shape else 0
    fits = len(shape) == len(expected) + 1 and all(
      want in (None, got) for want, got in zip(expected, shape[1:], strict=True)
    )
    if not fits:
      want = ", ".join("any" if e is None else str(e) for e in expected)
      problems.append(f"{name}: expected [runs, {want}], got {list(shape)}")
  across = delta.prefix.get("cross")
  if across is not None and across.positioned is not None:
    problems.append(
      "prefix[cross].positioned: cross-attention has no positions"
    )
  if len(set(runs.values())) > 1:
    problems.append(f"arrays of different numbers of runs: {runs}")
  if problems:
    raise ValueError(
      f"The delta does not fit this model (d_model {config.emb_dim}, "
      f"{config.num_heads} heads of {config.head_dim}, d_ff "
      f"{config.mlp_dim}):\n  " + "\n  ".join(problems)
    )
  return next(iter(runs.values()), 1)


def _known_sites(config: T5Config) -> dict[str, list[str]]:
  kernels = list(config.shape.kernels())
  return {
    "prefix": list(ATTENTION_SITES),
    "hidden": list(STACKS),
    "bottleneck": list(SUBLAYER_SITES),
    "lowrank": kernels,
    "scale": [*kernels, *(f"{site}/hidden" for site in MLP_SITES)],
    "norm": list(NORM_SITES),
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
  kernels = config.shape.kernels()
  sizes = {site: out for site, (_, out) in kernels.items()}
  sizes |= {f"{site}/hidden": config.mlp_dim for site in MLP_SITES}
  if delta.virtual is not None:
    yield "virtual", delta.virtual.shape, (None, width)
  if delta.head_rows is not None:
    yield "head_rows", delta.head_rows.shape, (None, width)
    if delta.head_mask is not None:
      expected = (delta.head_rows.shape[1],)
      yield "head_mask", delta.head_mask.shape, expected
  if delta.sight is not None:
    yield "sight", delta.sight.shape, (3,)
  if delta.log_weight is not None:
    yield "log_weight", delta.log_weight.shape, ()
  if delta.word_weights is not None:
    yield "word_weights", delta.word_weights.shape, (None, None)
  for site, prefix in delta.prefix.items():
    layers, length = config.shape.num_layers(site), prefix.key.shape[2:3]
    of_parts = {"key": (None, *heads), "value": (*(length or (None,)), *heads)}
    of_parts |= {"mask": length, "positioned": ()}
    for part, array in prefix._asdict().items():
      if array is not None:
        expected = (layers, *of_parts[part])
        yield f"prefix[{site}].{part}", array.shape, expected
  for stack, hidden in delta.hidden.items():
    layers, length = config.shape.num_layers(stack), hidden.values.shape[2:3]
    yield f"hidden[{stack}].values", hidden.values.shape, (layers, None, width)
    expected = (layers, *length)
    yield f"hidden[{stack}].replace", hidden.replace.shape, expected
  for site, adapter in delta.bottleneck.items():
    rank = adapter.down.shape[-1]
    wanted: dict[str, Shape] = {"down": (width, rank), "up": (rank, width)}
    wanted |= {"down_bias": (rank,), "normed": (), "parallel": ()}
    for part, array in adapter._asdict().items():
      if array is not None:
        expected = (config.shape.num_layers(site), *wanted.get(part, (width,)))
        yield f"bottleneck[{site}].{part}", array.shape, expected
  for site in set(delta.lowrank) & set(kernels):
    layers, low = config.shape.num_layers(site), delta.lowrank[site]
    inputs, outputs = kernels[site]
    yield f"lowrank[{site}].a", low.a.shape, (layers, inputs, None)
    expected = (layers, low.a.shape[-1], outputs)
    yield f"lowrank[{site}].b", low.b.shape, expected
  for site in set(delta.scale) & set(sizes):
    expected = (config.shape.num_layers(site), sizes[site])
    yield f"scale[{site}]", delta.scale[site].shape, expected
  for site in set(delta.norm) & set(NORM_SITES):
    layers = 1 if site in STACKS else config.shape.num_layers(site)
    yield f"norm[{site}]", delta.norm[site].shape, (layers, width)
