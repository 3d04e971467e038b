"""LoRA: counts, settings, and parity with PEFT's."""

import math

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from prompt_tuning.checkpoints import peft
from prompt_tuning.core import tree
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.tuners.lora import LoRA
from prompt_tuning.tuners.method import Inputs
from tests.tuners import peft_twins

SMALL = t5_config.get("t5_1_1_small")
LOADING = pytest.mark.filterwarnings(
  "ignore:`is_gradient_checkpointing`:FutureWarning"
)


def count(method):
  shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), Inputs()))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", ["t5_1_1_small", "t5_1_0_base", "mt5_xl"])
@pytest.mark.parametrize("rank", [1, 8])
def test_parameter_count(name, rank):
  config = t5_config.get(name)
  joined = config.num_heads * config.head_dim
  layers = config.num_encoder_layers + 2 * config.num_decoder_layers
  per_kernel = rank * (config.emb_dim + joined)
  assert count(LoRA(config.shape, rank)) == 2 * layers * per_kernel
  everywhere = count(LoRA(config.shape, rank, kernels=("*",)))
  mlps = config.num_encoder_layers + config.num_decoder_layers
  gates = len(config.mlp_activations)
  wide = rank * (config.emb_dim + config.mlp_dim) * (gates + 1)
  assert everywhere == 4 * layers * per_kernel + mlps * wide


@pytest.mark.parametrize(
  ("kernels", "sites"),
  [
    (("query", "value"), "enc_self dec_self cross"),
    (("cross/out",), "cross"),
    (("dec_*/w*",), "dec_mlp"),
    (("enc_self/*", "wo"), "enc_self enc_mlp dec_mlp"),
  ],
)
def test_kernels_by_name_and_pattern(kernels, sites):
  method = LoRA(SMALL.shape, kernels=kernels)
  shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), Inputs()))
  paths = tree.flatten(shapes["params"])
  assert {path.split("/")[0] for path in paths} == set(sites.split())
  assert {path.split("/")[2] for path in paths} == {"a", "b"}


def test_axes_are_those_of_the_frozen_kernels():
  method = LoRA(SMALL.shape, kernels=("cross/out", "enc_mlp/wi_1"))
  boxed = jax.eval_shape(lambda: method.init(jax.random.key(0), Inputs()))
  axes = {p: x.names for p, x in tree.flatten(boxed["params"]).items()}
  assert axes == {
    "cross/out/a": ("layers", "joined_kv", None),
    "cross/out/b": ("layers", None, "embed"),
    "enc_mlp/wi_1/a": ("layers", "embed", None),
    "enc_mlp/wi_1/b": ("layers", None, "mlp"),
  }


def test_first_values_are_those_of_peft(tolerance):
  """a is uniform in +-1/sqrt(inputs), b zero: the frozen model."""
  method = LoRA(SMALL.shape, kernels=("cross/out",))
  delta = method.apply(method.init(jax.random.key(1), Inputs()), Inputs())
  update = delta.lowrank["cross/out"]
  bound = 1 / math.sqrt(SMALL.num_heads * SMALL.head_dim)
  assert np.abs(update.a).max() <= bound
  assert np.std(update.a) == pytest.approx(
    bound / math.sqrt(3), rel=tolerance["spread"]["rtol"]
  )
  assert not np.any(update.b)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"rank": 0}, "LORA_RANK must be a positive integer; got 0"),
    ({"rank": 2.5}, "LORA_RANK"),
    ({"alpha": 0}, "LORA_ALPHA must be a positive number; got 0"),
    ({"alpha": float("nan")}, "LORA_ALPHA"),
    ({"kernels": ("quer",)}, "'quer'. Did you mean 'query'?"),
    ({"kernels": ("enc_self/keys",)}, "Did you mean 'enc_self/key'?"),
    ({"kernels": ("wi",)}, "LORA_KERNELS: the model has no kernel 'wi'"),
    ({"kernels": "query"}, "LORA_KERNELS must be a list of kernels; got 'qu"),
    ({"kernels": ()}, "LORA_KERNELS must be a list"),
    ({"kernels": 5}, "LORA_KERNELS must be a list of kernels; got 5"),
    ({"kernels": (5,)}, "A kernel of LORA_KERNELS must be a text.*; got 5"),
    ({"kernels": ("wo", "wo")}, "LORA_KERNELS has 'wo' twice"),
  ],
)
def test_refused_settings(settings, message):
  with pytest.raises(ValueError, match=message.replace("?", r"\?")):
    LoRA(SMALL.shape, **settings)


def test_a_control_has_the_norms_of_the_updates(tolerance):
  method = LoRA(SMALL.shape, rank=2, kernels=("cross/out",))
  delta, _ = peft_twins.made(method, peft_twins.random_params(method))
  control = method.control(delta, jax.random.key(0))
  for ours, theirs in zip(
    delta.lowrank["cross/out"], control.lowrank["cross/out"], strict=True
  ):
    assert ours.shape == theirs.shape
    assert not np.allclose(ours, theirs, atol=0.1)
    norms = [
      np.linalg.norm(a[0].reshape(8, -1), axis=1) for a in (ours, theirs)
    ]
    np.testing.assert_allclose(*norms, **tolerance["sum"])


@pytest.mark.parity
@LOADING
@pytest.mark.parametrize("kernels", [("query", "value"), ("*",)])
def test_peft_loads_it_and_computes_the_same(
  family, kernels, tmp_path, tolerance
):
  method = LoRA(family.shape, peft_twins.RANK, alpha=5.0, kernels=kernels)
  params = peft_twins.random_params(method)
  delta, backward = peft_twins.made(method, params)
  ours, gradient = family.compute(delta)
  peft.write_adapter(tmp_path / "a", method.to_peft(delta))
  model = family.loaded(tmp_path / "a")
  np.testing.assert_allclose(ours, family.theirs(model), **tolerance["parity"])
  (gradient,) = backward(peft_twins.restrict(gradient, delta))
  theirs = method.apply({"params": params}, Inputs()).lowrank  # same tree
  wanted = dict(model.named_parameters())
  count = 0
  for site in theirs:
    for layer in range(family.shape.num_layers(site)):
      sublayer, kernel = site.split("/")
      module = peft.peft_names.module(site, layer)
      for name, part in (("lora_A", "a"), ("lora_B", "b")):
        expected = wanted[f"base_model.model.{module}.{name}.default.weight"]
        own = gradient[sublayer][kernel][part][layer].T
        np.testing.assert_allclose(own, expected.grad, **tolerance["parity"])
        count += 1
  assert count == sum("lora_" in name for name in wanted)


@pytest.mark.parity
@LOADING
@pytest.mark.parametrize(
  "settings",
  [
    {},  # queries and values
    {"use_rslora": True, "target_modules": ["k", "wo"]},
    {"target_modules": r".*decoder\.block\.1\..*\.(o|wi|wi_0)"},
    {
      "target_modules": ["v"],
      "layers_to_transform": [1],
      "layers_pattern": "block",
      "init_lora_weights": "gaussian",
    },
  ],
)
def test_we_load_what_peft_saves(family, settings, tmp_path, tolerance):
  from peft import LoraConfig

  config = LoraConfig(
    task_type="SEQ_2_SEQ_LM", r=peft_twins.RANK, lora_alpha=7, **settings
  )
  model = family.adapted(config)
  model.save_pretrained(tmp_path / "theirs")
  method, delta = peft.read(tmp_path / "theirs", family.shape)
  ours, _ = family.compute(delta)
  np.testing.assert_allclose(ours, family.theirs(model), **tolerance["parity"])
  # And back: the same numbers in the same places, where there were some.
  peft.write_adapter(tmp_path / "ours", method.to_peft(delta))
  theirs, again = (
    load_file(tmp_path / name / "adapter_model.safetensors")
    for name in ("theirs", "ours")
  )
  assert theirs.keys() <= again.keys()
  for name, array in theirs.items():
    np.testing.assert_allclose(again[name], array, **tolerance["arithmetic"])
