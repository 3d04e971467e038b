"""A trained delta as PEFT stores it, before it has the model's names."""

import dataclasses
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.core.shape import ModelShape

# Settings that do not change what an adapter computes. Which modules it has
# follows from its arrays.
_HARMLESS = (
  *("auto_mapping", "base_model_name_or_path", "exclude_modules"),
  *("inference_mode", "layers_pattern", "layers_to_transform", "peft_type"),
  *("peft_version", "revision", "target_modules", "task_type"),
)
_OFF: tuple[Any, ...] = (None, False, "none", [], {})


@dataclasses.dataclass(frozen=True, eq=False)
class Adapter:
  """Contents of `adapter_config.json` and `adapter_model.safetensors`.

  Attributes:
    config: the method's part of the configuration, with `peft_type`; the writer
      adds the base model. It writes a tuple of sites, such as
      `("enc_self/query",)`, as PEFT's names of these modules.
    tensors: name -> array, for arrays that belong to no kernel.
    kernels: (`<sublayer>/<kernel>`, layer, PEFT's name of the array, such as
      `lora_A.weight`) -> array, in PEFT's orientation.
  """

  config: Mapping[str, Any]
  tensors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  kernels: Mapping[tuple[str, int, str], np.ndarray] = dataclasses.field(
    default_factory=dict
  )

  def insist(
    self,
    harmless: Collection[str],
    allowed: Mapping[str, Sequence[Any]] = types.MappingProxyType({}),
    tensors: Collection[str] = (),
  ) -> None:
    """Refuse settings and arrays that the reader does not know.

    Args:
      harmless: settings that the reader reads, or that do not matter.
      allowed: setting -> values that do not matter, besides those that mean
        off. Any other setting must mean off.
      tensors: names of arrays, outside of kernels, that the reader reads.

    Raises:
      ValueError: there are other settings or arrays; lists them.
    """
    problems = [
      f"{name} = {value!r}"
      for name, value in self.config.items()
      if name not in _HARMLESS
      and name not in harmless
      and value not in (*_OFF, *allowed.get(name, ()))
    ]
    problems += [
      f"an array {name}" for name in self.tensors if name not in tensors
    ]
    if problems:
      raise ValueError(
        f"{self.config.get('peft_type')} with {', '.join(problems)} is not "
        "supported."
      )

  def positive(self, name: str) -> int:
    """Read a setting that is a positive integer.

    Raises:
      ValueError: it is something else.
    """
    value = self.config.get(name)
    if type(value) is not int or value < 1:
      raise ValueError(f"{name}: expected a positive integer; found {value!r}.")
    return value

  def stacked(
    self, names: Sequence[str], model: ModelShape | None, fill: float
  ) -> dict[str, list[np.ndarray]]:
    """Stack the arrays of every kernel over the layers.

    Args:
      names: PEFT's names of a kernel's arrays.
      model: gives the number of layers; None to count them by the arrays.
      fill: number that fills the arrays of layers that have none.

    Returns:
      `<sublayer>/<kernel>` -> arrays [L, ...], in the order of `names`.

    Raises:
      ValueError: kernels have other arrays than these, are in layers that the
        model does not have, or have different shapes in different layers.
    """
    if not self.kernels:
      raise ValueError(
        "The adapter has no arrays for a kernel; expected at least one."
      )
    by_site: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for (site, layer, name), array in self.kernels.items():
      if array.ndim != 2:
        raise ValueError(
          f"{name} of {site} has the shape {array.shape}; expected a matrix."
        )
      by_site.setdefault(site, {}).setdefault(layer, {})[name] = array
    counts: dict[bool, int] = {}
    for site, layer, _ in self.kernels:
      is_encoder = site[:3] == "enc"
      counts[is_encoder] = max(counts.get(is_encoder, 0), layer + 1)
    stacks: dict[str, list[np.ndarray]] = {}
    for site, layers in sorted(by_site.items()):
      for layer, arrays in layers.items():
        if set(arrays) != set(names):
          raise ValueError(
            f"{site} of layer {layer} has {', '.join(sorted(arrays))}; "
            f"expected {' and '.join(names)}."
          )
      count = model.num_layers(site) if model else counts[site[:3] == "enc"]
      if max(layers) >= count:
        raise ValueError(
          f"{site} has arrays of layer {max(layers)}; the model has {count} "
          "layers, from 0."
        )
      first = next(iter(layers.values()))
      missing = {n: np.full_like(array, fill) for n, array in first.items()}
      rows = [layers.get(i, missing) for i in range(count)]
      for name in names:
        shapes = {row[name].shape for row in rows}
        if len(shapes) > 1:
          raise ValueError(
            f"{name} of {site} has several shapes: {sorted(shapes)}."
          )
      stacks[site] = [np.stack([row[name] for row in rows]) for name in names]
    return stacks


def by_layer(
  site: str, name: str, arrays: Any
) -> dict[tuple[str, int, str], np.ndarray]:
  """List an array of a kernel as `Adapter.kernels` has it.

  Args:
    site: `<sublayer>/<kernel>`.
    name: PEFT's name of the array.
    arrays: [L, ...], in PEFT's orientation.

  Returns:
    One entry per layer.
  """
  return {
    (site, layer, name): np.ascontiguousarray(array, np.float32)
    for layer, array in enumerate(arrays)
  }
