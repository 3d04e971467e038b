"""HyperFormer: the paper's counts, its generation in numpy, and settings."""

import pathlib

import jax
import numpy as np
import pytest
from flax.core import meta

from prompt_tuning.core import algebra, tree
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network
from prompt_tuning.models.t5 import sites as model_sites
from prompt_tuning.tuners.hyperformer import HyperFormer, HyperFormerPlusPlus
from prompt_tuning.tuners.method import Inputs
from tests.tuners import peft_twins

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/hyperformer/generated.npz"
TASKS = tuple("abcdefgh")  # the paper's GLUE has eight
MODEL = t5_config.get(
  "t5_1_1_tiny", emb_dim=8, num_encoder_layers=2, num_decoder_layers=3
)
SMALL = {"tasks": ("a", "b"), "embedding": 3, "hidden": 5, "reduction": 4}


def count(method):
  """Numbers that train, without and with those of T5's norms."""
  shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), Inputs()))
  arrays = tree.flatten(meta.unbox(shapes["params"]))
  sizes = {path: array.size for path, array in arrays.items()}
  norms = sum(n for p, n in sizes.items() if p.startswith("norm/"))
  return sum(sizes.values()) - norms, norms


def size_of(config):
  """Numbers of the frozen model."""
  return sum(a.size for a in jax.tree.leaves(network.abstract_params(config)))


@pytest.mark.parametrize(
  ("size", "numbers", "norms"),
  [("small", 2_399_392, 16_384), ("base", 5_163_440, 47_616)],
)
def test_counts_of_one_hypernetwork_are_the_papers(size, numbers, norms):
  """Table 1: 0.29 % per task and 1.02 times the model, at base."""
  config = t5_config.get(f"t5_1_0_{size}")
  assert count(HyperFormerPlusPlus(config.shape, TASKS)) == (numbers, norms)
  share = 100 * (numbers + norms) / len(TASKS) / size_of(config)
  assert round(share, 4) == {"small": 0.4991, "base": 0.2922}[size]


@pytest.mark.parametrize(
  ("size", "share", "times"), [("small", 5.79, 1.46), ("base", 6.86, 1.549)]
)
def test_shares_of_a_hypernetwork_per_layer_are_the_papers(size, share, times):
  config = t5_config.get(f"t5_1_0_{size}")
  trained = sum(count(HyperFormer(config.shape, TASKS)))
  whole = size_of(config)
  assert round(100 * trained / len(TASKS) / whole, 2) == share
  digits = len(str(times)) - 2
  assert round(1 + trained / whole, digits) == times


def dense(params, name, x):
  return x @ params[name]["kernel"] + params[name]["bias"]


def generated(params, method, task, stack, layer, place):
  """Arrays of one adapter, by the formulas of section 2.3, in float64."""
  z = [params["tasks"][str(task)], params[f"{stack}_layers"][layer]]
  x = np.concatenate([*z, params[f"{stack}_positions"][place]])
  x = dense(
    params, f"{stack}_out", np.maximum(dense(params, f"{stack}_in", x), 0)
  )
  x = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
  x = x * params[f"{stack}_norm"]["scale"] + params[f"{stack}_norm"]["bias"]
  width, rank = MODEL.emb_dim, MODEL.emb_dim // method.reduction
  return {
    "down": dense(params, f"{stack}_down", x).reshape(rank, width).T,
    "down_bias": dense(params, f"{stack}_down_bias", x),
    "up": dense(params, f"{stack}_up", x).reshape(width, rank).T,
    "up_bias": dense(params, f"{stack}_up_bias", x),
    "norm_scale": dense(params, f"{stack}_norm_scale", x),
    "norm_bias": dense(params, f"{stack}_norm_bias", x),
  }


def test_one_hypernetwork_is_the_papers_in_numpy(tolerance):
  method = HyperFormerPlusPlus(MODEL.shape, **SMALL)
  params = peft_twins.random_params(method)
  doubles = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
  for task in range(2):
    delta = method.apply({"params": params}, Inputs(condition=task))
    for stack, sites in {
      "encoder": ("enc_mlp", "enc_self"),
      "decoder": ("dec_mlp", "dec_self"),
    }.items():
      for place, site in enumerate(sites):
        for layer in range(MODEL.shape.num_layers(stack)):
          expected = generated(doubles, method, task, stack, layer, place)
          for name, array in expected.items():
            np.testing.assert_allclose(
              getattr(delta.bottleneck[site], name)[layer],
              array,
              **tolerance["oracle"],
            )


@pytest.mark.parametrize(
  ("kind", "name"), [(HyperFormerPlusPlus, "one"), (HyperFormer, "per_layer")]
)
def test_adapters_are_those_of_the_released_code(kind, name, tolerance):
  """Its modules (rabeehk/hyperformer, 56b0f99; torch 2.13) were given our
  random parameters, two tasks and `x` [2, 7, H]; the file has what they made.
  """
  with np.load(GOLDEN) as file:
    arrays = {path: file[path] for path in file.files}
  params = tree.unflatten(
    {
      path.removeprefix(f"{name}/params/"): array
      for path, array in arrays.items()
      if path.startswith(f"{name}/params/")
    }
  )
  method = kind(MODEL.shape, **SMALL)
  compared = 0
  produce = jax.jit(
    lambda params, number: method.apply(
      {"params": params}, Inputs(condition=number)
    )
  )
  apply = jax.jit(lambda x, one: model_sites.bottleneck(x, x, one, None))
  for task, number in (("a", 0), ("b", 1)):
    delta = produce(params, number)
    for site, adapter in delta.bottleneck.items():
      for layer in range(len(adapter.down)):
        one = jax.tree.map(lambda a, layer=layer: a[None, layer], adapter)
        output = apply(arrays["x"], one)
        prefix = f"{name}/{task}/{site}/{layer}/"
        for path in [path for path in arrays if path.startswith(prefix)]:
          what = path.removeprefix(prefix)
          ours = output if what == "output" else getattr(one, what)[0]
          np.testing.assert_allclose(ours, arrays[path], **tolerance["oracle"])
          compared += 1
  assert compared == 2 * 2 * 5 * (7 if name == "one" else 5)


@pytest.mark.parametrize("kind", [HyperFormer, HyperFormerPlusPlus])
def test_without_kernels_all_tasks_have_the_adapters_of_the_biases(kind):
  method = kind(MODEL.shape, **SMALL)
  params = tree.unflatten(
    {
      path: 0 * array if path.endswith("kernel") else array
      for path, array in tree.flatten(peft_twins.random_params(method)).items()
    }
  )
  one, other = (
    algebra.named_leaves(method.apply({"params": params}, Inputs(condition=i)))
    for i in range(2)
  )
  for name, array in one.items():
    np.testing.assert_array_equal(array, other[name], name)
  bias = params["encoder_up_bias"]["bias"]
  layers = MODEL.num_encoder_layers
  own = one["bottleneck/enc_mlp/up_bias"]
  if kind is HyperFormer:  # maps of its own for every layer and sublayer
    bias = bias.reshape(layers, 2, -1)[:, 0]
  np.testing.assert_array_equal(own, np.broadcast_to(bias, own.shape))


@pytest.mark.parametrize("kind", [HyperFormer, HyperFormerPlusPlus])
def test_only_the_vector_of_a_task_learns_from_it(kind):
  method = kind(MODEL.shape, **SMALL)
  params = peft_twins.random_params(method)

  def total(params):
    delta = method.apply({"params": params}, Inputs(condition=1))
    return sum((a**2).sum() for a in jax.tree.leaves(delta))

  gradients = jax.grad(total)(params)["tasks"]
  assert not np.any(gradients["0"])
  assert np.all(gradients["1"])


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"embedding": 0}, "HYPER_EMBEDDING must be a positive integer; got 0"),
    ({"hidden": -1}, "HYPER_HIDDEN"),
    ({"norms": "no"}, "HyperFormerPlusPlus.norms must be True or False"),
    ({"reduction": 3}, "HYPER_REDUCTION 3 does not divide the .* width of 8"),
  ],
)
def test_refused_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    HyperFormerPlusPlus(MODEL.shape, **SMALL | settings)
