"""Published parameter counts, and the golden parameter trees."""

import collections
import dataclasses
import math
import pathlib

import jax.numpy as jnp
import pytest

from prompt_tuning.core import tree
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "params"

PUBLISHED = {
  "t5_1_1_small": 76_961_152,
  "t5_1_1_base": 247_577_856,
  "t5_1_1_large": 783_150_080,
  "t5_1_1_xl": 2_849_757_184,
  "t5_1_1_xxl": 11_135_332_352,
  "t5_1_0_small": 60_506_624,
  "t5_1_0_base": 222_903_552,
  "t5_1_0_large": 737_668_096,
  "t5_1_0_3b": 2_851_598_336,
  "t5_1_0_11b": 11_307_321_344,
  "mt5_small": 300_176_768,
  "mt5_base": 582_401_280,
  "mt5_large": 1_229_581_312,
  "mt5_xl": 3_742_619_648,
  "mt5_xxl": 12_921_057_280,
}
# Only their shapes are public; billions of parameters, within a hundredth.
UNPUBLISHED = {"mt5_80b": range(80, 82), "mt5_150b": range(150, 152)}


def _count(config):
  leaves = tree.flatten(network.abstract_params(config)).values()
  return sum(math.prod(leaf.shape) for leaf in leaves)


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameter_count_is_the_published_one(size):
  assert _count(t5_config.get(size)) == PUBLISHED[size]


def test_every_size_has_a_published_count_or_is_for_tests():
  """But for the project's own ladder, which `test_cost` counts."""
  ladder = {f"ladder_{rung}" for rung in range(1, 6)}
  others = {"t5_1_1_tiny", *ladder, *UNPUBLISHED}
  assert set(t5_config.SIZES) - set(PUBLISHED) == others


@pytest.mark.parametrize("size", UNPUBLISHED)
def test_sizes_without_weights_have_what_their_names_say(size):
  config = t5_config.get(size)
  width, joined = config.emb_dim, config.num_heads * config.head_dim
  mlp, attention = 3 * width * config.mlp_dim, 4 * width * joined
  layer = 2 * mlp + 3 * attention + 5 * width  # of both stacks
  shared = 2 * config.vocab_size * width + 2 * width
  shared += 2 * config.num_heads * config.relpos_buckets
  count = config.num_encoder_layers * layer + shared
  assert _count(config) == count
  assert int(count / 1e9) in UNPUBLISHED[size]


@pytest.mark.parametrize("size", ["t5_1_1_small", "t5_1_0_small"])
def test_scanned_layers_hold_the_same_parameters(size):
  config = t5_config.get(size)
  assert _count(t5_config.get(size, scan_layers=True)) == _count(config)


def describe(config):
  """One line per leaf: path, dtype, `axis=size ...`; equal layers collapsed."""
  axes = tree.flatten(network.logical_axes(config))
  lines = {}
  for path, leaf in tree.flatten(network.abstract_params(config)).items():
    pairs = zip(axes[path], leaf.shape, strict=True)
    dims = " ".join(f"{axis}={size}" for axis, size in pairs)
    lines[path] = f"{jnp.dtype(leaf.dtype).name} {dims}"

  collapsed = collections.defaultdict(list)
  for path, text in lines.items():
    stack, *rest = path.split("/")
    number = None
    if rest and rest[0].startswith("layers_"):
      number = int(rest[0].removeprefix("layers_"))
      rest[0] = "layers_*"
    collapsed["/".join([stack, *rest]), text].append(number)
  out = []
  for (path, text), numbers in sorted(collapsed.items()):
    if numbers != [None]:
      assert sorted(numbers) == list(range(len(numbers)))
      path = path.replace("layers_*", f"layers_{{0..{len(numbers) - 1}}}")
    out.append(f"{path}  {text}")
  return "\n".join([*out, f"total {_count(config)}"]) + "\n"


@pytest.mark.parametrize("size", t5_config.SIZES)
def test_parameter_tree_is_the_golden_one(size):
  """To accept a change on purpose, write `describe`'s text into the file."""
  golden = (GOLDEN / f"{size}.txt").read_text()
  assert describe(t5_config.get(size)) == golden


def test_unknown_size_names_the_nearest():
  with pytest.raises(ValueError, match="Did you mean 't5_1_1_base'"):
    t5_config.get("t5_1_1_bose")


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8"])
def test_activations_of_other_dtypes_are_refused(dtype):
  with pytest.raises(ValueError, match=f"Activations of {dtype}.*ACTIVATION"):
    dataclasses.replace(t5_config.get("t5_1_1_small"), dtype=dtype)
