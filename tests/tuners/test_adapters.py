"""Adapters and norms: what they make of their parameters, and settings."""

import jax
import numpy as np
import pytest

from prompt_tuning.core import algebra, tree
from prompt_tuning.core.delta import NORM_SITES
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.tuners.adapters import AdapterTuning
from prompt_tuning.tuners.method import Inputs
from prompt_tuning.tuners.norms import NormTuning
from tests.tuners import peft_twins

SIZES = ("small", "base", "large", "xl", "xxl")
TINY = t5_config.get("t5_1_1_tiny")


def count(method):
  shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), Inputs()))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_norms_of_base_are_as_many_as_hyperformer_trains():
  """Karimi Mahabadi et al. 2021: 62 norms of 768 numbers."""
  assert count(NormTuning(t5_config.get("t5_1_0_base").shape)) == 47_616


@pytest.mark.parametrize("size", SIZES)
def test_an_adapter_has_2hr_and_r_and_h_numbers(size):
  config = t5_config.get(f"t5_1_1_{size}")
  layers = config.num_encoder_layers + config.num_decoder_layers
  one = 2 * config.emb_dim * 8 + 8 + config.emb_dim
  assert count(AdapterTuning(config.shape, 8)) == 2 * layers * one


def test_the_factor_is_on_what_is_added():
  """Whatever follows `up`: of a normed adapter, the norm."""
  for normed, scaled in ((False, "up"), (True, "norm_scale")):
    made = []
    for factor in (1.0, 4.0):
      method = AdapterTuning(
        TINY.shape, 2, ("cross",), factor=factor, normed=normed
      )
      params = peft_twins.random_params(method)
      delta = method.apply({"params": params}, Inputs())
      made.append(delta.bottleneck["cross"]._asdict())
    one, four = made
    names = {scaled, "up_bias" if scaled == "up" else "norm_bias"}
    for name, array in one.items():
      if array is not None:
        times = 4 if name in names else 1
        np.testing.assert_array_equal(four[name], times * array, name)


def test_parallel_ones_say_so_in_every_layer():
  method = AdapterTuning(TINY.shape, 2, parallel=True)
  delta = method.apply({"params": peft_twins.random_params(method)}, Inputs())
  for adapter in delta.bottleneck.values():
    np.testing.assert_array_equal(adapter.parallel, [True, True])


def test_norms_are_factors_on_every_norm_stored_less_one():
  method = NormTuning(TINY.shape)
  params = peft_twins.random_params(method)
  delta = method.apply({"params": params}, Inputs())
  assert set(delta.norm) == set(NORM_SITES)
  stored = tree.flatten(params)
  for site, factors in delta.norm.items():
    np.testing.assert_array_equal(factors, 1 + stored[f"norm/{site}"])


def test_a_control_is_another_delta_as_far_away(tolerance):
  method = AdapterTuning(TINY.shape, 2, norms=True)
  delta, _ = peft_twins.made(method, peft_twins.random_params(method))
  control = algebra.named_leaves(method.control(delta, jax.random.key(0)))
  for name, ours in algebra.named_leaves(delta).items():
    identity = 1 if name.startswith("norm/") else 0
    assert not np.allclose(ours, control[name], atol=0.01), name
    norms = [
      np.linalg.norm((a - identity).reshape(-1)) for a in (ours, control[name])
    ]
    np.testing.assert_allclose(*norms, **tolerance["sum"], err_msg=name)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"width": 0}, "ADAPTER_WIDTH must be a positive integer; got 0"),
    ({"sites": ("enc_sefl",)}, "ADAPTER_SITES.*Did you mean 'enc_self'"),
    ({"sites": "cross"}, "ADAPTER_SITES must be a list; got 'cross'"),
    ({"sites": 5}, "ADAPTER_SITES must be a list; got 5"),
    ({"sites": ["cross", "cross"]}, "ADAPTER_SITES has 'cross' twice"),
    ({"normed": "no"}, "ADAPTER_NORMED must be True or False; got 'no'"),
    ({"norms": 1}, "ADAPTER_NORMS must be True or False; got 1"),
    ({"parallel": None}, "AdapterTuning.parallel must be True or False"),
    ({"factor": 0}, "ADAPTER_FACTOR must be a positive number; got 0"),
  ],
)
def test_refused_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    AdapterTuning(TINY.shape, **settings)
