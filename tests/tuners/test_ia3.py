"""(IA)3: counts, and parity with PEFT's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from prompt_tuning.checkpoints import peft
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import algebra, tree
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.tuners.ia3 import IA3
from prompt_tuning.tuners.method import Inputs
from tests.tuners import peft_twins

SMALL = t5_config.get("t5_1_1_small")
LOADING = pytest.mark.filterwarnings(
  "ignore:`is_gradient_checkpointing`:FutureWarning"
)


@pytest.mark.parametrize("name", ["t5_1_1_small", "t5_1_0_11b", "mt5_base"])
def test_parameter_count(name):
  config = t5_config.get(name)
  method = IA3(config.shape)
  shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), Inputs()))
  joined = config.num_heads * config.head_dim
  layers = config.num_encoder_layers
  expected = 3 * 2 * layers * joined + 2 * layers * config.mlp_dim
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected
  axes = {p: x.names for p, x in tree.flatten(shapes["params"]).items()}
  assert axes["cross/value"] == ("layers", "joined_kv")
  assert axes["dec_mlp/hidden"] == ("layers", "mlp")


def test_it_starts_at_the_frozen_model_and_decays_to_it():
  method = IA3(SMALL.shape)
  variables = method.init(jax.random.key(0), Inputs())
  for decayed in (variables, jax.tree.map(lambda a: 0.9 * a, variables)):
    for factors in method.apply(decayed, Inputs()).scale.values():
      np.testing.assert_array_equal(factors, np.ones_like(factors))


def test_a_control_is_as_far_from_one(tolerance):
  method = IA3(t5_config.get("t5_1_1_tiny").shape)
  delta, _ = peft_twins.made(method, peft_twins.random_params(method))
  control = method.control(delta, jax.random.key(0))
  for name, ours in algebra.named_leaves(delta).items():
    theirs = algebra.named_leaves(control)[name]
    assert not np.allclose(ours, theirs, atol=0.1)
    norms = [np.linalg.norm(a[0] - 1, axis=1) for a in (ours, theirs)]
    np.testing.assert_allclose(*norms, **tolerance["sum"])


@pytest.mark.parity
@LOADING
def test_peft_loads_it_and_computes_the_same(family, tmp_path, tolerance):
  method = IA3(family.shape)
  params = peft_twins.random_params(method)
  delta, backward = peft_twins.made(method, params)
  ours, gradient = family.compute(delta)
  peft.write_adapter(tmp_path / "a", method.to_peft(delta))
  model = family.loaded(tmp_path / "a")
  np.testing.assert_allclose(ours, family.theirs(model), **tolerance["parity"])
  (gradient,) = backward(peft_twins.restrict(gradient, delta))
  wanted = dict(model.named_parameters())
  count = 0
  for path, own in tree.flatten(gradient).items():
    for layer, vector in enumerate(own):
      module = peft.peft_names.module(path.replace("hidden", "wo"), layer)
      expected = wanted[f"base_model.model.{module}.ia3_l.default"]
      np.testing.assert_allclose(
        vector, expected.grad.ravel(), **tolerance["parity"]
      )
      count += 1
  assert count == sum("ia3_l" in name for name in wanted)


@pytest.mark.parity
@LOADING
@pytest.mark.parametrize(
  "settings",
  [
    {},  # PEFT's defaults: of mT5, the outputs of wi_1 in the place of hidden
    {"target_modules": ["q", "wo"], "feedforward_modules": []},
    {
      "target_modules": r".*decoder\.block\.1\..*\.(o|wo)",
      "feedforward_modules": r".*\.wo",
    },
  ],
)
def test_we_load_what_peft_saves(family, settings, tmp_path, tolerance):
  from peft import IA3Config

  model = family.adapted(IA3Config(task_type="SEQ_2_SEQ_LM", **settings))
  model.save_pretrained(tmp_path / "theirs")
  method, delta = peft.read(tmp_path / "theirs", family.shape)
  ours, _ = family.compute(delta)
  np.testing.assert_allclose(ours, family.theirs(model), **tolerance["parity"])
  peft.write_adapter(tmp_path / "ours", method.to_peft(delta))
  theirs, again = (
    load_file(tmp_path / name / peft.WEIGHTS) for name in ("theirs", "ours")
  )
  assert theirs.keys() <= again.keys()
  for name, array in theirs.items():
    np.testing.assert_array_equal(again[name], array)


def test_a_factor_on_what_other_kernels_read_is_refused(tmp_path):
  method = IA3(t5_config.get("t5_1_1_tiny").shape)
  delta, _ = peft_twins.made(method, peft_twins.random_params(method))
  adapter = method.to_peft(delta)
  for place in list(adapter.kernels):
    if place[0] == "cross/key":
      adapter.kernels[place] = adapter.kernels[place].T
  peft.write_adapter(tmp_path / "a", adapter)
  with pytest.raises(
    CheckpointError, match="no factor for the input of cross/key"
  ):
    peft.read(tmp_path / "a", method.shape)
  assert jnp.isfinite(delta.scale["cross/key"]).all()
