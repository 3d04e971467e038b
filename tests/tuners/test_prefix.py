"""Prefix tuning: its MLP, dropout, settings, and parity with PEFT's."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from prompt_tuning.checkpoints import peft
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import tree
from prompt_tuning.core.delta import ATTENTION_SITES
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network
from prompt_tuning.tuners import bank
from prompt_tuning.tuners.method import Inputs
from prompt_tuning.tuners.prefix import PrefixMLP, PrefixTuning
from tests.tuners import peft_twins

SMALL = t5_config.get("t5_1_1_small")  # N D is 384, H 512
TINY = t5_config.get("t5_1_1_tiny")
LOADING = pytest.mark.filterwarnings(
  "ignore:`is_gradient_checkpointing`:FutureWarning"
)


def decoders(shape):
  """The one prefix that PEFT has too."""
  return PrefixTuning(shape, peft_twins.LENGTH, ("dec_self",), positions=True)


@pytest.mark.parametrize("name", ["t5_1_1_small", "t5_1_0_11b", "ladder_3"])
@pytest.mark.parametrize("sites", [ATTENTION_SITES, ("cross",)])
def test_parameter_count(name, sites):
  config = t5_config.get(name)
  joined = config.num_heads * config.head_dim
  outputs = 2 * config.num_decoder_layers * joined
  free = PrefixTuning(config.shape, 5, sites)
  mlp = PrefixMLP(config.shape, 5, sites, hidden=7)
  per_site = 5 * config.emb_dim + (config.emb_dim + 1) * 7 + 8 * outputs
  for method, expected in ((free, 5 * outputs), (mlp, per_site)):
    shapes = jax.eval_shape(
      lambda method=method: method.init(jax.random.key(0), Inputs())
    )
    sizes = [leaf.size for leaf in jax.tree.leaves(shapes)]
    assert sum(sizes) == len(sites) * expected


def test_axes():
  def axes(method):
    boxed = jax.eval_shape(lambda: method.init(jax.random.key(0), Inputs()))
    flat = tree.flatten(boxed["params"])
    return {p: getattr(leaf, "names", None) for p, leaf in flat.items()}

  method = PrefixTuning(SMALL.shape, 2, ("cross",))
  heads = ("layers", "prompt", "heads", "kv")
  assert axes(method) == {"cross/key": heads, "cross/value": heads}
  made = axes(PrefixMLP(SMALL.shape, 2, ("cross",)))
  assert made["cross/outer/kernel"] == (None, "joined_kv")


def test_the_delta_is_the_mlp_in_numpy_and_holds_nothing_of_it(tolerance):
  method = PrefixMLP(SMALL.shape, 5, hidden=6)
  params = peft_twins.random_params(method)
  delta = method.apply({"params": params}, Inputs())
  assert set(delta.prefix) == set(ATTENTION_SITES)
  for site, prefix in delta.prefix.items():
    p = jax.tree.map(np.asarray, params[site])
    inner = p["embedding"] @ p["inner"]["kernel"] + p["inner"]["bias"]
    outer = np.tanh(inner) @ p["outer"]["kernel"] + p["outer"]["bias"]
    pairs = outer.reshape(5, SMALL.num_decoder_layers, 2, 6, 64)
    for i, array in enumerate((prefix.key, prefix.value)):
      expected = np.moveaxis(pairs[:, :, i], 1, 0)
      np.testing.assert_allclose(array, expected, **tolerance["oracle"])
    assert (prefix.mask, prefix.positioned) == (None, None)


def test_a_collapsed_prefix_is_the_free_one():
  mlp = PrefixMLP(TINY.shape, 3, positions=True, hidden=5)
  delta = mlp.apply({"params": peft_twins.random_params(mlp)}, Inputs())
  collapsed = {
    site: {"key": prefix.key, "value": prefix.value}
    for site, prefix in delta.prefix.items()
  }
  method = PrefixTuning(TINY.shape, 3, positions=True)
  free = method.apply({"params": collapsed}, Inputs())
  for ours, theirs in zip(
    jax.tree.leaves(free), jax.tree.leaves(delta), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)


def test_positions_are_those_of_self_attentions():
  method = PrefixTuning(TINY.shape, 2, positions=True)
  params = jax.tree.map(lambda a: a[None], peft_twins.random_params(method))
  delta = bank.apply_bank(method, params)
  for site in ("enc_self", "dec_self"):
    np.testing.assert_array_equal(
      delta.prefix[site].positioned, np.ones((1, 2), bool)
    )
  assert delta.prefix["cross"].positioned is None


@pytest.mark.parametrize("kind", [PrefixTuning, PrefixMLP])
def test_dropout_is_of_training_steps_only(kind, tolerance):
  method = kind(TINY.shape, 200, dropout=0.25)
  params = jax.tree.map(lambda a: a[None], peft_twins.random_params(method))
  whole = bank.apply_bank(method, params)
  keys = jax.random.split(jax.random.key(0), 3)
  dropped = [bank.apply_bank(method, params, key[None]) for key in keys[:2]]
  again = bank.apply_bank(method, params, keys[:1])
  for site, prefix in whole.prefix.items():
    for part in ("key", "value"):
      array = np.asarray(getattr(prefix, part))
      one, two = (np.asarray(getattr(d.prefix[site], part)) for d in dropped)
      kept = one != 0
      assert kept.mean() == pytest.approx(0.75, abs=tolerance["draws"]["atol"])
      np.testing.assert_allclose(
        one[kept], array[kept] / 0.75, **tolerance["arithmetic"]
      )
      assert ((two != 0) != kept).any()
      np.testing.assert_array_equal(getattr(again.prefix[site], part), one)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"length": 0}, "PREFIX_LENGTH must be a positive integer; got 0"),
    ({"dropout": 1.0}, r"PREFIX_DROPOUT must be in \[0, 1\); got 1.0"),
    ({"dropout": -0.1}, "PREFIX_DROPOUT"),
    ({"dropout": "0.1"}, "PREFIX_DROPOUT"),
    ({"hidden": 0}, "PREFIX_HIDDEN"),
    ({"sites": ("enc_sef",)}, r"'enc_sef'.*Did you mean 'enc_self'\?"),
    ({"sites": "cross"}, "PREFIX_SITES must be a list; got 'cross'"),
    ({"sites": ()}, "PREFIX_SITES must be a list"),
    ({"sites": ("cross", "cross")}, "PREFIX_SITES has 'cross' twice"),
    ({"positions": "yes"}, "PREFIX_POSITIONS must be True or False; got 'yes'"),
  ],
)
def test_refused_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    PrefixMLP(SMALL.shape, **settings)


def test_a_control_has_the_norms_of_keys_and_values(tolerance):
  method = decoders(TINY.shape)
  delta, _ = peft_twins.made(method, peft_twins.random_params(method))
  ours = delta.prefix["dec_self"]
  theirs = method.control(delta, jax.random.key(0)).prefix["dec_self"]
  np.testing.assert_array_equal(ours.positioned, theirs.positioned)
  for a, b in ((ours.key, theirs.key), (ours.value, theirs.value)):
    assert not np.allclose(a, b, atol=0.1)
    norms = [np.linalg.norm(x, axis=(3, 4)) for x in (a, b)]
    np.testing.assert_allclose(*norms, **tolerance["sum"])


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_packed_rows_have_no_distance_to_a_prefix(side):
  site = {"encoder": "enc_self", "decoder": "dec_self"}[side]
  method = PrefixTuning(TINY.shape, 2, (site,), positions=True)
  delta, _ = peft_twins.made(method, peft_twins.random_params(method))
  ids = jnp.ones((1, 4), jnp.int32)
  names = ["encoder_input_tokens", "decoder_input_tokens"]
  batch = dict.fromkeys([*names, "decoder_target_tokens"], ids)
  batch |= {f"{s}_segment_ids": ids for s in ("encoder", "decoder")}
  params = network.abstract_params(TINY)

  def logits(params, delta):
    return network.T5(TINY).apply({"params": params}, batch, delta)

  with pytest.raises(ValueError, match=rf"\({site}\).*set BATCHING"):
    jax.eval_shape(logits, params, delta)
  without = delta.prefix[site]._replace(positioned=None)
  jax.eval_shape(logits, params, type(delta)(prefix={site: without}))


@pytest.mark.parametrize(
  "settings",
  [
    {},
    {"sites": ("dec_self",)},
    {"sites": ("dec_self", "cross"), "positions": True},
  ],
)
def test_what_peft_has_not(settings):
  method = PrefixTuning(TINY.shape, 2, **settings)
  delta, _ = peft_twins.made(method, peft_twins.random_params(method))
  reason = method.to_peft(delta)
  assert "PREFIX_SITES = ('dec_self',), PREFIX_POSITIONS = True" in reason


@pytest.mark.parity
@LOADING
def test_peft_loads_it_and_computes_the_same(family, tmp_path, tolerance):
  """Also with N D != H, which PEFT's own prefixes fail at."""
  method = decoders(family.shape)
  params = peft_twins.random_params(method)
  delta, _ = peft_twins.made(method, params)
  ours, gradient = family.compute(delta)
  peft.write_adapter(tmp_path / "a", method.to_peft(delta))
  model = family.loaded(tmp_path / "a")
  np.testing.assert_allclose(ours, family.theirs(model), **tolerance["parity"])
  own = gradient.prefix["dec_self"]
  (theirs,) = (
    parameter.grad.numpy()
    for name, parameter in model.named_parameters()
    if parameter.requires_grad
  )
  pairs = theirs.reshape(peft_twins.LENGTH, 2, 2, 2, *own.key.shape[3:])
  for i, array in enumerate((own.key, own.value)):
    expected = np.moveaxis(pairs[:, :, 0, i], 1, 0)
    np.testing.assert_allclose(array[0], expected, **tolerance["parity"])
  assert not pairs[:, :, 1].any()
  _, again = peft.read(tmp_path / "a", family.shape)
  for a, b in zip(jax.tree.leaves(delta), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parity
@LOADING
@pytest.mark.parametrize("hidden", [None, 5])
def test_we_load_what_peft_saves(family, hidden, tmp_path, tolerance):
  """Its two layers share one pair of keys and values, here too."""
  from peft import PrefixTuningConfig

  config = PrefixTuningConfig(
    task_type="SEQ_2_SEQ_LM",
    num_virtual_tokens=peft_twins.LENGTH,
    token_dim=family.shape.num_heads * family.shape.head_dim,
    prefix_projection=hidden is not None,
    encoder_hidden_size=hidden,
  )
  model = family.adapted(config)
  model.save_pretrained(tmp_path / "theirs")
  method, delta = peft.read(tmp_path / "theirs", family.shape)
  ours, _ = family.compute(delta)
  np.testing.assert_allclose(ours, family.theirs(model), **tolerance["parity"])
  assert method == decoders(family.shape)
  key = delta.prefix["dec_self"].key[0]
  np.testing.assert_array_equal(key[0], key[1])
  if hidden is None:
    (theirs,) = (p.grad for p in model.parameters() if p.requires_grad)
    dead = theirs.numpy().reshape(peft_twins.LENGTH, 2, -1)[:, 1]
    assert not dead.any()


@pytest.mark.parity
@LOADING
@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({}, "is invalid for input of size"),  # N D is not H
    ({"num_transformer_submodules": 1, "token_dim": 24}, "must match the size"),
  ],
)
def test_where_peft_fails(tiny_twins, settings, message):
  """If it does not any more, there is more to read and to write."""
  pytest.importorskip("peft", reason="parity needs the test extra")
  family = peft_twins.Family(tiny_twins, copy.deepcopy(tiny_twins.torch_model))
  from peft import PrefixTuningConfig

  model = family.adapted(
    PrefixTuningConfig(
      task_type="SEQ_2_SEQ_LM", num_virtual_tokens=2, **settings
    )
  )
  with pytest.raises(RuntimeError, match=message):
    family.theirs(model)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_layers": 1}, "which the adapter says has 1 layers"),
    (
      {"num_attention_heads": 4},
      "does not fit a model of 2 layers and 2 heads",
    ),
    ({"token_dim": 8}, "8 wide, does not fit"),
    ({"num_virtual_tokens": 3}, "does not fit"),
    (
      {"num_transformer_submodules": 1},
      "num_transformer_submodules = 1 is not",
    ),
    ({"num_layers": None}, "num_layers: expected a positive integer"),
  ],
)
def test_refused_adapters(tmp_path, changes, message):
  method = decoders(TINY.shape)
  delta, _ = peft_twins.made(method, peft_twins.random_params(method))
  adapter = method.to_peft(delta)
  changed = type(adapter)({**adapter.config, **changes}, adapter.tensors)
  peft.write_adapter(tmp_path / "a", changed)
  with pytest.raises(CheckpointError, match=message):
    peft.read(tmp_path / "a", TINY.shape)
  with pytest.raises(CheckpointError):
    peft.read(tmp_path / "a")  # nothing says how many layers use it
  assert load_file(tmp_path / "a" / peft.WEIGHTS).keys() == {
    "prompt_embeddings"
  }
